"""Statistics from sums, against scipy and numpy, and where they are not defined."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from evenhand.statistics.moments import cohen_dz, paired_t, pearson, ratio, slope, t_test_p, variance

GROUPS = (3, 17, 200)


def sums(x: NDArray[np.float64], y: NDArray[np.float64]) -> list[float]:
    return [len(x), x.sum(), y.sum(), (x * x).sum(), (y * y).sum(), (x * y).sum()]


def test_correlation_and_slope_against_scipy_in_groups_of_unequal_size() -> None:
    rng = np.random.default_rng(0)
    data = [(rng.normal(5, 2, n), rng.normal(-1, 1, n)) for n in GROUPS]
    n, x, y, xx, yy, xy = np.array([sums(a, a + b) for a, b in data]).T
    want = [stats.linregress(a, a + b) for a, b in data]
    assert pearson(n, x, y, xx, yy, xy) == pytest.approx([w.rvalue for w in want])
    assert slope(n, x, y, xx, xy) == pytest.approx([w.slope for w in want])
    assert variance(n, x, xx) == pytest.approx([a.var() for a, _ in data])


def test_paired_t_against_scipy_in_groups_of_unequal_size() -> None:
    rng = np.random.default_rng(1)
    data = [rng.normal(0.2, 1, n) for n in GROUPS]
    n, d, dd = np.array([[len(x), x.sum(), (x * x).sum()] for x in data]).T
    want = [stats.ttest_1samp(x, 0) for x in data]
    assert paired_t(n, d, dd) == pytest.approx([w.statistic for w in want])
    assert t_test_p(paired_t(n, d, dd), n) == pytest.approx([w.pvalue for w in want])
    assert cohen_dz(n, d, dd) == pytest.approx([x.mean() / x.std(ddof=1) for x in data])


def test_the_extremes() -> None:
    line = np.arange(4.0)
    assert pearson(*(np.array(v) for v in sums(line, 3 - 2 * line))) == -1.0
    constant = np.full(7, 0.1)
    assert np.isnan(pearson(*(np.array(v) for v in sums(constant, np.arange(7.0)))))
    assert variance(np.array(7), constant.sum(), (constant**2).sum()) == 0.0
    for n, d, dd in ((0, 0, 0), (1, 2, 4), (5, 10, 20)):  # nothing, one pair, five equal differences
        assert np.isnan(paired_t(np.array(n), np.array(d), np.array(dd)))
        assert np.isnan(cohen_dz(np.array(n), np.array(d), np.array(dd)))
    assert np.isnan(t_test_p(np.array(np.nan), np.array(0)))
    assert np.isnan(ratio(np.array([0.0, 1.0]), np.array([0.0, 2.0]))).tolist() == [True, False]
