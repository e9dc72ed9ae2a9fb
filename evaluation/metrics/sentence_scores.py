"""Benchmarks that compare the likelihoods of texts: one answer type, and one request for all items."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from evenhand.interfaces import Model, Passage, Score, Usage

FREE = Usage()


@dataclass(frozen=True, slots=True)
class Scored:
    """A model's scores of one item's texts, in the item's order."""

    logprobs: tuple[float | None, ...]
    """Natural log-probabilities, summed over tokens; None where the text has no score, and `note` says why."""
    tokens: tuple[int, ...]
    """Number of tokens in each sum."""
    usage: Usage = FREE
    """Cost. Tokens of prompts are unknown here: `prompt_tokens` counts only the scored ones."""
    note: str = ""
    """Why a text has no score: it is too long for the context, or the logits are not finite."""

    def value(self, at: int, *, per_token: bool = False) -> float:
        """Return the log-probability of one text, or its mean per token; nan if there is none."""
        logprob, tokens = self.logprobs[at], self.tokens[at]
        if logprob is None or tokens < 1:
            return math.nan
        return logprob / tokens if per_token else logprob


def score_texts(model: Model, texts: Sequence[Sequence[Passage]]) -> list[Scored]:
    """Score the texts of all items in one call of `Model.score`.

    Args:
        model: Any model that scores; a masked one gives pseudo-log-likelihoods (Salazar et al. 2020).
        texts: Texts of each item.

    Returns:
        One answer per item, its texts in the order given.
    """
    found = iter(model.score([passage for group in texts for passage in group]))
    answers = []
    for group in texts:
        scores = [next(found) for _ in group]
        logprobs = tuple(None if math.isnan(s.logprob) else s.logprob for s in scores)
        tokens = tuple(s.tokens for s in scores)
        usage = Usage(sum(t > 0 for t in tokens), sum(tokens))
        answers.append(Scored(logprobs, tokens, usage, why_unscored(scores)))
    return answers


def why_unscored(scores: Iterable[Score]) -> str:
    """Return why the first unscored text has no score; "" if all have one."""
    return next((s.note or "not scored" for s in scores if math.isnan(s.logprob)), "")
