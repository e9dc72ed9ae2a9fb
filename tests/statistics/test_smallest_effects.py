"""The smallest effects that a benchmark can show, against values worked out by hand and by simulation."""

from __future__ import annotations

from math import isnan, sqrt

import numpy as np
import pytest
from scipy import stats

from evenhand.statistics.smallest_effects import independent_items, smallest_change_of_share, smallest_difference


def test_independent_items_by_kish():
    assert independent_items([4] * 25, 0.0) == 100
    assert independent_items([4] * 25, 1.0) == 25
    assert independent_items([4] * 25, 0.5) == pytest.approx(100 / 2.5)
    assert independent_items([1, 3], 1.0) == pytest.approx(16 / 10)  # n^2 / sum of squares
    assert independent_items([]) == 0


def test_smallest_difference_of_a_mean_by_bloom():
    # 100 clusters of one item: t(.975, 99) = 1.98422, t(.8, 99) = 0.84523; their sum over 10
    assert smallest_difference([1] * 100, 0.05, 1) == pytest.approx((1.98422 + 0.84523) / 10, abs=1e-5)
    # of ten tests, the first step of Holm has a tenth of the level
    assert smallest_difference([1] * 100, 0.05, 10) == pytest.approx(smallest_difference([1] * 100, 0.005, 1))
    # items of one cluster count once, and decide the degrees of freedom in any case
    assert smallest_difference([4] * 100, 0.05, 1) == pytest.approx(smallest_difference([1] * 100, 0.05, 1))
    assert smallest_difference([4] * 100, 0.05, 1, 0.0) == pytest.approx(smallest_difference([1] * 100, 0.05, 1) / 2)


def test_smallest_change_of_a_share_by_connor():
    k = stats.t.ppf(0.975, 99) + stats.t.ppf(0.8, 99)
    found = smallest_change_of_share([1] * 100, 0.05, 1, changed=0.2)
    assert found == pytest.approx(0.1217, abs=1e-4)
    assert found == pytest.approx(k * sqrt((0.2 - found**2) / 100))  # the equation that it solves


def test_a_change_is_no_larger_than_the_share_that_changes():
    k2 = (stats.t.ppf(0.975, 9) + stats.t.ppf(0.8, 9)) ** 2
    assert smallest_change_of_share([1] * 10, 0.05, 1, changed=0.1) == pytest.approx(k2 / (10 + k2))


@pytest.mark.parametrize("sizes", [[], [1], [7], [1000, 1]])
def test_none_without_degrees_of_freedom(sizes: list[int]):
    assert isnan(smallest_difference(sizes, 0.05, 1))
    assert isnan(smallest_change_of_share(sizes, 0.05, 1))


def test_power_by_simulation():
    """A paired t test finds the smallest change in four runs of five; 4,000 runs have a standard error of 0.006."""
    n, changed = 200, 0.2
    effect = smallest_change_of_share([1] * n, 0.05, 1, changed=changed)
    up, down = (changed + effect) / 2, (changed - effect) / 2
    draws = np.random.default_rng(0).choice([1, -1, 0], size=(4_000, n), p=[up, down, 1 - changed])
    p = stats.ttest_1samp(draws, 0, axis=1).pvalue
    assert np.mean(p < 0.05) == pytest.approx(0.80, abs=0.02)
