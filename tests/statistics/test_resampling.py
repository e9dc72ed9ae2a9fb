"""The bootstrap against closed forms, full enumeration and sums done by hand; Holm's adjustment."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.stats import t as student
from tallies import SPREAD, estimate, metrics, tally_of

from evenhand.interfaces import Array, Measured, Tally
from evenhand.statistics import gain, holm, resampling
from evenhand.statistics.resampling import bootstrap, cluster_weights, p_value, percentiles

NAN = float("nan")


def mean(sums: Array) -> dict[str, Measured]:
    return {"mean": metrics(sums)["mean"]}


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


def test_one_cluster_fewer_is_drawn_and_weighted_up_in_every_pooled_stratum() -> None:
    weights = cluster_weights(UNEQUAL, 500, seed=1)
    strata = np.array(UNEQUAL.strata)
    assert weights.shape == (500, 6)
    # strata b (2 clusters) and c (1) are pooled
    for members in (strata == "a", strata != "a"):
        assert weights[:, members].sum(axis=1) == pytest.approx(np.full(500, 3.0))
        assert set(weights[:, members].ravel()) == {0, 1.5, 3}


def test_every_cluster_of_a_stratum_counts_alike() -> None:
    weights = cluster_weights(UNEQUAL, 20_000, seed=2)
    # two draws of three, 3/2 each: mean 1, variance 2 * 1/3 * 2/3 * 9/4 = 1
    assert weights.mean(axis=0) == pytest.approx(np.ones(6), abs=4 / np.sqrt(20_000))
    assert weights.var(axis=0) == pytest.approx(np.ones(6), abs=0.06)


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
    assert draws.var() == pytest.approx(means.var(ddof=1) / 30, rel=4 * np.sqrt(2 / 20_000))


def test_strata_take_the_variance_between_them_out() -> None:
    rng = np.random.default_rng(1)
    sizes = {"low": 12, "middle": 5, "high": 3}
    values = {s: rng.normal(10 * i, 1 + i, size=n) for i, (s, n) in enumerate(sizes.items())}
    tally = tally_of([(s, [[float(v)] * 3]) for s in sizes for v in values[s]])
    draws = bootstrap(tally, mean, replicates=20_000, seed=6)["mean"][:, 0]
    total = sum(sizes.values())
    expected = sum((n / total) ** 2 * values[s].var(ddof=1) / n for s, n in sizes.items())
    assert draws.var() == pytest.approx(expected, rel=4 * np.sqrt(2 / 20_000))
    pooled = np.concatenate(list(values.values())).var() / total
    assert expected < pooled / 4  # so that a bootstrap without strata would not pass


def test_a_ratio_over_unequal_clusters_is_distributed_as_in_the_full_enumeration() -> None:
    clusters: list[list[float]] = [[1, 1, 1, 1], [0], [0, 1, 0]]
    draws = bootstrap(tally_of([("one", [c]) for c in clusters]), mean, replicates=27_000, seed=7)["mean"][:, 0]
    exact: dict[float, float] = {}
    for drawn in product(clusters, repeat=2):
        value = sum(map(sum, drawn)) / sum(map(len, drawn))
        exact[round(value, 9)] = exact.get(round(value, 9), 0) + 1 / 9
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

    monkeypatch.setattr(resampling, "BLOCK_BYTES", held * 8 * UNEQUAL.sums[0].size)
    parts = bootstrap(UNEQUAL, watched, replicates=100, seed=9)["mean"]
    assert np.array_equal(whole, parts, equal_nan=True)
    assert max(sizes) == held
    assert sum(sizes) == 100


def test_a_sum_too_large_for_the_memory_limit_is_still_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = bootstrap(UNEQUAL, mean, replicates=200, seed=9)["mean"]
    monkeypatch.setattr(resampling, "BLOCK_BYTES", 1)
    assert np.array_equal(bootstrap(UNEQUAL, mean, replicates=200, seed=9)["mean"], whole, equal_nan=True)


def test_intervals_cover_and_tests_err_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(10)
    covered, rejected, trials = 0, 0, 400
    for seed in range(trials):
        bases = rng.normal(0, 1, size=60)
        tally = tally_of([("ab"[c % 2], [list(rng.normal(b, 1, size=1 + c % 4))]) for c, b in enumerate(bases)])
        draws = bootstrap(tally, mean, replicates=400, seed=seed)["mean"]
        low, high = percentiles(draws, np.array([58.0]), 0.05)
        covered += bool(low[0] <= 0 <= high[0])
        rejected += bool(p_value(draws, np.array([58.0]))[0] < 0.05)
    assert 0.90 <= covered / trials <= 0.98
    assert 0.02 <= rejected / trials <= 0.10


# ------------------------------------------------------------------------------------------------------ intervals


MANY = np.full(3, 1e9)
"""Degrees of freedom of a normal distribution."""


def test_intervals_are_percentiles_where_there_are_many_clusters() -> None:
    column = np.arange(1001.0)
    draws = np.stack([column[::-1], column * -2], axis=1)
    low, high = percentiles(draws, MANY[:2], 0.05)
    assert list(low) == pytest.approx([25, -1950])
    assert list(high) == pytest.approx([975, -50])
    low, high = percentiles(draws, MANY[:2], 0.5)
    assert [*low, *high] == pytest.approx([250, -1500, 750, -500])


def test_with_few_clusters_the_interval_is_as_wide_as_students() -> None:
    draws = np.random.default_rng(0).normal(size=(400_000, 1))
    for degrees in (3.0, 7.0, 29.0):
        half = student.ppf(0.975, degrees)
        low, high = percentiles(draws, np.array([degrees]), 0.05)
        assert (low[0], high[0]) == pytest.approx((-half, half), rel=0.03)


def test_replicates_without_a_value_are_left_out_of_their_own_group_only() -> None:
    draws = np.tile(np.arange(201.0)[:, None], (1, 3))
    draws[191:, 1] = np.nan
    draws[:, 2] = np.nan
    low, high = percentiles(draws, MANY, 0.05)
    assert list(low) == pytest.approx([5, 4.75, NAN], nan_ok=True)
    assert list(high) == pytest.approx([195, 185.25, NAN], nan_ok=True)


def test_where_many_replicates_have_no_value_there_is_no_interval() -> None:
    draws = np.tile(np.arange(200.0)[:, None], (1, 2))
    draws[:11, 0] = np.nan
    draws[:9, 1] = np.nan
    low, _ = percentiles(draws, MANY[:2], 0.05)
    assert np.isnan(low[0]) and not np.isnan(low[1])


def test_a_resampled_metric_of_equal_clusters_has_no_interval_of_width_zero() -> None:
    found = estimate(tally_of([("one", [[1.0, 0.0]])] * 12), SPREAD)
    low, high = found.interval(0.05)
    assert low[0] == 0 and high[0] == pytest.approx(0.5 * (1 - 0.025 ** (1 / 12)))


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
    draws = np.array([[-1.0], [1], [2], [3]] * 5)
    assert p_value(draws, MANY[:1]) == pytest.approx(2 * (5 + 1) / 21)


def test_p_is_never_zero_however_clear_the_difference() -> None:
    clear = np.stack([np.full(1999, 0.1), np.full(1999, -5.0)], axis=1)
    assert list(p_value(clear, MANY[:2])) == pytest.approx([2 / 2000, 2 / 2000])
    few = p_value(clear, np.array([3.0, 3.0]))
    assert (few > 0.04).all(), "with 4 clusters nothing is clear"


def test_p_of_no_difference_is_one() -> None:
    assert p_value(np.zeros((100, 1)), MANY[:1]) == 1
    assert p_value(np.array([[-1.0], [1], [-2], [2]]), MANY[:1]) == 1


def test_p_and_interval_agree() -> None:
    rng = np.random.default_rng(5)
    draws = rng.normal(rng.normal(0, 1.5, size=60), 1, size=(999, 60))
    degrees = rng.uniform(3, 60, size=60)
    low, high = percentiles(draws, degrees, 0.05)
    p = p_value(draws, degrees)
    clear = np.abs(p - 0.05) > 0.005
    assert (((low > 0) | (high < 0)) == (p < 0.05))[clear].all()


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
