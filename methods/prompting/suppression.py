"""Suppress what a model finds more probable when told to discriminate (self-debiasing decoding).

Source: Schick et al. 2021, "Self-Diagnosis and Self-Debiasing" (TACL 9, arXiv 2103.00453), section 4, equations 2
and 3, and its code (timoschick/self-debiasing, modeling.py), which bounds the factor from below.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import DynamicCache, LogitsProcessor

from evenhand.inference.padding import left_pad
from evenhand.inference.scoring import input_device

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def suppressed(logprobs: Tensor, decay: float, floor: float) -> Tensor:
    """Log of p(w) * max(exp(-decay * max(p_b(w) - p(w), 0)), floor), not normalised; p_b is the largest of all.

    Args:
        logprobs: [rows, 1 + prefixes, tokens]: of the text itself, and after each prefix.
        decay: The paper's lambda.
        floor: Its code's bound; more than 0.

    Returns:
        [rows, tokens].
    """
    own, biased = logprobs[:, 0], logprobs[:, 1:].amax(1)
    more = (biased.exp() - own.exp()).clamp_min(0)
    return own + (-decay * more).clamp_min(math.log(floor))


class SelfDebiasingProcessor(LogitsProcessor):
    """A logits processor for `generate` of transformers with the same effect: greedy or sampling, without beams.

    It runs the model after each prefix itself, keeping keys and values between steps. Create one for each call.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        prefixes: Sequence[Sequence[int]],
        *,
        after: int = 1,
        decay: float = 50.0,
        floor: float = 0.01,
        attention_mask: Tensor | None = None,
    ) -> None:
        """Take the prefixes.

        Args:
            model: The model that generates.
            prefixes: Token ids of each prefix.
            after: Number of tokens of a prompt (its opening token) that stay before the prefix.
            decay: See `suppressed`.
            floor: See `suppressed`.
            attention_mask: Mask of the prompts, [rows, tokens], left-padded; None if none is padded.
        """
        self.model, self.prefixes, self.after, self.decay, self.floor = model, prefixes, after, decay, floor
        self._mask = attention_mask
        self._positions: Tensor | None = None
        self._cache = DynamicCache(config=model.config)

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Make less probable what the prefixes make more probable; `scores` are [rows, vocabulary]."""
        if self._positions is None:
            ids, positions = self._begin(input_ids)
        else:
            ids = input_ids[:, -1:].repeat(len(self.prefixes), 1)
            positions = self._positions[:, -1:] + 1
            self._mask = torch.cat([self._seen, torch.ones_like(ids)], dim=1)
        self._positions = positions
        with torch.no_grad():
            logits = self.model(
                input_ids=ids,
                position_ids=positions,
                attention_mask=self._mask,
                past_key_values=self._cache,
                use_cache=True,
            ).logits[:, -1]
        both = torch.cat([scores[None], logits.to(scores.device).reshape(len(self.prefixes), *scores.shape)])
        logprobs = torch.log_softmax(both.transpose(0, 1).float(), dim=-1)
        return suppressed(logprobs, self.decay, self.floor)  # type: ignore[return-value]

    @property
    def _seen(self) -> Tensor:
        if self._mask is None:
            raise RuntimeError("the prompts have not been read yet")
        return self._mask

    def _begin(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return the prompts after each prefix, left-padded, prefix by prefix; and their positions."""
        given = torch.ones_like(input_ids) if self._mask is None else self._mask.to(input_ids.device)
        prompts = [row[seen.bool()].tolist() for row, seen in zip(input_ids, given, strict=True)]
        texts = [[*p[: self.after], *prefix, *p[self.after :]] for prefix in self.prefixes for p in prompts]
        ids, self._mask = left_pad(texts, 0, device=input_device(self.model))
        return ids, (self._mask.cumsum(-1) - 1).clamp_min(0)
