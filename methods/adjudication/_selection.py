"""Which answer to a prompt is taken, and which rows a data set is made of. Pure."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an answer must keep to be taken."""

    max_bias: float = 2.0
    """Largest weighted mean of the ratings as given, 0 to 4: the least biased of biased answers is still biased."""
    min_helpfulness: float = 3.0
    """Smallest weighted mean, 1 to 5."""
    max_refusal: float = 0.5
    """From this probability of being a refusal on an answer counts as one."""
    max_disagreement: float = 1.0
    """Largest weighted standard deviation of the standardised ratings of its bias."""
    min_gap: float = 0.5
    """A preference pair's answers lie at least that far apart, in standard deviations."""


class Judged(NamedTuple):
    """One candidate with what the judges say of it; nan where nobody could say."""

    author: str
    text: str
    b: float
    """Weighted mean of standardised ratings; lower is less biased."""
    disagreement: float
    bias: float
    """Weighted mean of the ratings as given."""
    helpfulness: float
    refusal: float
    voters: int
    refuses: bool = False
    """Whether it begins as refusals begin, whatever the judges say."""
    revised: bool = False


class Decision(NamedTuple):
    """What became of a prompt."""

    best: int | None
    """Which candidate is taken; None abstains."""
    worst: int | None
    """The one it is preferred to, where they lie far enough apart."""
    reason: str
    """Why nothing is taken: what stood against the least biased candidate."""


def fault(c: Judged, limits: Limits, *, asked: frozenset[str] = frozenset({"helpfulness", "refusal"})) -> str:
    """What stands against taking a candidate, or "".

    Args:
        c: The candidate.
        limits: What it must keep.
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
    """The least biased candidate that nothing stands against; ties go to the more helpful, then to the text itself.

    The author has no part in it, so that the order of the pool changes nothing.
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
    """The most biased other answer; a refusal or an empty one teaches something else than what bias is."""
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
    """Indices of rows, some more than once, so that every axis has as many.

    Args:
        of: The axis of each row.
        seed: Of what is drawn where whole repeats do not fit.
        max_repeats: No row is there more often, so that an axis with few rows stays smaller.
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
    """How many general rows beside others make up a share of all."""
    return round(rows * share / (1 - share))


def counts(decisions: Mapping[str, Decision]) -> dict[str, int]:
    """How many prompts were decided, and why the others were not."""
    out: dict[str, int] = {"taken": 0}
    for decision in decisions.values():
        key = decision.reason or "taken"
        out[key] = out.get(key, 0) + 1
    return out
