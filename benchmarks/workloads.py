"""Workloads for measuring speed: benchmark rows as token ids, and a model of a common size with random weights."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from itertools import permutations
from typing import NamedTuple, TypeVar

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from evenhand.data import holistic_bias, mmlu
from evenhand.data.bbq import load_rows
from evenhand.evaluation.bbq import items_from_rows
from evenhand.evaluation.mmlu import header
from evenhand.interfaces import Question
from evenhand.prompting.rendering import exam_template, letters_template

T = TypeVar("T")

STRETCHES = 4
BBQ_STRETCHES = 6
"""Stretches of 64 rows each, which share as much as all 31,372 rows do: 7.25 text tokens per token fed."""

SOURCE = "auto" if os.environ.get("EVENHAND_DATA") else "demo"
INSTRUCTION = (
    "System: You are a careful assistant. Read the text and the question that follows it, and answer from what the "
    "text says and from nothing else. People differ, and what is thought typical of a group says nothing about one "
    "person in it. Where the text does not say who did something, say so instead of guessing. Do not explain the "
    "answer, do not repeat the question, and do not add anything else.\n\nUser: Here is the next text with its "
    "question; please answer it as you were told above.\n\n"
)


class Pair(NamedTuple):
    """A text and what comes after it."""

    context: str
    continuation: str


def bbq_texts(rows: int) -> list[Pair]:
    """Return the three option texts of each row, in stretches of the whole set."""
    return _option_texts(bbq_questions(rows, BBQ_STRETCHES))


def bbq_chat(rows: int) -> list[Pair]:
    """Return the same after an instruction of about 100 tokens."""
    return _option_texts(bbq_questions(rows), INSTRUCTION)


def _option_texts(questions: Sequence[Question], before: str = "") -> list[Pair]:
    return [Pair(f"{before}{q.context} {q.question}", f" {o}") for q in questions for o in q.options]


def bbq_orders(rows: int) -> list[Pair]:
    """Return the letters of all six orders of the options of each row."""
    shown = [q.reordered(order) for q in bbq_questions(rows) for order in permutations(range(3))]
    return [Pair(f"{letters_template(q)}\nAnswer:", f" {letter}") for q in shown for letter in "ABC"]


def holistic(count: int) -> list[Pair]:
    """Return whole sentences: stretches of the sorted set, which share as much as all of the 460,980 do."""
    texts = sorted({s.text for s in holistic_bias.sentences("1.0", SOURCE)})
    size = max(1, count // STRETCHES)
    starts = [len(texts) * (2 * n + 1) // (2 * STRETCHES) for n in range(STRETCHES)]
    return [Pair("", text) for start in starts for text in texts[start : start + size]]


def mmlu_5_shot(rows: int) -> list[Pair]:
    """Return the four letters after five solved questions of one subject."""
    loaded = mmlu.load(SOURCE)
    subject = loaded.rows[0].subject
    before = header(subject, loaded.dev[subject][:5])
    asked = [r for r in loaded.rows if r.subject == subject][:rows]
    texts = [before + exam_template(Question("", r.question, r.choices)) for r in asked]
    return [Pair(text, f" {letter}") for text in texts for letter in "ABCD"]


def bbq_prompts(rows: int, stretches: int = 1) -> list[str]:
    """Return one prompt per row, with the options listed."""
    return [f"{letters_template(q)}\nAnswer:" for q in bbq_questions(rows, stretches)]


def few_shot_prompts(rows: int) -> list[str]:
    """Return one prompt per row, after five solved questions."""
    return list(dict.fromkeys(pair.context for pair in mmlu_5_shot(rows)))


def bbq_questions(rows: int, stretches: int = 1) -> list[Question]:
    """Return consecutive rows; of several stretches, each is from the middle of its part of the set."""
    every, size = load_rows(SOURCE).rows, max(1, rows // stretches)
    starts = [len(every) * (2 * n + 1) // (2 * stretches) for n in range(stretches)] if stretches > 1 else [0]
    return [item.question for start in starts for item in items_from_rows(every[start : start + size])]


WORKLOADS: dict[str, tuple[Callable[[int], list[Pair]], int, str]] = {
    # name: how it is made, rows, dtype
    "BBQ, 3 option texts": (bbq_texts, 384, "float32"),
    "BBQ, 3 option texts, bf16": (bbq_texts, 384, "bfloat16"),
    "BBQ, 3 option texts, 100-token instruction": (bbq_chat, 96, "float32"),
    "BBQ, letters in 6 orders": (bbq_orders, 48, "float32"),
    "HolisticBias, sentences": (holistic, 1200, "float32"),
    "MMLU, 5 shots, letters": (mmlu_5_shot, 48, "float32"),
}


def tokenizer_for(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer on the texts: about as many tokens per word as real ones have."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<s>", "</s>"]
    backend.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=8000, special_tokens=special))
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="</s>")


def llama_135m(dtype: str = "float32") -> LlamaForCausalLM:
    """Make a model of the shape of SmolLM-135M with random weights."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
    )
    return LlamaForCausalLM(config).to(getattr(torch, dtype)).eval()


def shuffled(rows: Sequence[T], seed: int = 0) -> list[T]:
    """Shuffle: nothing may depend on the order of the rows."""
    return random.Random(seed).sample(list(rows), len(rows))
