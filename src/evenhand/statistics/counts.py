"""Count how many effects are truly below zero, with an interval that is valid under any dependence."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from typing import NamedTuple

import numpy as np
from scipy.special import stdtr, stdtrit

from evenhand.statistics.families import holm


class Gain(NamedTuple):
    """An improvement with its interval; below 0 is worse."""

    value: float
    low: float
    high: float
    degrees: float
    """Degrees of freedom of its standard error."""
    p: float = float("nan")
    """Two-sided p of "exactly zero", if there is a test of its own: half of it bounds the one-sided p from below."""


class CountBelow(NamedTuple):
    """Number of effects below zero."""

    found: int
    """Number as measured."""
    low: int
    """Lower end of the interval of the true number."""
    high: int
    of: int
    """Number of effects, including those without an interval."""
    unknown: int
    """Number of effects without an interval, which may be below zero or not."""


def count_below(gains: Sequence[Gain], alpha: float) -> CountBelow:
    """Count effects below zero.

    The interval has level 1 - `alpha` for the number of effects whose true value is below zero. Its lower end is how
    many are shown to be below by one-sided tests of level `alpha` / 2 with Holm's adjustment, its upper end how many
    are not shown to be above by such tests. Holm's procedure bounds the chance of one false rejection under any
    dependence (Holm 1979), so each end fails with a chance of at most `alpha` / 2. A resampled count would not do:
    effects near zero fall on both sides of it by chance and pull the count towards one half.

    Args:
        gains: Effects, each with an interval of level 1 - `alpha`.
        alpha: 1 - level.
    """
    below = [p_below(gain, alpha) for gain in gains]
    shown = sum(p < alpha / 2 for p in holm(below))
    above = sum(p < alpha / 2 for p in holm([1 - p for p in below]))
    found = sum(gain.value < 0 for gain in gains)
    unknown = sum(map(isnan, below))
    return CountBelow(found, shown, len(gains) - above, len(gains), unknown)


def p_below(gain: Gain, alpha: float) -> float:
    """Return the one-sided p of "not below zero", by the t distribution of the interval; nan without an interval.

    Far from zero the tails of that distribution depend on degrees of freedom that may be those of another statistic,
    and the interval of a sign test differs from that of a t test. So the p of the test itself, where it is known, is a
    bound.

    Args:
        gain: Effect with an interval of level 1 - `alpha`.
        alpha: 1 - level.
    """
    by_interval = _by_interval(gain, alpha)
    if isnan(gain.p) or isnan(by_interval):
        return by_interval
    return min(max(by_interval, gain.p / 2), 1 - gain.p / 2)


def _by_interval(gain: Gain, alpha: float) -> float:
    end = gain.high if gain.value < 0 else gain.low
    if isnan(gain.value) or isnan(end) or isnan(gain.degrees):
        return float("nan")
    error = abs(end - gain.value) / float(stdtrit(gain.degrees, 1 - alpha / 2))
    if error == 0:
        return 0.5 if gain.value == 0 else float(gain.value > 0)
    return float(stdtr(gain.degrees, np.clip(gain.value / error, -1e6, 1e6)))
