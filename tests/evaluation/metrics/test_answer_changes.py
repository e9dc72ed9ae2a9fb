"""Answer changes: known shares in groups of unequal size, the extremes, and what undecided answers are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from evenhand.core.records import Record
from evenhand.errors import SettingsError
from evenhand.evaluation.metrics.answer_changes import KINDS, WIDTH, change_metrics, change_tallies, turned
from evenhand.experiment.cells import Cell
from evenhand.experiment.scoring import score
from evenhand.interfaces import (
    Array,
    Benchmark,
    Choice,
    Grade,
    Measured,
    Method,
    Metric,
    Model,
    Tally,
    TrainData,
    settings,
)
from evenhand.methods.none import Untouched
from evenhand.statistics.moments import ratio

REPLICATES = 199


@dataclass(frozen=True)
class Toy:
    id: str
    cluster: str
    group: str
    part: str


# A: clusters of 4, 2 and 1 in part x; B: of 3 and 3 in x, of 2 and 4 in y; C: one cluster of 2 in y
LAYOUT = (("A", "x", (4, 2, 1)), ("B", "x", (3, 3)), ("B", "y", (2, 4)), ("C", "y", (2,)))
ITEMS = [
    Toy(f"{group}{part}{c}/{i}", f"{group}{c}", group, part)
    for group, part, sizes in LAYOUT
    for c, n in enumerate(sizes)
    for i in range(n)
]
RIGHT = 0
"""The right option of every item; 1 and 2 are wrong."""


@settings
class Quiz(Benchmark):
    """Accuracy by part, with grades; or with broken ones."""

    name: ClassVar[str] = "quiz"
    needs: ClassVar[frozenset[str]] = frozenset({"choose"})
    metrics: ClassVar[tuple[Metric, ...]] = tuple(
        Metric(f"accuracy_{p}", "higher", "capability", "share right") for p in "xy"
    )

    broken: str = ""

    def load(self) -> list[Toy]:
        return ITEMS

    def ask(self, model: Model, items: Sequence[Toy]) -> list[Choice]:
        return model.choose([])

    def tally(self, items: Sequence[Toy], answers: Sequence[Choice]) -> Tally:
        groups = ("overall", *sorted({i.group for i in items}))
        clusters = tuple(dict.fromkeys(i.cluster for i in items))
        sums = np.zeros((len(clusters), len(groups), 4))
        for item, answer in zip(items, answers, strict=True):
            for group in ("overall", item.group):
                at = 2 * (item.part == "y")
                sums[clusters.index(item.cluster), groups.index(group), at : at + 2] += 1, answer.decision == RIGHT
        return Tally(clusters, tuple(c[0] for c in clusters), groups, sums)

    def compute(self, sums: Array) -> dict[str, Measured]:
        return {
            f"accuracy_{p}": Measured(ratio(sums[..., 2 * n + 1], sums[..., 2 * n]), sums[..., 2 * n])
            for n, p in enumerate("xy")
        }

    def grades(self, items: Sequence[Toy], answers: Sequence[Choice]) -> list[Grade]:
        made = [
            Grade(a.decision, a.decision == RIGHT, ("overall", "Z" if self.broken == "group" else i.group), i.part)
            for i, a in zip(items, answers, strict=True)
        ]
        return made[1:] if self.broken == "length" else made


@settings
class Fake(Method):
    """Stands for a method in a cell; `score` never applies it."""

    name: ClassVar[str] = "fake"

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        raise AssertionError("score asked a model")


def answers(text: str) -> list[Choice]:
    """A letter per item: r is right, w and v are two wrong answers, u is unparsed, n never came."""
    states = {"r": Choice(0), "w": Choice(1), "v": Choice(2), "u": Choice(None, status="unparsed")}
    states["n"] = Choice(None, status="unanswered")
    return [states[letter] for letter in text.replace(" ", "")]


#                  A, part x      B, part x  B, part y   C, part y
BEFORE = answers("wwrr ww r      www www     rr rrrr     ru")
AFTER = answers(" rwvw rn w      rrr rrr     ww wwww     uw")


def cell(method: Method, given: list[Choice], benchmark: Benchmark | None = None) -> Cell:
    made = Cell("m", method, benchmark or Quiz())
    made.finish(ITEMS, given)
    return made


def compared(before: list[Choice], after: list[Choice]) -> dict[tuple[str, str], Record]:
    records = score([cell(Untouched(), before), cell(Fake(), after)], replicates=REPLICATES)
    assert not [r for r in records if r.method == "none" and r.kind == "change"]
    return {(r.metric, r.group): r for r in records if r.method == "fake"}


@pytest.fixture(scope="module")
def changes() -> dict[tuple[str, str], Record]:
    return compared(BEFORE, AFTER)


@pytest.mark.parametrize(
    ("metric", "group", "value", "n"),
    [
        # A in x, item by item: wr ww rv rw | wr wn | rw
        ("became_right_x", "A", 2 / 7, 7),
        ("became_wrong_x", "A", 3 / 7, 7),
        ("changed_wrong_x", "A", 0, 7),
        ("decision_lost_x", "A", 1 / 7, 7),
        ("decision_gained_x", "A", 0, 7),
        ("became_right_max_x", "A", 3 / 7, 7),  # and the lost one, had it been right
        ("became_wrong_max_x", "A", 3 / 7, 7),  # the lost one was wrong before: it cannot become wrong
        # B: everything became right in x, and wrong in y
        ("became_right_x", "B", 1, 6),
        ("became_wrong_x", "B", 0, 6),
        ("became_right_y", "B", 0, 6),
        ("became_wrong_y", "B", 1, 6),
        # C in y: right -> unparsed, unparsed -> wrong
        ("became_right_y", "C", 0, 2),
        ("became_wrong_y", "C", 0, 2),
        ("decision_lost_y", "C", 1 / 2, 2),
        ("decision_gained_y", "C", 1 / 2, 2),
        ("became_right_max_y", "C", 0, 2),
        ("became_wrong_max_y", "C", 1, 2),
        ("became_right_x", "overall", 8 / 13, 13),
        ("became_wrong_x", "overall", 3 / 13, 13),
        ("became_wrong_y", "overall", 6 / 8, 8),
        ("became_wrong_max_y", "overall", 1, 8),
    ],
)
def test_shares_by_hand(changes: dict[tuple[str, str], Record], metric: str, group: str, value: float, n: int) -> None:
    record = changes[metric, group]
    assert record.value == pytest.approx(value)
    assert (record.n, record.kind, record.main, record.status) == (n, "change", False, "ok")


def test_a_group_without_items_of_a_part_has_no_share(changes: dict[tuple[str, str], Record]) -> None:
    assert changes["became_right_y", "A"].n == 0
    assert math.isnan(changes["became_right_y", "A"].value) and math.isnan(changes["became_right_x", "C"].value)


def test_extremes_have_intervals_too_and_single_clusters_have_none(changes: dict[tuple[str, str], Record]) -> None:
    sure, never, alone = (changes[f"became_{k}", g] for k, g in (("right_x", "B"), ("wrong_x", "B"), ("right_y", "C")))
    bound = 0.025 ** (1 / 2)
    assert (sure.low, sure.high, sure.clusters) == pytest.approx((bound, 1, 2))
    assert (never.low, never.high) == pytest.approx((0, 1 - bound))
    assert alone.clusters == 1 and math.isnan(alone.low) and math.isnan(alone.high)


def test_changes_of_decided_answers_are_the_difference_of_the_scores() -> None:
    """Where all are decided, became_right - became_wrong is the change of accuracy."""
    rows = compared(answers("wwrr ww r  wwr www  rr rrrr  rw"), answers("rwvw rv w  rrw wrr  ww wrww  ww"))
    for group in ("overall", "A", "B"):
        net = rows["became_right_x", group].value - rows["became_wrong_x", group].value
        assert rows["accuracy_x", group].difference == pytest.approx(net)


def test_items_that_turned_are_counted_per_cluster() -> None:
    grades = [Quiz().grades(ITEMS, a) for a in (BEFORE, AFTER)]
    found = turned(*grades, [i.cluster for i in ITEMS], Quiz().tally(ITEMS, AFTER))
    # overall in x: 8 became right, 3 ceased to be, of 13; in y one of 7 ceased by being unparsed
    assert list(found["x"][:, 0].sum(axis=0)) == [8, 3, 13]
    assert list(found["y"][:, 0].sum(axis=0)) == [0, 7, 8]


def test_another_wrong_answer_is_a_change_and_the_same_one_is_none() -> None:
    rows = compared(answers("wvwv ww w  www www  ww wwww  ww"), answers("vvww ww w  www www  vv wwww  wv"))
    assert rows["changed_wrong_x", "A"].value == pytest.approx(2 / 7)
    assert rows["changed_wrong_x", "B"].value == 0
    assert rows["changed_wrong_y", "B"].value == pytest.approx(2 / 6)
    assert {r.value for (name, _), r in rows.items() if name.startswith("became") and r.n} == {0}


def test_every_pair_of_states_lies_between_its_bounds() -> None:
    """Each undecided answer decided in every possible way stays within [share, share_max], and reaches both ends."""
    like = Tally(("c",), ("c",), ("overall",), np.zeros((1, 1, 1)))

    def shares(was: str, now: str) -> dict[str, float]:
        grades = [Grade({"r": 0, "w": 1, "u": None}[s], s == "r") for s in (was, now)]
        tally = change_tallies(grades[:1], grades[1:], ["c"], like)[""]
        assert tally.sums.shape == (1, 1, WIDTH)
        return {name: float(m.value[0]) for name, m in change_metrics(tally.total).items()}

    for was in "rwu":
        for now in "rwu":
            found = shares(was, now)
            assert list(found) == [k.name for k in KINDS]
            decided = [shares(a, b) for a in ("rw" if was == "u" else was) for b in ("rw" if now == "u" else now)]
            for name in ("became_right", "became_wrong"):
                assert found[name] == min(d[name] for d in decided)
                assert found[f"{name}_max"] == max(d[name] for d in decided)


def test_a_method_that_left_everything_changes_nothing() -> None:
    rows = compared(BEFORE, BEFORE)
    changed = [r for (name, _), r in rows.items() if r.kind == "change" and r.n and name.split("_")[2] != "max"]
    assert len(changed) == 2 * 3 * 5 and {(r.value, r.status) for r in changed} == {(0.0, "no effect")}


def test_there_are_none_without_an_untouched_model_or_without_marks() -> None:
    class Unmarked(Quiz):
        def grades(self, items: Sequence[Toy], answers: Sequence[Choice]) -> None:
            return None

    failed = Cell("m", Untouched(), Quiz())
    failed.fail("out of memory")
    alone = score([failed, cell(Fake(), AFTER)], replicates=200)
    unmarked = score([cell(m, a, Unmarked()) for m, a in ((Untouched(), BEFORE), (Fake(), AFTER))], replicates=200)
    assert {r.kind for r in alone if r.metric} == {r.kind for r in unmarked} == {"capability"}


@pytest.mark.parametrize(("broken", "message"), [("length", "20 grades for 21 items"), ("group", "'Z', which is no")])
def test_marks_that_do_not_fit_are_refused_where_they_are_made(broken: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        cell(Fake(), AFTER, Quiz(broken=broken))
