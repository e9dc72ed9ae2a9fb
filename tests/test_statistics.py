"""Resampling and tests against closed forms, full enumeration and sums done by hand."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from evenhand import statistics
from evenhand.interfaces import Array, Measured, Tally
from evenhand.statistics import bootstrap, cluster_weights, gain, holm, interval, p_value

NAN = float("nan")


def tally_of(clusters: list[tuple[str, list[list[float]]]], groups: tuple[str, ...] = ("overall",)) -> Tally:
    """Clusters as (stratum, per group the values of its items); statistics are count and sum."""
    sums = np.zeros((len(clusters), len(groups), 2))
    for c, (_, values) in enumerate(clusters):
        for g, items in enumerate(values):
            sums[c, g] = len(items), sum(items)
    names = tuple(f"cluster {c}" for c in range(len(clusters)))
    return Tally(names, tuple(stratum for stratum, _ in clusters), groups, sums)


def mean(sums: Array) -> dict[str, Measured]:
    n = sums[..., 0]
    return {"mean": Measured(np.divide(sums[..., 1], n, out=np.full(n.shape, np.nan), where=n > 0), n)}


UNEQUAL = tally_of(
    [
        ("a", [[1, 0, 0], [1]]),
        ("a", [[1], []]),
        ("b", [[0, 0], [0, 1]]),
        ("a", [[1, 1, 1, 1, 0], [0, 0, 0]]),
        ("b", [[1], [1]]),
        ("c", [[0], []]),
    ],
    ("overall", "some"),
)


# ----------------------------------------------------------------------------------------------------- resampling


def test_every_stratum_keeps_its_number_of_clusters() -> None:
    weights = cluster_weights(UNEQUAL, 500, seed=1)
    strata = np.array(UNEQUAL.strata)
    assert weights.shape == (500, 6)
    for stratum, size in (("a", 3), ("b", 2), ("c", 1)):
        assert set(weights[:, strata == stratum].sum(axis=1)) == {size}
    assert set(weights[:, strata == "a"].ravel()) == {0, 1, 2, 3}
    assert set(weights[:, strata == "c"].ravel()) == {1}


def test_every_cluster_of_a_stratum_is_drawn_equally_often() -> None:
    weights = cluster_weights(UNEQUAL, 20_000, seed=2)
    # a cluster's weight is binomial(n, 1/n): variance 1 - 1/n, at most 1 here
    assert weights.mean(axis=0) == pytest.approx(np.ones(6), abs=4 / np.sqrt(20_000))
    assert weights.var(axis=0) == pytest.approx([2 / 3, 2 / 3, 1 / 2, 2 / 3, 1 / 2, 0], abs=0.05)


def test_tallies_with_the_same_strata_get_the_same_weights_and_so_a_paired_difference() -> None:
    other = Tally(UNEQUAL.clusters, UNEQUAL.strata, ("overall",), np.ones((6, 1, 5)))
    assert (cluster_weights(UNEQUAL, 50, seed=3) == cluster_weights(other, 50, seed=3)).all()
    shifted = Tally(UNEQUAL.clusters, UNEQUAL.strata, UNEQUAL.groups, UNEQUAL.sums.copy())
    shifted.sums[..., 1] += 0.25 * shifted.sums[..., 0]  # every item a quarter more
    both = [bootstrap(t, mean, replicates=300, seed=3)["mean"] for t in (UNEQUAL, shifted)]
    assert np.nanstd(both[0], axis=0).min() > 0.1
    assert both[1] - both[0] == pytest.approx(np.where(np.isnan(both[0]), np.nan, 0.25), nan_ok=True)


def test_another_seed_draws_other_weights() -> None:
    assert (cluster_weights(UNEQUAL, 50, seed=3) != cluster_weights(UNEQUAL, 50, seed=4)).any()


def test_the_variance_of_a_mean_of_equal_clusters_is_the_closed_form() -> None:
    rng = np.random.default_rng(0)
    clusters = [[float(v) for v in rng.normal(loc, 1, size=4)] for loc in rng.normal(0, 2, size=30)]
    tally = tally_of([("one", [values]) for values in clusters])
    draws = bootstrap(tally, mean, replicates=20_000, seed=5)["mean"][:, 0]
    means = np.array([np.mean(c) for c in clusters])
    assert draws.mean() == pytest.approx(means.mean(), abs=4 * means.std() / np.sqrt(30 * 20_000))
    # the variance of a variance from B draws is about 2/B of its square
    assert draws.var() == pytest.approx(means.var() / 30, rel=4 * np.sqrt(2 / 20_000))


def test_strata_take_the_variance_between_them_out() -> None:
    rng = np.random.default_rng(1)
    sizes = {"low": 12, "middle": 5, "high": 1}
    values = {s: rng.normal(10 * i, 1 + i, size=n) for i, (s, n) in enumerate(sizes.items())}
    tally = tally_of([(s, [[float(v)] * 3]) for s in sizes for v in values[s]])
    draws = bootstrap(tally, mean, replicates=20_000, seed=6)["mean"][:, 0]
    total = sum(sizes.values())
    expected = sum((n / total) ** 2 * values[s].var() / n for s, n in sizes.items())
    assert draws.var() == pytest.approx(expected, rel=4 * np.sqrt(2 / 20_000))
    pooled = np.concatenate(list(values.values())).var() / total
    assert expected < pooled / 4  # so that a bootstrap without strata would not pass


def test_a_ratio_over_unequal_clusters_is_distributed_as_in_the_full_enumeration() -> None:
    clusters: list[list[float]] = [[1, 1, 1, 1], [0], [0, 1, 0]]
    draws = bootstrap(tally_of([("one", [c]) for c in clusters]), mean, replicates=27_000, seed=7)["mean"][:, 0]
    exact: dict[float, float] = {}
    for drawn in product(clusters, repeat=3):
        value = sum(map(sum, drawn)) / sum(map(len, drawn))
        exact[round(value, 9)] = exact.get(round(value, 9), 0) + 1 / 27
    values, counts = np.unique(draws.round(9), return_counts=True)
    assert list(values) == pytest.approx(sorted(exact))
    assert counts / 27_000 == pytest.approx([exact[v] for v in sorted(exact)], abs=4 * 0.5 / np.sqrt(27_000))


def test_groups_are_resampled_with_their_clusters() -> None:
    draws = bootstrap(UNEQUAL, mean, replicates=400, seed=8)["mean"]
    weights = cluster_weights(UNEQUAL, 400, seed=8)
    count, total = (weights @ UNEQUAL.sums[:, 1, s] for s in (0, 1))
    with np.errstate(invalid="ignore"):
        assert draws[:, 1] == pytest.approx(np.where(count > 0, total / count, np.nan), nan_ok=True)


@pytest.mark.parametrize("held", [1, 7, 99, 100])
def test_blocks_of_replicates_give_what_one_block_gives(held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = bootstrap(UNEQUAL, mean, replicates=100, seed=9)["mean"]
    sizes = []

    def watched(sums: Array) -> dict[str, Measured]:
        sizes.append(len(sums))
        return mean(sums)

    monkeypatch.setattr(statistics, "BLOCK_BYTES", held * 8 * UNEQUAL.sums[0].size)
    parts = bootstrap(UNEQUAL, watched, replicates=100, seed=9)["mean"]
    assert np.array_equal(whole, parts, equal_nan=True)
    assert max(sizes) == held
    assert sum(sizes) == 100


def test_a_sum_too_large_for_the_memory_limit_is_still_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = bootstrap(UNEQUAL, mean, replicates=5, seed=9)["mean"]
    monkeypatch.setattr(statistics, "BLOCK_BYTES", 1)
    assert np.array_equal(bootstrap(UNEQUAL, mean, replicates=5, seed=9)["mean"], whole, equal_nan=True)


def test_intervals_cover_and_tests_err_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(10)
    covered, rejected, trials = 0, 0, 400
    for seed in range(trials):
        bases = rng.normal(0, 1, size=60)
        tally = tally_of([("ab"[c % 2], [list(rng.normal(b, 1, size=1 + c % 4))]) for c, b in enumerate(bases)])
        draws = bootstrap(tally, mean, replicates=400, seed=seed)["mean"]
        low, high = interval(draws)
        covered += bool(low[0] <= 0 <= high[0])
        rejected += bool(p_value(draws)[0] < 0.05)
    assert 0.90 <= covered / trials <= 0.98
    assert 0.02 <= rejected / trials <= 0.10


# ------------------------------------------------------------------------------------------------------ intervals


def test_intervals_are_percentiles() -> None:
    column = np.arange(1001.0)
    draws = np.stack([column[::-1], column * -2], axis=1)
    low, high = interval(draws)
    assert list(low) == pytest.approx([25, -1950])
    assert list(high) == pytest.approx([975, -50])
    low, high = interval(draws, level=0.5)
    assert [*low, *high] == pytest.approx([250, -1500, 750, -500])


def test_replicates_without_a_value_are_left_out_of_their_own_group_only() -> None:
    draws = np.tile(np.arange(201.0)[:, None], (1, 3))
    draws[100:, 1] = np.nan
    draws[:, 2] = np.nan
    low, high = interval(draws)
    assert list(low) == pytest.approx([5, 2.475, NAN], nan_ok=True)
    assert list(high) == pytest.approx([195, 96.525, NAN], nan_ok=True)


def test_replicates_that_agree_have_an_interval_of_that_value() -> None:
    low, high = interval(np.full((10, 1), 0.5))
    assert (low[0], high[0]) == (0.5, 0.5)


# ----------------------------------------------------------------------------------------------------------- gain


@pytest.mark.parametrize(
    ("direction", "gains"),
    [
        ("lower", [0.3, -0.5, 0.0, 1.0]),
        ("higher", [-0.3, 0.5, 0.0, -1.0]),
        ("none", [-0.3, 0.5, 0.0, -1.0]),
        ("zero", [0.1, -0.3, 0.0, 0.0]),
    ],
)
def test_gain_is_positive_where_the_metric_is_better(direction: str, gains: list[float]) -> None:
    before, after = np.array([0.2, -0.1, -0.7, 0.5]), np.array([-0.1, 0.4, -0.7, -0.5])
    assert gain(direction, before, after) == pytest.approx(gains)


def test_gain_of_a_value_that_is_missing_is_missing() -> None:
    got = [gain(d, np.array([NAN, 1.0]), np.array([1.0, NAN])) for d in ("lower", "higher", "zero", "none")]
    assert np.isnan(got).all()


# -------------------------------------------------------------------------------------------------------- p-values


def test_p_by_hand() -> None:
    assert p_value(np.array([-1.0, 1, 2, 3])) == pytest.approx(2 * (1 + 1) / 5)
    assert p_value(np.array([-3.0, -2, -1, -0.5, 4, -9, -9])) == pytest.approx(2 * (1 + 1) / 8)


def test_p_is_never_zero_however_clear_the_difference() -> None:
    clear = np.stack([np.full(1999, 0.1), np.full(1999, -5.0)], axis=1)
    assert list(p_value(clear)) == pytest.approx([2 / 2000, 2 / 2000])


def test_p_of_no_difference_is_one() -> None:
    assert p_value(np.zeros(100)) == 1
    assert p_value(np.array([-1.0, 1, -2, 2])) == 1


def test_replicates_without_a_value_do_not_make_a_difference_significant() -> None:
    draws = np.full((1000, 3), np.nan)
    draws[:4, 0] = -1, 1, 2, 3
    draws[:, 1] = np.tile([-1.0, 1.0], 500)
    got = p_value(draws)
    assert got[0] == pytest.approx(0.8)
    assert got[1] == 1
    assert np.isnan(got[2])


# ------------------------------------------------------------------------------------------------------------ Holm


def test_holm_by_hand_with_unequal_p_and_a_missing_one() -> None:
    # in order 0.005*4, 0.01*3, 0.03*2, then 0.04*1, which may not fall below the one before it
    assert holm([0.01, NAN, 0.04, 0.03, 0.005]) == pytest.approx([0.03, NAN, 0.06, 0.06, 0.02], nan_ok=True)


def test_holm_leaves_a_single_test_alone_and_never_exceeds_one() -> None:
    assert holm([0.04]) == [0.04]
    assert holm([NAN, 0.04]) == pytest.approx([NAN, 0.04], nan_ok=True)
    assert holm([0.6, 1.0, 0.2]) == pytest.approx([1.0, 1.0, 0.6])
    assert holm([0.02, 0.02]) == pytest.approx([0.04, 0.04])


def test_holm_of_nothing_is_nothing() -> None:
    assert holm([]) == []
    assert np.isnan(holm([NAN, NAN])).all()
