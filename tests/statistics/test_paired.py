"""Differences: pairing, few changes, no changes, losses, and the sign of a score."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import t as student
from tallies import LEAN, MEAN, SHARE, SPREAD, design_of, estimate, tally_of

from evenhand.interfaces import Metric, Tally
from evenhand.statistics import Flips, Paired, Sampled, paired, resampling
from evenhand.statistics.families import detectable


def compared(before: Tally, after: Tally, info: Metric, *, by_items: bool = False) -> Paired:
    design = design_of(before, after)
    flips = None
    if by_items:
        change = design.pick(after.sums - before.sums)[:, 1]
        flips = Flips(np.maximum(change, 0), np.maximum(-change, 0), design.pick(before.sums)[:, 0])
    return paired(design, estimate(before, info, design), estimate(after, info, design), flips)


def ends(pair: Paired, alpha: float = 0.05) -> tuple[float, float]:
    low, high = pair.interval(alpha)
    return float(low[0]), float(high[0])


def clusters(rights: list[int], of: int = 4) -> Tally:
    return tally_of([("one", [[1.0] * k + [0.0] * (of - k)]) for k in rights])


def test_a_difference_is_a_paired_t_test_of_cluster_means() -> None:
    before, after = clusters([0, 1, 2, 3, 4, 2, 1, 3]), clusters([1, 1, 3, 4, 4, 4, 3, 3])
    pair = compared(before, after, MEAN)
    d = (after.sums[:, 0, 1] - before.sums[:, 0, 1]) / 4
    error = d.std(ddof=1) / math.sqrt(8)
    assert pair.value[0] == pytest.approx(d.mean())
    assert pair.p[0] == pytest.approx(2 * student.sf(d.mean() / error, 7))
    half = student.ppf(0.975, 7) * error
    assert ends(pair) == pytest.approx((d.mean() - half, d.mean() + half))


@pytest.mark.parametrize("info", [MEAN, SHARE, LEAN, SPREAD])
def test_equal_answers_differ_by_zero_with_p_one(info: Metric) -> None:
    tally = clusters([0, 1, 2, 3, 4, 2, 1, 3] * 3)
    pair = compared(tally, tally, info)
    assert (pair.value[0], pair.p[0]) == (0, 1)
    if info is not MEAN:  # which has no bounds
        low, high = ends(pair)
        assert low < 0 < high, "nothing changed is no proof that nothing can"


def test_no_change_excludes_just_what_the_clusters_can_exclude() -> None:
    tally = clusters([4] * 72)
    pair = compared(tally, tally, SHARE, by_items=True)
    assert ends(pair) == pytest.approx((-0.0499, 0.0499), abs=1e-4)
    assert pair.loss_high(0.05)[0] == pytest.approx(1 - 0.05 ** (1 / 72))
    assert pair.clusters_needed(0.02, 0.05)[0] == 149
    assert np.isnan(pair.clusters_needed(0.05, 0.05)[0]), "a loss of .05 is ruled out already"
    enough = clusters([4] * 149)
    assert compared(enough, enough, SHARE, by_items=True).loss_high(0.05)[0] < 0.02
    few = clusters([4] * 148)
    assert compared(few, few, SHARE, by_items=True).loss_high(0.05)[0] > 0.02


def test_one_cluster_that_carries_all_change_leaves_zero_inside() -> None:
    before = clusters([4] * 30)
    after = clusters([0] + [4] * 29)
    for by_items in (True, False):
        pair = compared(before, after, SHARE, by_items=by_items)
        assert ends(pair)[0] < 0 < ends(pair)[1] or ends(pair)[1] == 0
        assert pair.p[0] > 0.3
        assert pair.loss_high(0.05)[0] > 1 / 30


def test_few_clusters_that_all_changed_alike_are_worth_a_sign_test() -> None:
    for changed in (4, 6, 12):
        before, after = clusters([4] * 72), clusters([0] * changed + [4] * (72 - changed))
        pair = compared(before, after, SHARE, by_items=True)
        t = 2 * student.sf(abs(pair.value[0]) / pair.error[0], 71)
        assert pair.p[0] == pytest.approx(max(2 * 0.5**changed, t), rel=0.02)


def test_an_interval_leaves_zero_out_just_where_p_is_small() -> None:
    rng = np.random.default_rng(3)
    checked = set()
    for _ in range(300):
        before = rng.integers(0, 5, size=16)
        flipped = np.where(rng.random(16) < 0.3, rng.integers(0, 5, size=16), before)
        pair = compared(clusters(list(before)), clusters(list(flipped)), SHARE)
        low, high = ends(pair)
        outside = low >= 0 and high > 0 if pair.value[0] > 0 else high <= 0 and low < 0
        assert outside == bool(pair.p[0] < 0.05) or pair.value[0] == 0
        checked.add(outside)
    assert checked == {True, False}


def test_the_gain_of_a_score_best_at_zero_keeps_the_signs_it_was_found_with() -> None:
    biased, silent, turned = clusters([3, 4, 4, 2, 3, 4]), clusters([2] * 6), clusters([1, 0, 0, 2, 1, 0])
    pair = compared(biased, silent, LEAN)
    assert pair.gain[0] == pytest.approx(abs(2 * 20 / 24 - 1))
    assert pair.gain_interval(0.05)[0][0] > 0
    pair = compared(biased, turned, LEAN)
    assert pair.gain[0] == pytest.approx(0)
    assert pair.gain_interval(0.05)[0][0] < 0 < pair.gain_interval(0.05)[1][0]
    assert pair.p[0] < 0.05, "the signed difference is clear all the same"


def test_a_baseline_without_bias_has_no_gain_from_silence() -> None:
    rng = np.random.default_rng(4)
    claimed = 0
    for _ in range(400):
        even = clusters(list(rng.binomial(24, 0.5, size=30)), of=24)
        pair = compared(even, clusters([12] * 30, of=24), LEAN)
        claimed += bool(pair.gain_interval(0.05)[0][0] > 0)
    assert claimed / 400 <= 0.08, "in every run, when the gain was |before| - |after| in each replicate"


def test_unit_shifts_have_the_p_of_a_coin() -> None:
    pair = compared(clusters([1, 2, 0, 1, 2]), clusters([2, 3, 1, 2, 3]), MEAN)
    assert pair.error[0] == 0
    assert pair.p[0] == pytest.approx(2 * 0.5**5)


def test_the_smallest_detectable_difference() -> None:
    assert detectable(0.1, 1e9, 0.05, 1) == pytest.approx((1.95996 + 0.84162) * 0.1, abs=1e-5)
    assert detectable(0.1, 1e9, 0.05, 5) == pytest.approx((2.57583 + 0.84162) * 0.1, abs=1e-5)
    assert detectable(0.1, 7, 0.05, 1) == pytest.approx((2.36462 + 0.89603) * 0.1, abs=1e-5)


def test_a_mean_over_seeds_and_wordings_has_their_variance_too() -> None:
    values = {(s, w): np.array([1.0 * s + 10.0 * w]) for s in range(3) for w in range(2)}
    found = Sampled.of(values)
    # seed means 5, 6, 7; wording means 1, 11
    assert found.between_seeds[0] == pytest.approx(1.0)
    assert found.between_wordings[0] == pytest.approx(math.sqrt(50))
    assert found.variance[0] == pytest.approx(1 / 3 + 50 / 2)
    assert found.degrees[0] == pytest.approx((1 / 3 + 25) ** 2 / ((1 / 3) ** 2 / 2 + 25**2 / 1))
    one = Sampled.of({(0, 0): np.array([2.0])})
    assert one.variance[0] == 0 and np.isnan(one.between_seeds[0])


def test_equal_seeds_change_no_interval() -> None:
    from tallies import metrics

    from evenhand.statistics import estimates

    tally = clusters([3, 4, 4, 2, 3, 4])
    for info in (MEAN, LEAN, SHARE):
        one = estimate(tally, info)
        three = estimates({(s, 0): tally for s in range(3)}, design_of(tally), metrics, [info])[info.name]
        assert np.allclose(one.interval(0.05), three.interval(0.05))
        assert three.n[0] == one.n[0] == 24


# ------------------------------------------------------------------------------------------------- few carriers


def test_one_changed_item_of_a_smooth_metric_excludes_no_more_than_none() -> None:
    bounded = Metric("mean", "higher", "capability", "", range=(0.0, 1.0))
    before, bounds = clusters([24] * 72, of=24), []
    for lost in (0, 1, 2, 12, 24):
        after = clusters([24 - lost] + [24] * 71, of=24)
        bounds.append(float(compared(before, after, bounded).loss_high(0.05)[0]))
    assert bounds == sorted(bounds)
    assert bounds[0] == pytest.approx(1 - 0.05 ** (1 / 72)) and bounds[1] > bounds[0]


def test_a_difference_of_proportions_is_never_of_width_zero() -> None:
    for by_items in (True, False):
        pair = compared(clusters([0] * 30), clusters([4] * 30), SHARE, by_items=by_items)
        low, high = ends(pair)
        assert pair.value[0] == 1 and 0.7 < low < 0.95 and high == 1


def test_half_a_dozen_answers_that_agree_are_no_certain_baseline() -> None:
    # 6 clusters answer at all before, all alike; afterwards all 30 do, unevenly
    before, after = clusters([1] * 6 + [0] * 24, of=1), clusters([3, 4, 2, 4, 3, 1] * 5)
    before.sums[6:] = 0
    pair = compared(before, after, LEAN)
    design = design_of(before, after)
    naive = math.sqrt(
        design.variance(estimate(after, LEAN, design).without - estimate(before, LEAN, design).without)[0]
    )
    assert pair.error[0] > 2 * naive
    assert pair.p[0] > 0.05


@pytest.mark.parametrize("info", [MEAN, SHARE, LEAN, SPREAD])
def test_intervals_are_computed_once_a_level_and_anew_for_other_fields(info: Metric) -> None:
    before, after = clusters([0, 1, 2, 3, 4, 2, 1, 3] * 2), clusters([1, 1, 3, 4, 4, 4, 3, 3] * 2)
    pair, one = compared(before, after, info), estimate(after, info)
    fresh = [replace(pair).interval(0.05), replace(pair).gain_interval(0.05), replace(one).interval(0.05)]
    pair.loss_high(0.05), pair.clusters_needed(0.01, 0.05)  # which asked for them first
    kept = [pair.interval(0.05), pair.gain_interval(0.05), one.interval(0.05)]
    for ends_, again in zip(kept, fresh, strict=True):
        assert np.array_equal(ends_, again, equal_nan=True)
    assert pair.interval(0.05) is kept[0]
    assert one.interval(0.05) is kept[2]
    assert not np.array_equal(pair.interval(0.2), kept[0])
    assert np.isnan(replace(pair, known=np.zeros_like(pair.known)).interval(0.05)).all()


def test_searching_for_a_number_of_clusters_takes_percentiles_once(monkeypatch: pytest.MonkeyPatch) -> None:
    info = SPREAD._replace(kind="capability")
    pair = compared(clusters([0, 1, 2, 3, 4, 2, 1, 3] * 2), clusters([1, 1, 3, 4, 4, 4, 3, 3] * 2), info)
    asked: list[float] = []
    real = resampling.percentiles
    monkeypatch.setattr(resampling, "percentiles", lambda *given: asked.append(given[2]) or real(*given))
    pair.loss_high(0.05), pair.interval(0.05), pair.gain_interval(0.05), pair.clusters_needed(10.0, 0.05)
    pair.clusters_needed(1e-3, 0.05)
    assert asked == [0.05]
