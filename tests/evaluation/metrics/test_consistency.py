"""Counterfactual consistency by hand: pairs of questions in parts of unequal size, and readers with known values."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from evenhand.data.swaps import Swap
from evenhand.evaluation.base import QuestionBenchmark, Row
from evenhand.evaluation.metrics.consistency import STATISTICS, consistency_formulas, swap_rows
from evenhand.interfaces import Choice, Question, settings
from evenhand.testing import check_benchmark

PLAN = {"told": 3, "open": 5}
"""Pairs in each part."""


@dataclass(frozen=True)
class Two:
    """One of two questions; its options are the person who comes first, the other one, and nobody, moved on by one."""

    id: str
    cluster: str
    kind: str
    question: Question
    swap: Swap | None
    moved: bool
    right: int = 0

    @property
    def unknown(self) -> int:
        return 0 if self.moved else 2


@settings
class Twins(QuestionBenchmark[Two]):
    """Pairs of questions, and one question without a counterpart."""

    name = "twins"
    statistics = ("asked", *STATISTICS)
    parts = tuple(PLAN)
    formulas = consistency_formulas(tuple(PLAN))

    def load(self) -> list[Two]:
        made = [self._two(kind, n, side) for kind, count in PLAN.items() for n in range(count) for side in (0, 1)]
        lone = Two("lone", "open/lone", "open", Question("lone", "Who?", ("x", "y", "nobody")), None, False)
        return [*made, lone]

    def _two(self, kind: str, n: int, side: int) -> Two:
        name, other = (f"{kind}/{n}/{s}" for s in (side, 1 - side))
        people = ("Ann", "Bob")[:: 1 - 2 * side]  # whoever comes first in the text is the first option
        options = (*people, "nobody") if not side else ("nobody", *people)
        turned = (1, 2, 0) if not side else (2, 0, 1)
        return Two(name, f"{kind}/{n}", kind, Question(name, f"{people}", options), Swap(other, turned), bool(side))

    def row(self, item: Two, answer: Choice) -> Row:
        return {"asked": 1.0}

    def joint_rows(self, items, answers):
        return swap_rows(items, answers)

    def part_of(self, item: Two) -> str:
        return item.kind


def answers(decide: Callable[[Two], str | None]) -> list[Choice]:
    """The answer of each question by the text of the chosen option."""
    found = []
    for item in Twins().load():
        said = decide(item)
        found.append(Choice(None if said is None else item.question.options.index(said)))
    return found


def scores(given: list[Choice]) -> dict[str, float]:
    tally = Twins().tally(Twins().load(), given)
    return {name: float(m.value[0]) for name, m in Twins().compute(tally.total).items()}


def first(item: Two) -> str:
    return item.question.options[int(item.moved)]


def person(item: Two, name: str) -> str:
    return name if item.id != "lone" else "x"


@pytest.mark.parametrize(
    ("reader", "consistency", "decided", "abstained"),
    [
        (first, 1, 1, 0),
        (lambda i: person(i, "Ann"), 0, 0, 0),
        (lambda i: "nobody", 1, math.nan, 1),
        (lambda i: "nobody" if i.moved else first(i), 0, math.nan, 0),
        (lambda i: None, math.nan, math.nan, math.nan),
    ],
)
def test_readers_with_known_values(
    reader: Callable[[Two], str | None], consistency: float, decided: float, abstained: float
) -> None:
    found = scores(answers(reader))
    for suffix in ("", "_told", "_open"):
        assert found[f"consistency{suffix}"] == pytest.approx(consistency, nan_ok=True)
        assert found[f"consistency_decided{suffix}"] == pytest.approx(decided, nan_ok=True)
    assert found["consistency_abstained"] == pytest.approx(abstained, nan_ok=True)


def test_by_hand_in_parts_of_unequal_size() -> None:
    """told: turned, same person, one abstains. open: turned twice, same person, both abstain, one undecided."""
    by_pair = {
        "told/0": first,
        "told/1": lambda i: "Bob",
        "told/2": lambda i: "nobody" if i.moved else "Ann",
        "open/0": first,
        "open/1": first,
        "open/2": lambda i: "Ann",
        "open/3": lambda i: "nobody",
        "open/4": lambda i: None if i.moved else "Ann",
    }
    found = scores(answers(lambda i: by_pair[i.cluster](i) if i.swap else "x"))
    assert found["consistency_told"] == pytest.approx(1 / 3) and found["consistency_open"] == pytest.approx(3 / 4)
    assert found["consistency_decided_told"] == pytest.approx(1 / 2)
    assert found["consistency_decided_open"] == pytest.approx(2 / 3)
    assert found["consistency"] == pytest.approx(4 / 7) and found["consistency_decided"] == pytest.approx(3 / 5)
    assert found["consistency_abstained"] == pytest.approx(1 / 7)
    assert found["consistency_unparsed"] == pytest.approx(1 / 8)


def test_a_person_at_random_turns_half_of_the_time() -> None:
    rng = np.random.default_rng(0)
    drawn = [scores(answers(lambda i: i.question.options[int(rng.integers(2)) + i.moved])) for _ in range(400)]
    mean = float(np.mean([one["consistency"] for one in drawn]))
    assert mean == pytest.approx(1 / 2, abs=4 * 0.5 / math.sqrt(400 * sum(PLAN.values())))


def test_only_whole_pairs_count_and_each_once() -> None:
    items, given = Twins().load(), answers(first)
    assert [item.id for item, _ in swap_rows(items, given)] == [f"{k}/{n}/0" for k in PLAN for n in range(PLAN[k])]
    assert list(swap_rows(items[:1], given[:1])) == [] == list(swap_rows(items[-1:], given[-1:]))
    turned = {i.id: row for i, row in swap_rows(items[::-1], given[::-1])}
    assert turned == {i.id: row for i, row in swap_rows(items, given)}, "the order does not matter"


def test_intervals_go_by_cluster_and_the_contract_is_kept() -> None:
    tally = Twins().tally(Twins().load(), answers(first))
    column = 1 + STATISTICS.index("swaps_turned")
    per_cluster = tally.sums[:, 0].reshape(len(tally.clusters), len(PLAN), -1)[..., column].sum(axis=-1)
    assert dict(zip(tally.clusters, per_cluster, strict=True)) == {
        **{f"{kind}/{n}": 1.0 for kind, count in PLAN.items() for n in range(count)},
        "open/lone": 0.0,
    }
    check_benchmark(Twins())
