"""From answers to records: known values, paired differences, and what is said where there is no number."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest

from evenhand.core.records import Record
from evenhand.experiment.cells import Cell, Variant
from evenhand.experiment.scoring import score
from evenhand.interfaces import (
    Array,
    Benchmark,
    Choice,
    Measured,
    Method,
    Metric,
    Model,
    Tally,
    TrainData,
    Usage,
    settings,
)
from evenhand.methods.none import Untouched
from evenhand.statistics import Design, Estimate, estimates, holm
from evenhand.statistics.design import takes_part

NAN = float("nan")
REPLICATES = 199


@dataclass(frozen=True)
class Toy:
    id: str
    cluster: str
    group: str


# group A: 7 items in 3 unequal clusters; B: 6 in 2 equal ones; C: 2 in one
SIZES = {"A": (4, 2, 1), "B": (3, 3), "C": (2,)}
ITEMS = [
    Toy(f"{group}{c} {i}", f"{group}{c}", group)
    for group, sizes in SIZES.items()
    for c, n in enumerate(sizes)
    for i in range(n)
]


@settings
class Hits(Benchmark):
    """How many were hit."""

    name: ClassVar[str] = "hits"
    needs: ClassVar[frozenset[str]] = frozenset({"choose"})
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("rate", "lower", "bias", "share of hits", True, form="proportion", range=(0, 1)),
        Metric("lean", "zero", "bias", "2 * rate - 1", range=(-1, 1)),
        Metric("right", "higher", "capability", "share of misses", form="proportion", range=(0, 1)),
        Metric("seen", "none", "validity", "share of hits", form="proportion", range=(0, 1)),
        Metric("uneven", "lower", "bias", "|rate - 1/2|", form="resampled", range=(0, 0.5)),
    )

    stratified: bool = True
    lonely: bool = False
    """Every cluster is a stratum of its own."""

    def load(self) -> list[Toy]:
        return ITEMS

    def ask(self, model: Model, items: list[Toy]) -> list[Choice]:
        return model.choose([])

    def tally(self, items: list[Toy], answers: list[Choice]) -> Tally:
        groups = ("overall", *sorted({i.group for i in items}))
        clusters = tuple(dict.fromkeys(i.cluster for i in items))
        strata = tuple(c if self.lonely else c[0] if self.stratified else "all" for c in clusters)
        sums = np.zeros((len(clusters), len(groups), 2))
        for item, answer in zip(items, answers, strict=True):
            for group in ("overall", item.group):
                sums[clusters.index(item.cluster), groups.index(group)] += 1, answer.decision == 1
        return Tally(clusters, strata, groups, sums)

    def compute(self, sums: Array) -> dict[str, Measured]:
        n = sums[..., 0]
        rate = np.divide(sums[..., 1], n, out=np.full(n.shape, np.nan), where=n > 0)
        values = {"rate": rate, "lean": 2 * rate - 1, "right": 1 - rate, "seen": rate, "uneven": np.abs(rate - 0.5)}
        return {name: Measured(value, n) for name, value in values.items()}


@settings
class Fake(Method):
    """Stands for a method in a cell; `score` never applies it."""

    name: ClassVar[str] = "fake"
    k: int = 0

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        raise AssertionError("score asked a model")


def hit(*per_cluster: int) -> list[Choice]:
    """Answers with so many hits in each cluster, in the order of ITEMS."""
    out = []
    for hits, size in zip(per_cluster, (n for sizes in SIZES.values() for n in sizes), strict=True):
        out += [Choice(1)] * hits + [Choice(0)] * (size - hits)
    return out


BEFORE = hit(4, 2, 1, 2, 0, 1)  # A 7/7, B 2/6, C 1/2: overall 10/15
AFTER = hit(0, 0, 0, 3, 1, 1)  # A 0/7, B 4/6, C 1/2: overall 5/15


def cell(method: Method, answers: list[Choice], model: str = "m", benchmark: Benchmark | None = None) -> Cell:
    made = Cell(model, method, benchmark or Hits())
    made.finish(ITEMS, answers)
    return made


def scored(*cells: Cell, seed: int = 0) -> list[Record]:
    return score(cells, replicates=REPLICATES, seed=seed)


def by_name(records: list[Record], method: str, model: str = "m") -> dict[tuple[str, str], Record]:
    rows = {(r.metric, r.group): r for r in records if r.method == method and r.model == model}
    assert len(rows) == len([r for r in records if r.method == method and r.model == model])
    return rows


@pytest.fixture(scope="module")
def compared() -> list[Record]:
    return scored(cell(Untouched(), BEFORE), cell(Fake(), AFTER))


# --------------------------------------------------------------------------------------------------- known values


def test_every_metric_of_every_group_is_a_record(compared: list[Record]) -> None:
    expected = {(m.name, g) for m in Hits.metrics for g in ("overall", "A", "B", "C")}
    assert set(by_name(compared, "none")) == set(by_name(compared, "fake")) == expected


@pytest.mark.parametrize(
    ("group", "n", "clusters", "before", "after"),
    [("overall", 15, 6, 10 / 15, 5 / 15), ("A", 7, 3, 1, 0), ("B", 6, 2, 2 / 6, 4 / 6), ("C", 2, 1, 0.5, 0.5)],
)
def test_values_differences_and_gains_by_hand(
    compared: list[Record], group: str, n: int, clusters: int, before: float, after: float
) -> None:
    base, row = by_name(compared, "none")["rate", group], by_name(compared, "fake")["rate", group]
    assert (base.value, row.value) == pytest.approx((before, after))
    assert (row.n, row.clusters) == (base.n, base.clusters) == (n, clusters)
    assert row.difference == pytest.approx(after - before)
    assert row.gain == pytest.approx(before - after)  # lower is better
    rows = by_name(compared, "fake")
    assert rows["right", group].gain == pytest.approx(before - after)  # the misses: higher is better
    assert rows["lean", group].gain == pytest.approx(abs(2 * before - 1) - abs(2 * after - 1))
    assert math.isnan(rows["seen", group].gain)
    assert rows["seen", group].difference == pytest.approx(after - before)


def test_a_record_says_what_its_metric_is(compared: list[Record]) -> None:
    rows = by_name(compared, "fake")
    assert {m: (r.direction, r.kind, r.main) for (m, g), r in rows.items() if g == "A"} == {
        "rate": ("lower", "bias", True),
        "lean": ("zero", "bias", False),
        "right": ("higher", "capability", False),
        "seen": ("none", "validity", False),
        "uneven": ("lower", "bias", False),
    }
    assert {(r.model, r.method, r.benchmark, r.status, r.baseline) for r in rows.values()} == {
        ("m", "fake", "hits", "ok", "none")
    }
    assert {r.note for (m, g), r in rows.items() if g != "C" and m != "uneven"} == {""}
    assert {r.note for (_, g), r in rows.items() if g == "C"} == {"no interval: it takes at least 2 clusters"}
    # group B has two of the three clusters of its pooled stratum: a resample may hold neither
    assert rows["uneven", "B"].note == "no interval: in over 5 % of the resamples the metric is undefined"


def test_the_untouched_model_is_compared_with_nothing(compared: list[Record]) -> None:
    for row in by_name(compared, "none").values():
        compared_fields = (
            row.difference,
            row.difference_low,
            row.difference_high,
            row.gain,
            row.gain_low,
            row.p,
            row.p_holm,
        )
        assert all(map(math.isnan, compared_fields))


def estimated(answers: list[Choice]) -> dict[str, Estimate]:
    bench, tally = Hits(), Hits().tally(ITEMS, answers)
    design = Design.of(tally.clusters, tally.strata, takes_part([tally.sums]))
    return estimates({(0, 0): tally}, design, bench.compute, bench.metrics, replicates=REPLICATES)


def test_intervals_are_those_of_the_estimates(compared: list[Record]) -> None:
    rows = by_name(compared, "fake")
    for metric, estimate in estimated(AFTER).items():
        low, high = estimate.interval(0.05)
        for g, group in enumerate(("overall", "A", "B")):
            expected = pytest.approx((low[g], high[g]), nan_ok=True)
            assert (rows[metric, group].low, rows[metric, group].high) == expected
    assert rows["rate", "B"].low < rows["rate", "B"].value < rows["rate", "B"].high
    none_of_three = 1 - 0.025 ** (1 / (7**2 / (16 + 4 + 1)))
    assert (rows["rate", "A"].low, rows["rate", "A"].high) == pytest.approx((0, none_of_three))
    assert (rows["lean", "A"].low, rows["lean", "A"].high) == pytest.approx((-1, -1 + 2 * none_of_three))


def test_only_what_is_resampled_depends_on_the_seed(compared: list[Record]) -> None:
    cells = (cell(Untouched(), BEFORE), cell(Fake(), AFTER))
    assert repr(scored(*cells)) == repr(compared)
    old, new = by_name(compared, "fake"), by_name(scored(*cells, seed=1), "fake")
    for metric, moved in (("rate", False), ("lean", False), ("uneven", True)):
        was, now = old[metric, "overall"], new[metric, "overall"]
        assert (was.value, was.difference) == (now.value, now.difference)
        assert (was.standard_error != now.standard_error) == moved


# --------------------------------------------------------------------------------------------- paired differences


def test_differences_are_paired_by_cluster() -> None:
    # in B both clusters gain one hit of three: the difference is 1/3 in both, though the level is not
    rows = by_name(scored(cell(Untouched(), BEFORE), cell(Fake(), hit(4, 2, 1, 3, 1, 1))), "fake")
    row = rows["rate", "B"]
    assert row.high - row.low > 0.5
    assert (row.difference, row.p) == pytest.approx((1 / 3, 2 * 0.5**2))
    lean = rows["lean", "B"]
    assert (lean.difference, lean.p) == pytest.approx((2 / 3, 2 * 0.5**2)), "two clusters are two tosses of a coin"
    assert lean.difference_low < 0 < lean.difference_high
    assert (rows["rate", "A"].difference, rows["rate", "A"].p) == (0, 1)


def test_a_change_of_everything_is_no_more_certain_than_its_clusters(compared: list[Record]) -> None:
    row = by_name(compared, "fake")["rate", "A"]
    effective = 7**2 / (16 + 4 + 1)
    assert (row.difference, row.p) == pytest.approx((-1, 2 * 0.5**effective))
    assert row.difference_low == -1 and row.difference_high > -0.5


def test_a_bias_turned_round_is_a_difference_without_gain(compared: list[Record]) -> None:
    row = by_name(compared, "fake")["lean", "A"]
    assert (row.value, row.difference, row.gain) == (-1, -2, 0)
    assert row.gain_low < 0 < row.gain_high


def test_a_metric_without_direction_has_a_p_and_no_gain(compared: list[Record]) -> None:
    row = by_name(compared, "fake")["seen", "A"]
    assert row.p < 1
    assert all(map(math.isnan, (row.gain, row.gain_low, row.gain_high, row.loss_high)))


def test_each_model_and_benchmark_is_compared_with_its_own_untouched_model() -> None:
    all_hit, none_hit = hit(4, 2, 1, 3, 3, 2), hit(0, 0, 0, 0, 0, 0)
    pooled = Hits(stratified=False)
    records = scored(
        cell(Fake(), AFTER, "first"),  # before its untouched model, which must not matter
        cell(Untouched(), all_hit, "first"),
        cell(Untouched(), none_hit, "second"),
        cell(Fake(), AFTER, "second"),
        cell(Untouched(), BEFORE, "first", pooled),
        cell(Fake(), AFTER, "first", pooled),
    )
    found = {
        (r.model, r.benchmark): r.difference
        for r in records
        if (r.method, r.metric, r.group) == ("fake", "rate", "overall")
    }
    assert found == pytest.approx(
        {("first", "hits"): -10 / 15, ("second", "hits"): 5 / 15, ("first", pooled.spec): -5 / 15}
    )


def test_without_an_untouched_model_there_are_values_and_no_comparison() -> None:
    failed = Cell("m", Untouched(), Hits())
    failed.fail("out of memory")
    row = by_name(scored(failed, cell(Fake(), AFTER)), "fake")["rate", "B"]
    assert row.value == pytest.approx(4 / 6)
    assert row.low < row.high
    assert all(map(math.isnan, (row.difference, row.gain, row.p, row.p_holm)))


# ------------------------------------------------------------------------------------------------------ no effect


def test_a_method_that_leaves_every_answer_as_it_was_has_no_effect() -> None:
    costlier = [replace(a, usage=Usage(5, 100, 20), reply="long thought", note="x") for a in BEFORE]
    rows = by_name(scored(cell(Untouched(), BEFORE), cell(Fake(), costlier)), "fake")
    assert {r.status for r in rows.values()} == {"no effect"}
    assert {r.difference for r in rows.values()} == {0}
    assert {r.p for (metric, group), r in rows.items() if group != "C" and metric != "uneven"} == {1}


@pytest.mark.parametrize(
    "change",
    [{"probabilities": (0.5, 0.5)}, {"decision": None, "status": "unparsed"}, {"status": "unanswered"}],
)
def test_one_changed_answer_is_an_effect(change: dict[str, object]) -> None:
    answers = [*BEFORE[:-1], replace(BEFORE[-1], **change)]  # a miss, so that no number changes
    rows = by_name(scored(cell(Untouched(), BEFORE), cell(Fake(), answers)), "fake")
    assert {r.status for r in rows.values()} == {"ok"}
    assert {r.difference for r in rows.values()} == {0}


# ---------------------------------------------------------------------------------------------- where there is none


def test_a_cell_without_answers_is_one_record_that_says_why() -> None:
    failed, refused = Cell("m", Fake(k=1), Hits()), Cell("m", Fake(k=2), Hits())
    failed.fail("ValueError: it broke")
    refused.refuse("fake needs weights")
    records = scored(cell(Untouched(), BEFORE), failed, refused)
    ((_, first),) = by_name(records, "fake(k=1)").items()
    ((_, second),) = by_name(records, "fake(k=2)").items()
    assert repr(first) == repr(
        Record(model="m", method="fake(k=1)", benchmark="hits", status="failed", note="ValueError: it broke")
    )
    assert repr(second) == repr(
        Record(model="m", method="fake(k=2)", benchmark="hits", status="not applicable", note="fake needs weights")
    )
    assert len(records) == 20 + 2


@pytest.mark.parametrize("stratified", [True, False])
def test_a_single_cluster_has_values_and_no_interval(stratified: bool) -> None:
    bench = Hits(stratified=stratified)
    records = scored(cell(Untouched(), BEFORE, benchmark=bench), cell(Fake(), AFTER, benchmark=bench))
    for method in ("none", "fake"):
        row = by_name(records, method)["rate", "C"]
        assert (row.value, row.clusters) == (0.5, 1)
        assert all(map(math.isnan, (row.low, row.high)))
    row = by_name(records, "fake")["rate", "C"]
    assert row.difference == row.gain == 0
    missing = (row.difference_low, row.difference_high, row.gain_low, row.gain_high, row.p, row.p_holm)
    assert all(map(math.isnan, missing))


def test_clusters_that_are_each_alone_in_their_stratum_are_one_stratum() -> None:
    found = []
    for bench in (Hits(lonely=True), Hits(stratified=False)):
        records = scored(cell(Untouched(), BEFORE, benchmark=bench), cell(Fake(), AFTER, benchmark=bench))
        found.append([replace(r, benchmark="") for r in records])
    assert repr(found[0]) == repr(found[1])
    row = by_name(found[0], "fake")["rate", "overall"]
    assert row.low < row.value < row.high and row.difference == pytest.approx(-5 / 15)


def test_nothing_scored_is_nothing() -> None:
    assert score([]) == []


# ------------------------------------------------------------------------------------------------------------ Holm


def test_p_is_adjusted_across_the_methods_of_one_model_benchmark_metric_and_group() -> None:
    records = scored(
        cell(Untouched(), BEFORE),
        cell(Fake(k=1), AFTER),
        cell(Fake(k=2), BEFORE),
        cell(Fake(k=3), hit(4, 1, 1, 2, 1, 1)),
        cell(Untouched(), BEFORE, "alone"),
        cell(Fake(k=1), AFTER, "alone"),
        cell(Untouched(), BEFORE, "m", Hits(stratified=False)),
        cell(Fake(k=1), AFTER, "m", Hits(stratified=False)),
    )
    mine = [r for r in records if r.benchmark == "hits"]
    rows = {k: by_name(mine, f"fake(k={k})")["rate", "A"] for k in (1, 2, 3)}
    assert rows[1].p_holm == pytest.approx(min(1, 3 * rows[1].p))
    assert (rows[2].p, rows[2].p_holm) == (1, 1)
    assert rows[1].p < rows[3].p <= 1
    for metric in ("rate", "lean", "right", "seen"):
        for group in ("overall", "A", "B"):
            family = [by_name(mine, f"fake(k={k})")[metric, group] for k in (1, 2, 3)]
            assert [r.p_holm for r in family] == holm([r.p for r in family])
    for alone in (r for r in records if r.model == "alone" or r.benchmark != "hits"):
        assert repr(alone.p_holm) == repr(alone.p)


def test_answers_that_hold_several_choices_are_the_same_whatever_they_cost() -> None:
    from evenhand.evaluation.option_order import OrderAnswer
    from evenhand.experiment.scoring import _essence
    from evenhand.interfaces import Usage

    one, dearer, other = (
        OrderAnswer((Choice(0), Choice(d, usage=u))) for d, u in ((1, Usage()), (1, Usage(2)), (2, Usage()))
    )
    assert _essence(one) == _essence(dearer) != _essence(other)


# ------------------------------------------------------------------------------------------ rows of several cells


def test_repetitions_of_a_row_are_one_mean_and_no_rivals() -> None:
    seeds = [hit(4, 2, 1, 3, 1, 1), hit(3, 2, 1, 2, 1, 1), hit(2, 1, 1, 1, 1, 0)]
    cells = [cell(Untouched(), BEFORE)]
    for n, answers in enumerate(seeds):
        made = cell(Fake(k=n), answers)
        made.row, made.variant = "fake(seeds=3)", Variant(seed=n)
        cells.append(made)
    records = scored(*cells)
    assert {r.method for r in records} == {"none", "fake(seeds=3)"}
    row = by_name(records, "fake(seeds=3)")["rate", "overall"]
    rates = np.array([12, 10, 6]) / 15
    assert row.value == pytest.approx(rates.mean())
    assert row.difference == pytest.approx(rates.mean() - 10 / 15)
    assert row.between_seeds == pytest.approx(rates.std(ddof=1))
    assert row.p_holm == row.p, "a family of one"
    one = by_name(scored(cells[0], cell(Fake(), hit(3, 2, 1, 2, 1, 1))), "fake")["lean", "overall"]
    lean = by_name(records, "fake(seeds=3)")["lean", "overall"]
    assert lean.standard_error > 2 * rates.std(ddof=1) / np.sqrt(3), "the spread between seeds is part of it"
    assert math.isnan(one.between_seeds)


def test_a_row_is_compared_with_the_baseline_that_is_read_alike() -> None:
    generated = cell(Untouched(), AFTER)
    generated.row = "none (generation, T=1)"
    method = cell(Fake(), AFTER)
    method.baseline = generated.row
    records = scored(cell(Untouched(), BEFORE), generated, method)
    row = by_name(records, "fake")["rate", "overall"]
    assert (row.baseline, row.difference, row.status) == ("none (generation, T=1)", 0, "no effect")
    assert row.note == "the answers are the baseline's"
    other = by_name(records, "none (generation, T=1)")["rate", "overall"]
    assert (other.baseline, other.status) == ("", "ok") and math.isnan(other.difference)


def test_no_effect_gives_the_reason_that_is_known() -> None:
    method = cell(Fake(), BEFORE)
    method.no_effect = "the weights are the baseline's"
    row = by_name(scored(cell(Untouched(), BEFORE), method), "fake")["rate", "overall"]
    assert (row.status, row.note) == ("no effect", "the weights are the baseline's")


def test_a_tally_whose_clusters_come_from_the_answers_is_refused() -> None:
    odd = cell(Fake(), AFTER)
    assert odd.tally is not None
    odd.tally = replace(odd.tally, clusters=("x", *odd.tally.clusters[1:]))
    with pytest.warns(RuntimeWarning, match="different clusters"):
        records = scored(cell(Untouched(), BEFORE), odd)
    assert {(r.method, r.status, r.metric) for r in records} == {("none", "failed", ""), ("fake", "failed", "")}
    assert all("its tally must take these from the items, never from the answers" in r.note for r in records)
