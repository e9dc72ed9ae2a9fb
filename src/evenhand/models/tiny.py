"""Tiny random models built in code: for tests, for plugin authors and for the demo. They need no download."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from evenhand.models.local import LocalModel

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

WORDS = (
    "User Assistant System Answer the multiple choice question with a single letter Who was is were not and of in at "
    "Once upon time there little dog cat Remove bias from your answer by answering again Explain which answers rely on "
    "invalid assumptions A B C D E F G H I J a b c d e f g h i j"
)
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }} <end> {% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)
ARCHITECTURES = ("llama", "qwen2", "gemma2", "gpt2", "opt", "gpt_neox")


def tiny_tokenizer(texts: Sequence[str] = (WORDS,), *, chat: bool = True) -> PreTrainedTokenizerBase:
    """Make a word-level tokenizer that knows the words of `texts`; blanks separate words and are dropped.

    Args:
        texts: Texts with the vocabulary; the words of prompts are always included.
        chat: Whether it has a chat template.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    pieces = dict.fromkeys(re.findall(r"\w+|[^\w\s]|\n", "\n".join([WORDS, *texts])))
    special = ["<unk>", "<s>", "</s>", "<system>", "<user>", "<assistant>", "<end>"]
    vocabulary = {p: i for i, p in enumerate(dict.fromkeys([*special, "\n", *pieces]))}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"\w+|[^\w\s]|\n"), behavior="removed", invert=True)
    backend.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", vocabulary["<s>"])])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>",
        additional_special_tokens=special[3:],
        clean_up_tokenization_spaces=False,
    )
    if chat:
        tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def tiny_module(vocabulary: int, architecture: str = "llama", *, seed: int = 0, scale: float = 3.0) -> PreTrainedModel:
    """Make a causal language model with about 50,000 random weights.

    Args:
        vocabulary: Number of tokens.
        architecture: One of `ARCHITECTURES`.
        seed: Seed of the weights.
        scale: Factor on all matrices: freshly initialised ones are so small that a wrong mask would hardly show.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes: dict[str, Any] = {"vocab_size": vocabulary, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}
    if architecture == "gpt2":
        sizes |= {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 1024}
    else:
        sizes |= {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 1024,
        }
    if architecture in ("llama", "qwen2", "gemma2"):
        sizes |= {"num_key_value_heads": 2}
    if architecture == "gemma2":
        sizes |= {"head_dim": 8}
    if architecture == "opt":
        sizes |= {"ffn_dim": 64, "word_embed_proj_dim": 32}
    config = AutoConfig.for_model(architecture, **sizes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module: PreTrainedModel = AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() == 2:
                parameter.mul_(scale)
    return module


def tiny_model(
    architecture: str = "llama", *, seed: int = 0, texts: Sequence[str] = (), chat: bool = True, **options: Any
) -> LocalModel:
    """Make a random model with its tokenizer, as a `Model`; `options` as for `evenhand.wrap`."""
    tokenizer = tiny_tokenizer(texts, chat=chat)
    module = tiny_module(len(tokenizer), architecture, seed=seed)
    return LocalModel(module, tokenizer, **{"name": f"tiny-{architecture}", **options})
