"""Every shared beginning is one run of nodes, whatever the order and the budget."""

from __future__ import annotations

import random
import tracemalloc
from itertools import pairwise

import pytest

from evenhand.core.sequences import common_prefix_length as common
from evenhand.inference import prefix_trie
from evenhand.inference.prefix_trie import packs, sorted_with_shared

SEQUENCES = [(1, 2, 4), (5, 6), (1, 2, 3), (1, 2, 3, 7), (1, 2, 3)]


def test_known_tree() -> None:
    (pack,) = packs(SEQUENCES, 100)
    assert pack.tokens == [1, 2, 3, 7, 4, 5, 6]
    assert pack.positions == [0, 1, 2, 3, 2, 0, 1]
    assert [list(r.own) for r in pack.runs] == [[0, 1, 2], [3], [4], [5, 6]]
    assert [r.depth for r in pack.runs] == [0, 3, 2, 0]
    assert {row: list(path) for row, path in zip(pack.rows, pack.paths, strict=True)} == {
        0: [0, 1, 4],
        1: [5, 6],
        2: [0, 1, 2],
        3: [0, 1, 2, 3],
        4: [0, 1, 2],
    }


@pytest.mark.parametrize("budget", [1, 3, 4, 50])
def test_every_sequence_is_in_one_pack_and_can_be_read_back(budget: int) -> None:
    rng = random.Random(budget)
    asked = [tuple(rng.randrange(3) for _ in range(rng.randrange(1, 6))) for _ in range(40)]
    rows = []
    for pack in packs(asked, budget):
        assert len(pack.tokens) <= budget or len(pack.rows) == 1 or len(set(asked[r] for r in pack.rows)) == 1
        assert sorted(n for run in pack.runs for n in run.own) == list(range(len(pack.tokens)))
        for row, path in zip(pack.rows, pack.paths, strict=True):
            assert tuple(pack.tokens[n] for n in path) == asked[row]
            assert [pack.positions[n] for n in path] == list(range(len(path)))
        rows += pack.rows
    assert sorted(rows) == list(range(40))


def test_common_beginning() -> None:
    assert [common(a, b) for a, b in [((), (1,)), ((1, 2), (1, 2)), ((1, 2, 3), (1, 2)), ((2,), (1, 2))]] == [
        0,
        2,
        2,
        0,
    ]


@pytest.mark.parametrize("most", [1, 3, 7, 100])
def test_sequences_are_sorted_and_compared_slice_by_slice(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefix_trie, "SLICE", most)
    rng = random.Random(most)
    numbers = (-(2**40), -2, -1, 0, 1, 2**33)
    asked = [tuple(rng.choice(numbers) for _ in range(rng.randrange(1, 9))) for _ in range(60)]
    order = sorted(range(len(asked)), key=asked.__getitem__)
    shared = [0, *(common(asked[a], asked[b]) for a, b in pairwise(order))]
    assert sorted_with_shared(asked) == list(zip(order, shared, strict=True))


def test_sorting_takes_little_more_memory_than_a_copy_of_the_numbers() -> None:
    """A number takes 8 bytes, and takes them once beside the slices."""
    asked = [tuple(range(n, n + 500)) for n in range(4000)]
    tracemalloc.start()
    try:
        sorted_with_shared(asked)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 12 * 500 * 4000
