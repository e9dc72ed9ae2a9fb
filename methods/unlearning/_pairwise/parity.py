"""Measure how far a model is from parity on pairs, when training stops, and which axis it trains on next.

At parity neither side of a pair is preferred. Distances are signed and in percentage points from 50 %: above 0
the stereotyped sides are preferred, below 0 the counter-stereotyped ones.

The rule of swapping is BiasUnlearn's (Liu et al. 2025, arXiv 2509.25673; the released code).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

Measure = Literal["probability", "stereotype_score"]
ALL = "parity_distance"
"""Column of the training curve with the distance over all pairs; `ALL.AXIS` is the one for an axis."""


class PairScore(NamedTuple):
    """A model's scores of a pair: sums of negative log-likelihoods in nats, and numbers of tokens."""

    chosen: float
    rejected: float
    chosen_length: int
    rejected_length: int
    axis: str


class Turn(NamedTuple):
    """What is trained until the next check."""

    axis: str | None = None
    """The only axis whose pairs are trained on; None uses all."""
    swapped: bool = False
    """Whether the two sides of the pairs change places."""


EVERYTHING = Turn()


def distance(scores: Sequence[PairScore], measure: Measure) -> float:
    """Return by how many percentage points the stereotyped sides are above 50 %.

    Args:
        scores: Scores of at least one pair.
        measure: "probability" is the mean of the stereotyped side's share of the probability of both sides;
            "stereotype_score" the share of pairs whose stereotyped side is more probable per token, ties half.
    """
    share = _probability if measure == "probability" else _preferred
    return 100 * (sum(map(share, scores)) / len(scores) - 0.5)


def distances(scores: Sequence[PairScore], measure: Measure) -> dict[str, float]:
    """Return the distance of each axis, in alphabetical order."""
    axes = sorted({score.axis for score in scores})
    return {axis: distance([score for score in scores if score.axis == axis], measure) for axis in axes}


def columns(scores: Sequence[PairScore], measure: Measure) -> dict[str, float]:
    """Return the distances as columns of a training curve: over all pairs, and of each axis."""
    each = distances(scores, measure)
    return {ALL: distance(scores, measure), **{f"{ALL}.{axis}": value for axis, value in each.items()}}


def by_axis(row: Mapping[str, float]) -> dict[str, float]:
    """Return the distance of each axis, from a row of a curve."""
    return {name.removeprefix(f"{ALL}."): value for name, value in row.items() if name.startswith(f"{ALL}.")}


def next_turn(found: Mapping[str, float], tolerance: float) -> Turn | None:
    """Apply the swapping rule: train on the axis farthest from parity, with its sides swapped if it is below.

    Args:
        found: Distance of each axis.
        tolerance: Percentage points that count as parity.

    Returns:
        The turn; None if every axis is within the tolerance, so that training ends.
    """
    axis = max(found, key=lambda name: abs(found[name]))
    return Turn(axis, found[axis] < 0) if abs(found[axis]) >= tolerance else None


def _probability(score: PairScore) -> float:
    difference = score.rejected - score.chosen
    return 1 / (1 + math.exp(min(difference, 700.0)))  # exp overflows beyond 709


def _preferred(score: PairScore) -> float:
    rejected, chosen = score.rejected / score.rejected_length, score.chosen / score.chosen_length
    return 0.5 if rejected == chosen else float(rejected < chosen)
