"""The jackknife against textbook formulas and sums done by hand."""

from __future__ import annotations

from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest
from tallies import LEAN, MEAN, SHARE, design_of, estimate, tally_of

from evenhand.interfaces import Tally
from evenhand.statistics import Design
from evenhand.statistics.design import pooled

# stratum a: 1 of 2, 3 of 3, 0 of 1; stratum b: 1 of 4, 2 of 2, 1 of 2
TWO_STRATA = [("a", [1, 0]), ("a", [1, 1, 1]), ("a", [0]), ("b", [1, 0, 0, 0]), ("b", [1, 1]), ("b", [1, 0])]
TALLY = tally_of([(s, [[float(v) for v in values]]) for s, values in TWO_STRATA])


def test_the_variance_of_equal_clusters_is_that_of_a_mean_of_cluster_means() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(30, 4))
    found = estimate(tally_of([("one", [list(row)]) for row in values]), MEAN)
    assert found.variance[0] == pytest.approx(values.mean(axis=1).var(ddof=1) / 30, rel=1e-12)
    assert (found.degrees[0], found.effective[0]) == (29, 30)


def test_strata_of_equal_clusters_add_up_as_in_the_textbook() -> None:
    rng = np.random.default_rng(1)
    sizes = {"a": 12, "b": 5, "c": 3}
    values = {s: rng.normal(10 * i, 1 + i, size=n) for i, (s, n) in enumerate(sizes.items())}
    found = estimate(tally_of([(s, [[float(v)] * 3]) for s in sizes for v in values[s]]), MEAN)
    total = sum(sizes.values())
    expected = sum((n / total) ** 2 * values[s].var(ddof=1) / n for s, n in sizes.items())
    assert found.variance[0] == pytest.approx(expected, rel=1e-12)
    assert found.degrees[0] == 20 - 3


def test_a_ratio_in_two_strata_by_hand() -> None:
    clusters = [(s, Fraction(len(v)), Fraction(sum(v))) for s, v in TWO_STRATA]
    deleted: dict[str, list[Fraction]] = {"a": [], "b": []}
    for k, (stratum, _, _) in enumerate(clusters):
        # the two others of the stratum count one and a half times each
        weights = [0 if i == k else Fraction(3, 2) if s == stratum else 1 for i, (s, _, _) in enumerate(clusters)]
        n = sum(w * c[1] for w, c in zip(weights, clusters, strict=True))
        deleted[stratum].append(sum(w * c[2] for w, c in zip(weights, clusters, strict=True)) / n)
    means = {s: sum(v) / 3 for s, v in deleted.items()}
    expected = sum(Fraction(2, 3) * (x - means[s]) ** 2 for s, v in deleted.items() for x in v)
    found = estimate(TALLY, MEAN)
    assert found.variance[0] == pytest.approx(float(expected), rel=1e-12)
    assert float(expected) == pytest.approx(0.0355434, abs=1e-7)
    assert found.value[0] == pytest.approx(8 / 14)


def test_effective_clusters_and_degrees_of_unequal_sizes_by_hand() -> None:
    found = estimate(TALLY, MEAN)
    effective = 14**2 / (4 + 9 + 1 + 16 + 4 + 4)
    assert found.effective[0] == pytest.approx(effective)
    assert found.degrees[0] == pytest.approx(max(1, effective * (6 - 2) / 6))


def test_doubling_every_cluster_changes_nothing_but_n() -> None:
    doubled = Tally(TALLY.clusters, TALLY.strata, TALLY.groups, 2 * TALLY.sums)
    for info in (MEAN, LEAN):
        one, two = estimate(TALLY, info), estimate(doubled, info)
        assert two.n[0] == 2 * one.n[0]
        assert np.allclose(one.interval(0.05), two.interval(0.05), rtol=1e-12)
    one, two = estimate(TALLY, SHARE), estimate(doubled, SHARE)
    assert np.allclose(one.interval(0.05), two.interval(0.05), rtol=0.02), "the design effect has a floor of 1"


def test_neither_order_nor_names_of_strata_matter() -> None:
    expected = estimate(TALLY, LEAN).interval(0.05)
    for order in list(permutations(range(6)))[::37]:
        moved = Tally(
            tuple(TALLY.clusters[i] for i in order),
            tuple({"a": "y", "b": "x"}[TALLY.strata[i]] for i in order),
            TALLY.groups,
            TALLY.sums[list(order)],
        )
        assert np.allclose(estimate(moved, LEAN).interval(0.05), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("strata", "expected"),
    [
        ("aaabbb", [[0, 1, 2], [3, 4, 5]]),
        ("aaabcd", [[0, 1, 2], [3, 4, 5]]),  # three alone are one stratum
        ("aaaabbc", [[0, 1, 2, 3], [4, 5, 6]]),
        ("aaaabbbc", [[0, 1, 2, 3, 7], [4, 5, 6]]),  # one alone joins the largest
        ("bbbcaaa", [[0, 1, 2, 3], [4, 5, 6]]),  # of two as large, the one whose cluster comes first
        ("abcdef", [[0, 1, 2, 3, 4, 5]]),
        ("ab", [[0, 1]]),
        ("a", [[0]]),
        ("", []),
    ],
)
def test_strata_of_fewer_than_three_clusters_are_pooled(strata: str, expected: list[list[int]]) -> None:
    codes = np.array([ord(s) for s in strata], dtype=np.intp)
    found = pooled(codes, np.arange(len(codes)))
    assert sorted([list(np.flatnonzero(found == n)) for n in set(found)]) == sorted(expected)


def test_a_group_has_strata_of_its_own() -> None:
    # in "some" stratum a has one cluster left, and joins b
    tally = tally_of(
        [("a", [[1.0], [1.0]]), *[("a", [[v], []]) for v in (0.0, 1.0)], *[("b", [[v], [v]]) for v in (0.0, 1.0, 1.0)]],
        ("overall", "some"),
    )
    found = estimate(tally, MEAN)
    assert list(found.degrees) == [4, 3]
    alone = tally_of([("x", [[1.0]]), *[("x", [[v]]) for v in (0.0, 1.0, 1.0)]])
    assert found.variance[1] == pytest.approx(estimate(alone, MEAN).variance[0])


def test_a_single_cluster_has_no_variance() -> None:
    found = estimate(tally_of([("a", [[1.0, 0.0]])]), MEAN)
    assert np.isnan(found.variance[0]) and np.isnan(found.interval(0.05)).all()
    assert found.note(0) == "no interval: it takes at least 2 clusters"


def test_a_metric_that_is_undefined_without_a_cluster_has_no_interval_and_says_why() -> None:
    tally = tally_of([("a", [[1.0]]), ("a", [[0.0]]), ("a", [[]])])
    tally.sums[2, 0] = 0, 1  # takes part, without n
    design = design_of(tally)
    found = estimate(tally, MEAN, design)
    assert found.clusters[0] == 2 and not np.isnan(found.interval(0.05)).any()
    lonely = tally_of([("a", [[1.0]]), ("a", [[]])])
    lonely.sums[1, 0] = 0, 1
    assert np.isnan(estimate(lonely, MEAN).interval(0.05)).all()


def test_totals_without_each_cluster_by_hand() -> None:
    design = Design.of(("x", "y", "z"), ("s", "s", "s"), np.array([[True], [True], [True]]))
    x = np.array([[1.0], [2.0], [6.0]])
    # 3/2 of the two that are left
    assert design.without_each(x)[:, 0] == pytest.approx([12.0, 10.5, 4.5])
    assert design.total(x)[:, 0] == pytest.approx([9.0])
