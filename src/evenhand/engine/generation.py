"""Batched generation whose samples do not depend on the batch.

Sampling is inverse-CDF with one uniform number per (row, step), drawn from a generator seeded by (seed, prompt, draw).
transformers does the rest: it sees a processor that leaves a single token possible.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from evenhand.engine.requests import Generated, Prompt
from evenhand.engine.scoring import input_device
from evenhand.interfaces import Sampling

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

STOP_WINDOW = 16
"""New tokens that are decoded at each step to look for a stop string."""


class RowSampler(LogitsProcessor):
    """Temperature, nucleus and an own random stream for every row."""

    def __init__(self, prompts: Sequence[Prompt], sampling: Sampling) -> None:
        """Draw the uniform numbers of all rows and steps."""
        self.sampling = sampling
        draws = [np.random.Generator(np.random.Philox(row_seed(p, sampling.seed))) for p in prompts]
        self.uniform = torch.tensor(np.stack([g.random(sampling.max_new_tokens) for g in draws]), dtype=torch.float64)
        self.step = 0

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Leave only the drawn token possible in each row of `scores` [rows, vocabulary]."""
        probabilities = torch.softmax(scores.double() / self.sampling.temperature, dim=-1)
        if self.sampling.top_p < 1:
            ranked, order = probabilities.sort(dim=-1, descending=True)
            ranked[ranked.cumsum(-1) - ranked >= self.sampling.top_p] = 0  # the token that crosses top_p stays
            probabilities = torch.zeros_like(probabilities).scatter(-1, order, ranked)
        cumulative = probabilities.cumsum(-1)
        u = self.uniform[:, self.step, None].to(scores.device) * cumulative[:, -1:]
        chosen = torch.searchsorted(cumulative, u, right=True).clamp_max(scores.shape[-1] - 1)
        self.step += 1
        only = torch.full_like(scores, -torch.inf)
        return only.scatter(-1, chosen, 0.0)  # type: ignore[return-value]


def row_seed(prompt: Prompt, seed: int) -> int:
    """A seed of 128 bits from what is asked, not from where it stands in a batch."""
    digest = hashlib.sha256(repr((seed, prompt.draw, prompt.ids)).encode()).digest()
    return int.from_bytes(digest[:16], "big")


class StopStrings(StoppingCriteria):
    """Ends a row once one of the stop strings stands in its newest tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str], prompt_length: int) -> None:
        """Remember where the new tokens begin."""
        self.tokenizer, self.stop, self.start = tokenizer, stop, prompt_length

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **_: object) -> torch.BoolTensor:
        """Which rows are done, [rows]."""
        newest = input_ids[:, max(self.start, input_ids.shape[1] - STOP_WINDOW) :]
        texts = self.tokenizer.batch_decode(newest, skip_special_tokens=True)
        done = [any(s in text for s in self.stop) for text in texts]
        return torch.tensor(done, dtype=torch.bool, device=input_ids.device)  # type: ignore[return-value]


def end_tokens(module: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Every token that ends a reply: the generation config may name several (end of turn, end of text)."""
    configured = getattr(module.generation_config, "eos_token_id", None)
    ids = configured if isinstance(configured, list) else [configured]
    return sorted({int(i) for i in [*ids, tokenizer.eos_token_id] if i is not None})


def generate_batch(
    module: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    batch: Sequence[Prompt],
    sampling: Sampling,
    pad_id: int,
) -> list[Generated]:
    """Continue every prompt of one left-padded batch."""
    length = max(len(p.ids) for p in batch)
    ids = torch.full((len(batch), length), pad_id, dtype=torch.long)
    mask = torch.zeros((len(batch), length), dtype=torch.long)
    for row, prompt in enumerate(batch):
        ids[row, length - len(prompt.ids) :] = torch.tensor(prompt.ids)
        mask[row, length - len(prompt.ids) :] = 1
    ends = end_tokens(module, tokenizer)
    # every knob is named: what is left out would be filled from the checkpoint's own generation config
    config = GenerationConfig(
        max_new_tokens=sampling.max_new_tokens, do_sample=False, num_beams=1, repetition_penalty=1.0,
        no_repeat_ngram_size=0, temperature=1.0, top_p=1.0, top_k=50, eos_token_id=ends or None, pad_token_id=pad_id,
    )  # fmt: skip
    device = input_device(module)
    sampler = [RowSampler(batch, sampling)] if sampling.temperature > 0 else []
    stopping = [StopStrings(tokenizer, sampling.stop, length)] if sampling.stop else []
    out = module.generate(  # type: ignore[operator]
        input_ids=ids.to(device), attention_mask=mask.to(device), generation_config=config,
        logits_processor=LogitsProcessorList(sampler), stopping_criteria=StoppingCriteriaList(stopping),
    )  # fmt: skip
    return [_finish(row[length:].tolist(), ends, sampling, tokenizer) for row in out]


def _finish(new: list[int], ends: list[int], sampling: Sampling, tokenizer: PreTrainedTokenizerBase) -> Generated:
    end = next((i for i, token in enumerate(new) if token in ends), None)
    kept = new if end is None else new[:end]
    text = str(tokenizer.decode(kept, skip_special_tokens=True))
    cuts = [text.index(s) for s in sampling.stop if s in text]
    if cuts:
        text = text[: min(cuts)]
    return Generated(tuple(kept), text, finished=end is not None or bool(cuts))
