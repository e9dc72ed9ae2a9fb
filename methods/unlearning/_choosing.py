"""Choose how much of a task vector is subtracted, on validation texts, under a limit on its cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from evenhand.core.text_output import number
from evenhand.errors import DivergedError, SettingsError
from evenhand.inference.requests import NOT_FINITE
from evenhand.interfaces import Model, Pair, Passage

LARGEST = 700.0
"""Nats per token above which the exponential is infinite."""


class Tried(NamedTuple):
    """Results of one strength on the validation texts."""

    strength: float
    perplexity: float
    """Perplexity per token on texts unrelated to the bias."""
    log_odds: float | None
    """Mean over pairs of ln P(stereotyped) - ln P(other); None without pairs."""

    @property
    def row(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return dict(self._asdict())


def perplexity(model: Model, texts: Sequence[str]) -> float:
    """Compute exp of the mean loss per token, over all texts together; infinite if logits are not finite."""
    every = model.score([Passage(t) for t in texts])
    if any(s.note == NOT_FINITE for s in every):  # else only the texts that a broken model can score would count
        return math.inf
    scores = [s for s in every if not math.isnan(s.logprob)]
    tokens = sum(s.tokens for s in scores)
    if not tokens:
        raise SettingsError("none of the neutral texts can be scored by this model: they are empty or too long")
    loss = -sum(s.logprob for s in scores) / tokens
    return math.exp(loss) if loss < LARGEST else math.inf


def log_odds(model: Model, pairs: Sequence[Pair]) -> float:
    """Average ln P(stereotyped) - ln P(other); 0 is no preference."""
    passages = [
        Passage(side, p.prompt, p.id, p.suffix) for p in pairs for side in (p.stereotyped, p.counter_stereotyped)
    ]
    scores = [s.logprob for s in model.score(passages)]
    found = [a - b for a, b in zip(scores[::2], scores[1::2], strict=True) if not math.isnan(a - b)]
    if not found:
        raise SettingsError("none of the validation pairs can be scored by this model: they are too long")
    return sum(found) / len(found)


def tried(strength: float, make: Callable[[float], Model], neutral: Sequence[str], pairs: Sequence[Pair]) -> Tried:
    """Measure a strength; one that leaves non-finite weights costs infinitely much."""
    try:
        model = make(strength)
    except DivergedError:
        return Tried(strength, math.inf, None)
    return Tried(strength, perplexity(model, neutral), log_odds(model, pairs) if pairs else None)


def choose(
    make: Callable[[float], Model],
    strengths: Sequence[float],
    neutral: Sequence[str],
    pairs: Sequence[Pair],
    limit: float,
) -> tuple[float, list[Tried]]:
    """Choose the best of several strengths whose perplexity is at most (1 + limit) times the baseline's.

    The best has the smallest mean log-odds of the pairs, in absolute value, so that a bias is not reversed; without
    pairs it is the largest strength. Strength 0 is the baseline, and tried first.

    Args:
        make: Returns the model after subtracting the vector at a strength.
        strengths: Strengths to try.
        neutral: Texts unrelated to the bias.
        pairs: Validation pairs, if there are any.
        limit: Maximum relative increase of the perplexity.

    Returns:
        The strength, and all that was tried.

    Raises:
        SettingsError: Every strength costs more.
    """
    found = [tried(s, make, neutral, pairs) for s in (0.0, *(s for s in strengths if s != 0))]
    most = found[0].perplexity * (1 + limit)
    fit = [t for t in found[1:] if t.perplexity <= most]
    if not fit:
        told = ", ".join(f"{t.strength}: {number(t.perplexity)}" for t in found)
        raise SettingsError(
            f"no strength keeps the perplexity below {number(most)} (strength: perplexity {told}); try smaller "
            "strengths, or a larger limit"
        )
    if pairs:
        return min(fit, key=lambda t: (abs(t.log_odds or 0.0), t.strength)).strength, found
    return max(fit, key=lambda t: t.strength).strength, found
