"""Exact bounds against published and hand-computed values."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, binomtest
from tallies import SHARE, estimate, tally_of

from evenhand.statistics.proportions import effective_size, lower, sign_test, unseen, upper


def test_bounds_are_clopper_and_pearsons() -> None:
    for n, k in ((10, 0), (10, 1), (10, 5), (10, 10), (36, 17), (200, 199)):
        expected = binomtest(k, n).proportion_ci(0.95, method="exact")
        p, size = np.array([k / n]), np.array([float(n)])
        assert (lower(p, size, 0.025)[0], upper(p, size, 0.025)[0]) == pytest.approx((expected.low, expected.high))


def test_the_effective_size_has_its_limits() -> None:
    clusters, n = np.full(5, 12.0), np.full(5, 288.0)
    p = np.array([0.5, 0.5, 0.5, 0.0, 1.0])
    variance = np.array([0.25 / 288, 0.25 / 30, 0.25 / 6, 0.0, 0.0])
    # as good as independent items: 5 a cluster at most; design effect 9.6; fewer than the clusters: not below them
    many = np.full(5, 1e9)
    assert list(effective_size(p, n, variance, clusters, many)) == pytest.approx([60, 30, 12, 12, 12])
    # Korn and Graubard's factor: t of 287 degrees over t of 11
    assert effective_size(p, n, variance, clusters, np.full(5, 11.0))[1] == pytest.approx(
        30 * (1.96826 / 2.20099) ** 2, rel=1e-4
    )
    few = effective_size(p[:1], n[:1], variance[:1], clusters[:1], many[:1], np.array([5.0]))
    assert few[0] == pytest.approx(12 * (1 + 4 * 5 / 10)), "with 5 clusters that show the event, 3 items a cluster"


@pytest.mark.parametrize("values", [[0.0, 0.0], [1.0, 1.0]])
def test_where_nothing_or_everything_is_seen_the_interval_has_a_width(values: list[float]) -> None:
    found = estimate(tally_of([("ab"[c % 2], [values]) for c in range(72)]), SHARE)
    low, high = (float(end[0]) for end in found.interval(0.05))
    bound = 1 - 0.025 ** (1 / 72)
    assert bound == pytest.approx(0.0499, abs=1e-4)
    assert (low, high) == pytest.approx((0.0, bound) if values[0] == 0 else (1 - bound, 1.0))


def test_an_interval_of_independent_items_is_the_binomials() -> None:
    tally = tally_of([("one", [[float(i < 5)]]) for i in range(10)])
    expected = binomtest(5, 10).proportion_ci(0.95, method="exact")
    assert np.ravel(estimate(tally, SHARE).interval(0.05)) == pytest.approx([expected.low, expected.high])


def test_unseen_clusters_are_the_rule_of_three() -> None:
    assert unseen(np.array([72.0, 149.0]), 0.05) == pytest.approx([0.0407, 0.0199], abs=1e-4)
    assert unseen(np.array([100.0]), 0.05) == pytest.approx(3 / 100, rel=0.02)


def test_the_sign_test_of_whole_counts_is_exact() -> None:
    for up, down in ((12, 0), (0, 12), (5, 3), (4, 4), (1, 0)):
        expected = min(1.0, 2 * binom.sf(max(up, down) - 1, up + down, 0.5))
        assert sign_test(np.array([float(up)]), np.array([float(down)]))[0] == pytest.approx(expected)
    assert sign_test(np.zeros(1), np.zeros(1))[0] == 1
