"""How many effects are below zero: by hand, and by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from evenhand.statistics.counts import CountBelow, Gain, count_below, p_below

NAN = float("nan")
NORMAL = 1e9
"""Degrees of freedom at which t is the normal distribution."""


def gain(value: float, error: float = 1.0, degrees: float = NORMAL, alpha: float = 0.05) -> Gain:
    half = norm.ppf(1 - alpha / 2) * error
    return Gain(value, value - half, value + half, degrees)


def test_each_end_is_what_one_sided_tests_with_holm_show() -> None:
    # one-sided p of being below: .0013, .0228, .5, .9987; Holm multiplies the smallest by 4 (.0054 < .025) and the
    # next by 3 (.068); above: 1 - p is .0013 for the last alone, times 4 again
    effects = [gain(-3), gain(-2), gain(0), gain(3)]
    assert count_below(effects, 0.05) == CountBelow(found=2, low=1, high=3, of=4, unknown=0)


def test_two_effects_that_are_clear_are_both_shown() -> None:
    assert count_below([gain(-5), gain(-5), gain(5)], 0.05) == CountBelow(2, 2, 2, 3, 0)


def test_without_an_interval_an_effect_may_be_either() -> None:
    effects = [gain(-5), Gain(-0.1, NAN, NAN, 10), Gain(NAN, NAN, NAN, NAN)]
    assert count_below(effects, 0.05) == CountBelow(found=2, low=1, high=3, of=3, unknown=2)


def test_nothing_is_counted_of_nothing() -> None:
    assert count_below([], 0.05) == CountBelow(0, 0, 0, 0, 0)


def test_an_effect_without_any_error_is_what_it_is() -> None:
    assert count_below([Gain(-0.2, -0.2, -0.2, 5), Gain(0, 0, 0, 5), Gain(0.2, 0.2, 0.2, 5)], 0.05) == CountBelow(
        1, 1, 2, 3, 0
    )


def test_the_end_of_the_interval_that_is_nearer_to_zero_decides() -> None:
    # widened upwards to .1, it is not shown to be below; widened downwards only, it is
    assert count_below([Gain(-1, -1.1, 0.1, NORMAL)], 0.05).low == 0
    assert count_below([Gain(-1, -9, -0.5, NORMAL)], 0.05).low == 1


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_the_interval_holds_as_often_as_it_says(correlation: float) -> None:
    rng = np.random.default_rng(0)
    truth = np.array([-2.5, -1.0, -0.2, 0.0, 0.3, 1.0, 2.5])
    held = 0
    for _ in range(400):
        noise = np.sqrt(correlation) * rng.normal() + np.sqrt(1 - correlation) * rng.normal(size=len(truth))
        found = count_below([gain(value) for value in truth + noise], 0.05)
        held += found.low <= 3 <= found.high
    assert held / 400 >= 0.95


def test_a_test_of_its_own_keeps_an_effect_from_being_shown() -> None:
    # 3 standard errors below 0, but a sign test on few changed items has p = .1; likewise above
    assert count_below([gain(-3)._replace(p=0.1)], 0.05).low == 0
    assert count_below([gain(-3)._replace(p=0.01)], 0.05).low == 1
    assert count_below([gain(3)._replace(p=0.1)], 0.05).high == 1
    assert count_below([gain(3)._replace(p=0.01)], 0.05).high == 0


def test_a_test_of_its_own_never_moves_an_effect_to_the_other_side() -> None:
    # a difference may be clear where the gain is not: p alone shows nothing
    assert p_below(gain(-0.1)._replace(p=1e-9), 0.05) == pytest.approx(norm.cdf(-0.1))
    assert np.isnan(p_below(Gain(-0.1, NAN, NAN, 10, 0.001), 0.05))
