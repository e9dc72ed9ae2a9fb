"""Batches of any examples, and of those that begin alike."""

from __future__ import annotations

from random import Random

import pytest

from evenhand.training.grouping import in_batches
from evenhand.training.loop import Schedule

EXAMPLES = [[template, n] for n in range(8) for template in (1, 2, 3)]


def test_without_groups_the_order_is_the_shuffle_of_before() -> None:
    order = list(EXAMPLES)
    Random(4).shuffle(order)
    assert in_batches(EXAMPLES, 5, Random(4), list) == [order[at : at + 5] for at in range(0, 24, 5)]


def test_groups_hold_neighbours_and_each_example_once() -> None:
    batches = in_batches(EXAMPLES, 4, Random(0), list, "prefix")
    assert sorted(example for batch in batches for example in batch) == sorted(EXAMPLES)
    assert [len(batch) for batch in batches] == [4] * 6
    assert sum(len({template for template, _ in batch}) == 1 for batch in batches) >= 3
    assert batches != sorted(batches), "batches are in random order"


def test_groups_are_drawn_anew_by_the_generator() -> None:
    drawn = [in_batches(EXAMPLES, 4, Random(seed), list, "prefix") for seed in (0, 0, 1, 2, 3)]
    assert drawn[0] == drawn[1]
    assert len({tuple(sorted(sorted(map(tuple, b))[0] for b in batches)) for batches in drawn}) > 1


@pytest.mark.parametrize("group_by", ["none", "prefix"])
def test_nothing_gives_no_batches(group_by: str) -> None:
    assert in_batches([], 4, Random(0), list, group_by) == []  # type: ignore[arg-type]


def test_checkpoints_without_groups_are_those_of_before() -> None:
    plain = Schedule(epochs=1, learning_rate=0.1)
    assert "group_by" not in plain.for_checkpoints()
    assert Schedule(epochs=1, learning_rate=0.1, group_by="prefix").for_checkpoints()["group_by"] == "prefix"
