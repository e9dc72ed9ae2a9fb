"""Parts for several processes: balanced by the tokens of their trees, which are cut where that costs least."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from evenhand.inference.prefix_parts import by_length, by_prefix, of_prompts, of_requests
from evenhand.inference.prefix_trie import packs
from evenhand.inference.requests import Prompt, Request


def nodes(sequences: Sequence[Sequence[int]], part: Sequence[int]) -> int:
    """What the engine feeds for a part."""
    return sum(len(pack.tokens) for pack in packs([sequences[i] for i in part], 10**9))


def tree(first: int, beginning: int, ends: int, length: int) -> list[tuple[int, ...]]:
    """Sequences that share a beginning and nothing else."""
    return [(*[first] * beginning, *[first + 1 + end] * length) for end in range(ends)]


def test_trees_stay_whole() -> None:
    sequences = [*tree(100, 20, 4, 5), *tree(200, 20, 4, 5), *tree(300, 20, 4, 5), *tree(400, 20, 4, 5)]
    random.Random(0).shuffle(sequences)
    parts = by_prefix(sequences, 2)
    assert [{sequences[i][0] for i in part} for part in parts] == [{100, 200}, {300, 400}]
    assert [nodes(sequences, part) for part in parts] == [80, 80]


def test_a_large_tree_is_cut_and_its_beginning_read_by_both() -> None:
    sequences = [*tree(100, 20, 8, 10), *tree(200, 5, 1, 5)]
    parts = by_prefix(sequences, 2)
    assert [nodes(sequences, part) for part in parts] == [20 + 40, 20 + 40 + 10]


def test_tokens_are_balanced_and_not_items() -> None:
    sequences = [(1, *[7] * 99), *((2 + i, *[8] * 9) for i in range(10))]
    assert sorted(map(len, by_prefix(sequences, 2))) == [1, 10]


def test_what_all_share_counts_in_every_part() -> None:
    """Of 40 ends after 200 shared tokens, three parts read 200 + 10 * n each: no part needs more than 14 ends."""
    sequences = tree(1, 200, 40, 10)
    parts = by_prefix(sequences, 3)
    assert max(nodes(sequences, part) for part in parts) == 340


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_every_row_is_in_one_part(count: int) -> None:
    draw = random.Random(count)
    sequences = [tuple(draw.choices(range(3), k=draw.randint(1, 9))) for _ in range(50)]
    for parts in (by_prefix(sequences, count), by_length(sequences, count)):
        assert len(parts) == count
        assert sorted(i for part in parts for i in part) == list(range(50))


def test_fewer_rows_than_parts_and_none() -> None:
    assert sorted(map(len, by_prefix([(1, 2)], 3))) == [0, 0, 1]
    assert sorted(map(len, by_length([(1, 2)], 3))) == [0, 0, 1]
    assert by_prefix([], 2) == by_length([], 2) == [[], []]


def test_lengths_stay_together_and_are_balanced() -> None:
    sequences = [(1,) * n for n in (2, 9, 2, 3, 10, 2)]
    assert by_length(sequences, 2) == [[4], [1, 3, 0, 2, 5]]  # 10 tokens and 18; a cut one later gives 19 and 9


def test_new_tokens_count_for_each_prompt() -> None:
    """Ten prompts that differ in their last token only: with 50 new tokens each they are worth 52, the long one 150."""
    asked = [Prompt((1, 2, 3 + n)) for n in range(10)] + [Prompt(tuple(range(100, 200)))]
    parts = of_prompts(asked, 2, 50)
    assert sorted(map(len, parts)) == [5, 6]
    assert sorted(map(len, of_prompts(asked, 2, 0))) == [1, 10]


def test_sequences_beside_a_prompt_count() -> None:
    asked = [Prompt((1, 2), beside=((5,) * 98,)), *(Prompt((2 + n, 1)) for n in range(49))]
    assert sorted(map(len, of_prompts(asked, 2, 0))) == [1, 49]


def test_requests_are_divided_by_what_is_fed() -> None:
    asked = [Request((1, 2, 3), ((2, n),)) for n in range(3)]
    assert sorted(map(len, of_requests(asked, 1))) == [3]
