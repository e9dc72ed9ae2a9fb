"""Turn logits into tokens and tokens into replies, independently of what a row is batched with.

Sampling is inverse-CDF with one uniform number per (row, step), drawn from a generator seeded by (seed, prompt, draw).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from evenhand.core.draws import key_hash
from evenhand.core.stop_strings import first_stop
from evenhand.inference.requests import NOT_FINITE, Generated, Prompt
from evenhand.interfaces import Array, Sampling

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

STOP_WINDOW = 16
"""Minimum number of new tokens that are decoded at each step to look for a stop string."""


def row_seed(prompt: Prompt, seed: int) -> int:
    """Return a 128-bit seed that depends on the prompt and draw, not on the position in a batch."""
    return int.from_bytes(key_hash(repr((seed, prompt.draw, prompt.ids)))[:16], "big")


def uniforms(prompt: Prompt, sampling: Sampling) -> Array:
    """Return the uniform numbers of a row, [max_new_tokens]; empty at temperature 0."""
    if sampling.temperature == 0:
        return np.empty(0)
    return np.random.Generator(np.random.Philox(row_seed(prompt, sampling.seed))).random(sampling.max_new_tokens)


def pick(logits: Tensor, sampling: Sampling, uniform: Sequence[float]) -> list[int | None]:
    """Choose the next token of each row; None if the logits are not finite.

    Args:
        logits: Logits, [rows, vocabulary].
        sampling: Temperature and nucleus; at temperature 0 the most probable token is taken.
        uniform: One number in [0, 1) per row; not used at temperature 0.
    """
    largest, chosen = logits.max(-1)
    usable = largest.isfinite().tolist()  # the maximum is nan or +inf if any is, and -inf if all are
    if sampling.temperature > 0:
        chosen = _drawn(logits, sampling, uniform)
    return [token if fine else None for token, fine in zip(chosen.tolist(), usable, strict=True)]


def _drawn(logits: Tensor, sampling: Sampling, uniform: Sequence[float]) -> Tensor:
    """Draw a token for each row by its uniform number, [rows]."""
    probabilities = torch.softmax(logits.double() / sampling.temperature, dim=-1)
    if sampling.top_p < 1:
        ranked, order = probabilities.sort(dim=-1, descending=True)
        ranked[ranked.cumsum(-1) - ranked >= sampling.top_p] = 0  # the token that crosses top_p stays
        probabilities = torch.zeros_like(probabilities).scatter(-1, order, ranked)
    cumulative = probabilities.cumsum(-1)
    u = torch.tensor(uniform, dtype=torch.float64, device=logits.device)[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, u, right=True).clamp_max(logits.shape[-1] - 1)[:, 0]


def finite(logits: Tensor) -> Tensor:
    """Return whether the last axis gives a distribution: some token is possible, and none is nan or +inf."""
    return logits.amax(-1).isfinite()


def end_tokens(module: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return all tokens that end a reply: the generation config may have several (end of turn, end of text)."""
    configured = getattr(module.generation_config, "eos_token_id", None)
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset(int(i) for i in [*ids, tokenizer.eos_token_id] if i is not None)


def stopped(rows: Sequence[Sequence[int]], tokenizer: PreTrainedTokenizerBase, stop: Sequence[str]) -> list[bool]:
    """Return whether the newest tokens of each row contain a stop string."""
    if not stop:
        return [False] * len(rows)
    window = max(STOP_WINDOW, *(len(s.encode()) + 4 for s in stop))  # a token has at least one byte
    texts = tokenizer.batch_decode([list(new[-window:]) for new in rows], skip_special_tokens=True)
    return [any(s in text for s in stop) for text in texts]


def reply(
    new: Sequence[int], ends: frozenset[int], sampling: Sampling, tokenizer: PreTrainedTokenizerBase
) -> Generated:
    """Make a reply of new tokens, without the end token or stop string and what follows it."""
    end = next((i for i, token in enumerate(new) if token in ends), None)
    kept = list(new if end is None else new[:end])
    text = str(tokenizer.decode(kept, skip_special_tokens=True))
    cut = first_stop(text, sampling.stop)
    return Generated(tuple(kept), text[:cut], finished=end is not None or cut is not None)


def no_reply() -> Generated:
    """Return the empty reply of a row whose logits are not finite; earlier tokens are discarded."""
    return Generated((), "", finished=False, note=NOT_FINITE)
