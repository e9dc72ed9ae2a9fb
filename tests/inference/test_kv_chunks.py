"""Chunks of keys and values: what is taken over, what is copied, and that both are read back by place."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from evenhand.inference import kv_chunks
from evenhand.inference.kv_chunks import Chunks
from evenhand.inference.tree_attention import KeysValues

MOST = 10**6


def numbered(count: int, first: int = 0) -> dict[int, KeysValues]:
    """Two layers in which every token has a number of its own, [tokens, 2 heads, 3]."""
    keys = torch.arange(first, first + count, dtype=torch.float32)[:, None, None].repeat(1, 2, 3)
    return {0: (keys, -keys), 1: (keys + 0.25, -keys - 0.25)}


def whole(count: int) -> np.ndarray:
    return np.arange(count)


def storages(chunks: Chunks) -> list[int]:
    return [pair[0].untyped_storage().data_ptr() for pair in chunks._layers[0]]


def test_what_a_forward_has_made_is_taken_over_without_a_copy() -> None:
    chunks, made, more = Chunks(), numbered(40), numbered(8, 40)
    chunks.append(whole(40), made, MOST)
    chunks.append(whole(8), more, MOST)
    assert storages(chunks) == [m[0][0].untyped_storage().data_ptr() for m in (made, more)]
    assert len(chunks) == 48


def test_a_beginning_that_is_there_already_is_left_out_of_what_is_taken_over() -> None:
    chunks, made = Chunks(), numbered(80)
    chunks.append(np.arange(10, 80), made, MOST)  # an eighth of the memory is of no use
    assert storages(chunks) == [made[0][0].untyped_storage().data_ptr()]
    assert chunks.read(0, np.array([0, 69]))[0][:, 0, 0].tolist() == [10, 79]


@pytest.mark.parametrize(
    "numbers",
    [np.arange(11, 80), np.array([0, 2]), np.array([1, 0]), np.array([0])],
    ids=["too much of no use", "with a gap", "in another order", "one of many"],
)
def test_what_would_hold_more_memory_or_is_scattered_is_copied(numbers: np.ndarray) -> None:
    chunks, made = Chunks(), numbered(80)
    chunks.append(numbers, made, MOST)
    assert storages(chunks) != [made[0][0].untyped_storage().data_ptr()]
    assert chunks.read(1, whole(len(numbers)))[1][:, 1, 2].tolist() == [-n - 0.25 for n in numbers]


def test_a_part_of_a_larger_tensor_is_copied() -> None:
    chunks, fused = Chunks(), torch.arange(60.0).reshape(10, 2, 3)
    chunks.append(whole(10), {0: (fused[..., :1], fused[..., 1:2])}, MOST)
    (keys, values) = chunks._layers[0][0]
    assert {t.untyped_storage().data_ptr() for t in (keys, values)}.isdisjoint({fused.untyped_storage().data_ptr()})
    assert torch.equal(chunks.read(0, whole(10))[1], fused[..., 1:2])


def test_room_is_filled_before_more_is_made_and_nothing_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv_chunks, "FIRST", 4)
    chunks, sizes = Chunks(), list[int]()
    for n in range(20):
        before = storages(chunks) if n else []
        chunks.append(np.array([n]), numbered(30), MOST)
        assert storages(chunks)[: len(before)] == before
        sizes = [len(pair[0]) for pair in chunks._layers[0]]
    assert sizes == [4, 4, 8, 16]
    assert chunks.read(0, whole(20))[0][:, 0, 0].tolist() == list(range(20))


def test_there_is_never_room_for_more_than_the_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv_chunks, "FIRST", 4)
    chunks = Chunks()
    for n in range(7):
        chunks.append(np.array([n]), numbered(30), 7)
    assert [len(pair[0]) for pair in chunks._layers[0]] == [4, 3]


@pytest.mark.parametrize("seed", range(4))
def test_places_are_read_in_any_order_from_any_chunks(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv_chunks, "FIRST", 4)
    rng, chunks, there = random.Random(seed), Chunks(), list[int]()
    for first in range(0, 1000, 50):
        numbers = whole(50) if rng.random() < 0.5 else np.array(rng.sample(range(50), rng.randrange(1, 20)))
        chunks.append(numbers, numbered(50, first), MOST)
        there += [first + int(n) for n in numbers]
    for places in (whole(len(there)), whole(len(there))[::-1].copy(), np.array(rng.choices(range(len(there)), k=300))):
        for layer in (0, 1):
            keys, values = chunks.read(layer, places)
            assert keys[:, 1, 2].tolist() == [there[p] + 0.25 * layer for p in places]
            assert torch.equal(values, -keys)
    assert chunks.read(0, whole(0))[0].shape == (0, 2, 3)
