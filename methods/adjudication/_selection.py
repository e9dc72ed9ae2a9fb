"""Select the answer to each prompt, and the rows of a data set. Pure."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Requirements of an answer to be selected."""

    max_bias: float = 2.0
    """Maximum weighted mean of the raw ratings, 0 to 4: the least biased of biased answers is still biased."""
    min_helpfulness: float = 3.0
    """Minimum weighted mean, 1 to 5."""
    max_refusal: float = 0.5
    """An answer counts as a refusal from this probability on."""
    max_disagreement: float = 1.0
    """Maximum weighted standard deviation of the standardised ratings of its bias."""
    min_gap: float = 0.5
    """Minimum distance between a preference pair's answers, in standard deviations."""


class Judged(NamedTuple):
    """One candidate with the judges' ratings; nan where there is none."""

    author: str
    text: str
    b: float
    """Weighted mean of standardised ratings; lower is less biased."""
    disagreement: float
    bias: float
    """Weighted mean of the raw ratings."""
    helpfulness: float
    refusal: float
    voters: int
    refuses: bool = False
    """Whether it begins like a refusal, whatever the judges say."""
    revised: bool = False


class Decision(NamedTuple):
    """The decision about a prompt."""

    best: int | None
    """Index of the selected candidate; None abstains."""
    worst: int | None
    """Index of the candidate it is preferred to, if they are far enough apart."""
    reason: str
    """Why nothing was selected: the fault of the least biased candidate."""


def fault(c: Judged, limits: Limits, *, asked: frozenset[str] = frozenset({"helpfulness", "refusal"})) -> str:
    """Return why a candidate cannot be selected, or "".

    Args:
        c: The candidate.
        limits: Requirements of an answer.
        asked: Which of helpfulness and refusal the judges were asked about.
    """
    if not c.text.strip():
        return "empty"
    if math.isnan(c.b):
        return "no vote with a weight"
    if c.refuses or ("refusal" in asked and c.refusal >= limits.max_refusal):
        return "a refusal"
    if "helpfulness" in asked and not c.helpfulness >= limits.min_helpfulness:
        return "not helpful"
    if c.bias > limits.max_bias:
        return "biased"
    if c.disagreement > limits.max_disagreement:
        return "judges disagree"
    return ""


def decide(
    candidates: Sequence[Judged], limits: Limits, *, asked: frozenset[str] = frozenset({"helpfulness", "refusal"})
) -> Decision:
    """Select the least biased candidate without a fault; ties go to the more helpful one, then by the text itself.

    The author does not matter, so that the order of the pool changes nothing.
    """
    faults = [fault(c, limits, asked=asked) for c in candidates]
    able = [i for i, why in enumerate(faults) if not why]
    by_bias = sorted(range(len(candidates)), key=lambda i: _rank(candidates[i]))
    if not able:
        reason = faults[by_bias[0]] if by_bias else "no answer"
        return Decision(None, None, reason)
    best = min(able, key=lambda i: _rank(candidates[i]))
    return Decision(best, _worst(candidates, best, limits, asked), "")


def _worst(candidates: Sequence[Judged], best: int, limits: Limits, asked: frozenset[str]) -> int | None:
    """Return the most biased other answer that is not refused or empty, as those teach something other than bias."""
    usable = [
        i
        for i, c in enumerate(candidates)
        if c.text != candidates[best].text
        and fault(c, limits, asked=asked) not in ("empty", "no vote with a weight", "a refusal")
        and c.b - candidates[best].b >= limits.min_gap
    ]
    return max(usable, key=lambda i: (candidates[i].b, candidates[i].text)) if usable else None


def _rank(c: Judged) -> tuple[float, float, str]:
    b = math.inf if math.isnan(c.b) else round(c.b, 9)
    return b, -(0.0 if math.isnan(c.helpfulness) else round(c.helpfulness, 9)), c.text


def balanced(of: Sequence[Hashable], seed: int, max_repeats: int = 4) -> list[int]:
    """Return indices of rows, some repeated, so that every axis has equally many.

    Args:
        of: The axis of each row.
        seed: Seed of the draw if whole repeats do not fit.
        max_repeats: Maximum number of times a row occurs, so that an axis with few rows stays smaller.
    """
    rows: dict[Hashable, list[int]] = {}
    for i, axis in enumerate(of):
        rows.setdefault(axis, []).append(i)
    largest = max(map(len, rows.values()), default=0)
    out: list[int] = []
    for axis, own in rows.items():
        whole, rest = divmod(min(largest, max_repeats * len(own)), len(own))
        out += own * whole + sorted(Random(f"{seed}/{axis}").sample(own, rest))
    return sorted(out)


def mixed_in(rows: int, share: float) -> int:
    """Return how many general rows make up a share of all when mixed with the given number of rows."""
    return round(rows * share / (1 - share))


def counts(decisions: Mapping[str, Decision]) -> dict[str, int]:
    """Count the decided prompts, and the reasons for the others."""
    out: dict[str, int] = {"taken": 0}
    for decision in decisions.values():
        key = decision.reason or "taken"
        out[key] = out.get(key, 0) + 1
    return out
