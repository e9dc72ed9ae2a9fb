"""Kept tokens: what is found again, where it lies, and how much room it takes."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch

from evenhand.inference import kv_chunks
from evenhand.inference import session_kv_cache as module
from evenhand.inference.kv_chunks import Chunks
from evenhand.inference.prefix_trie import Indices, Pack, packs
from evenhand.inference.session_kv_cache import Kept
from evenhand.inference.tree_attention import KeysValues

TOKEN_BYTES = 2 * 4  # keys and values of one layer, one number each


class Plain:
    """The same tree token by token, with the sequence that each place ends in the place of keys and values."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.place: dict[tuple[int, ...], int] = {}

    def find(self, ids: Sequence[int], most: int) -> list[int]:
        found: list[int] = []
        for n in range(1, len(ids[:most]) + 1):
            if tuple(ids[:n]) not in self.place:
                break
            found.append(self.place[tuple(ids[:n])])
        return found

    def keep(self, ids: Sequence[int]) -> None:
        for n in range(1, len(ids) + 1):
            if tuple(ids[:n]) not in self.place and len(self.place) >= self.most:
                break
            self.place.setdefault(tuple(ids[:n]), len(self.place))


def number_of(beginning: Sequence[int]) -> float:
    """A number that stands for the keys of the last token of a sequence."""
    return float(hash(tuple(beginning)) % 100_003)


def made_of(beginnings: Sequence[Sequence[int]]) -> Mapping[int, KeysValues]:
    keys = torch.tensor([number_of(b) for b in beginnings])[:, None, None]
    return {0: (keys, -keys)}


def made_by(pack: Pack, asked: Sequence[Sequence[int]]) -> Mapping[int, KeysValues]:
    """Keys and values of the fed nodes, then of the known ones, the last first, as the attention leaves them."""
    ends: dict[int, Sequence[int]] = {}
    for row, path in zip(pack.rows, pack.paths, strict=True):
        ends.update({int(node): asked[row][: n + 1] for n, node in enumerate(path)})
    fed, known = range(len(pack.tokens)), range(-len(pack.known), 0)
    return made_of([ends[node] for node in (*fed, *known)])


def in_order(pack: Pack, asked: Sequence[Sequence[int]]) -> list[Sequence[int]]:
    return [asked[row] for row in pack.rows]


def sequences(rng: random.Random, count: int) -> list[tuple[int, ...]]:
    """Some share long beginnings, fork in the middle of one another or are beginnings of others."""
    heads = [tuple(rng.randrange(3) for _ in range(n)) for n in (0, 4, 12, 25)]
    return [
        (
            *(head := rng.choice(heads))[: rng.randrange(len(head) + 1)],
            *(rng.randrange(3) for _ in range(rng.randrange(1, 9))),
        )
        for _ in range(count)
    ]


def check(kept: Kept, plain: Plain, asked: Sequence[Sequence[int]]) -> None:
    for ids in asked:
        for most in (0, 1, len(ids) // 2, len(ids)):
            expected = plain.find(ids, most)
            found = kept.find(ids, most)
            assert found.tolist() == expected
            assert found.dtype == np.int64
            if expected:
                keys, values = kept.read(0, found)
                assert keys.flatten().tolist() == [number_of(ids[: n + 1]) for n in range(len(expected))]
                assert torch.equal(values, -keys)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("most", [10**6, 90, 7, 0])
def test_packs_are_kept_as_token_by_token(seed: int, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv_chunks, "FIRST", 4)
    rng = random.Random(seed)
    kept, plain, seen = Kept(most * TOKEN_BYTES), Plain(most), list[tuple[int, ...]]()
    for _ in range(5):
        asked = sequences(rng, 12)
        known = [kept.find(ids, rng.randrange(len(ids))) for ids in asked]
        for pack in packs(asked, rng.choice([5, 40, 1000]), known):
            kept.keep_pack(pack, made_by(pack, asked))
            for ids in in_order(pack, asked):
                plain.keep(ids)
        seen += asked
        check(kept, plain, [*seen, *sequences(rng, 10)])
        assert len(kept) == len(plain.place) <= most


@pytest.mark.parametrize("most", [10**6, 60])
def test_continuations_are_kept_as_token_by_token(most: int) -> None:
    rng = random.Random(1)
    kept, plain, seen = Kept(most * TOKEN_BYTES), Plain(most), list[tuple[int, ...]]()
    for ids in sequences(rng, 60):
        start = len(plain.find(ids, rng.randrange(len(ids))))
        kept.keep_continuation(ids, start, made_of([ids[: n + 1] for n in range(start, len(ids))]))
        plain.keep(ids)
        seen.append(ids)
    check(kept, plain, seen)
    assert len(kept) == len(plain.place) == min(most, len({ids[:n] for ids in seen for n in range(1, len(ids) + 1)}))


def test_a_continuation_of_what_is_not_kept_is_not_kept() -> None:
    kept = Kept(1000)
    kept.keep_continuation((1, 2), 0, made_of([(1,), (1, 2)]))
    kept.keep_continuation((1, 3, 4), 2, made_of([(1, 3, 4)]))
    assert len(kept) == 2


def test_a_run_is_cut_where_sequences_part() -> None:
    kept = Kept(1000)
    for ids in ((1, 2, 3, 4), (1, 2, 5), (1, 2, 3, 6), (7,), (1, 2)):
        start = len(kept.find(ids, len(ids)))
        kept.keep_continuation(ids, start, made_of([ids[: n + 1] for n in range(start, len(ids))]))
    assert len(kept) == 7
    found = {ids: kept.find(ids, 9).tolist() for ids in ((1, 2, 3, 4), (1, 2, 5), (1, 2, 3, 6, 8), (7, 1), (2,))}
    assert found == {
        (1, 2, 3, 4): [0, 1, 2, 3],
        (1, 2, 5): [0, 1, 4],
        (1, 2, 3, 6, 8): [0, 1, 2, 5],
        (7, 1): [6],
        (2,): [],
    }


@pytest.mark.parametrize("most", [0, 3, 1500, 5000])
def test_room_is_never_more_than_the_most(most: int) -> None:
    kept = Kept(most * TOKEN_BYTES + TOKEN_BYTES - 1)
    for n in range(6):
        ids = (n, *range(10, 1010))
        kept.keep_continuation(ids, 0, made_of([(n, k) for k in range(len(ids))]))
        chunks = kept._chunks._layers.values()
        room = sum(t.numel() * t.element_size() for some in chunks for pair in some for t in pair)
        assert room <= kept.max_bytes
    assert len(kept) == min(most, 6 * 1001)


def test_nothing_is_kept_while_it_does_not_grow() -> None:
    kept = Kept(1000)
    kept.grows = False
    (pack,) = packs([(1, 2)], 10)
    kept.keep_pack(pack, {})
    kept.keep_continuation((1, 2), 0, {})
    assert len(kept) == 0


def test_shared_beginnings_are_compared_run_by_run(monkeypatch: pytest.MonkeyPatch) -> None:
    kept, compared = Kept(10**6), list[int]()
    trunk = tuple(range(500))
    kept.keep_continuation((*trunk, 600), 0, made_of([(n,) for n in range(501)]))
    kept.keep_continuation((*trunk, 700), 500, made_of([(0,)]))
    whole = module._walked

    def counted(*given: object) -> object:
        way = list(whole(*given))  # type: ignore[arg-type]
        compared.append(len(way))
        return iter(way)

    monkeypatch.setattr(module, "_walked", counted)
    assert len(kept.find((*trunk, 700, 1), 502)) == 501
    assert compared == [2]


def test_without_memory_nothing_is_kept_rather_than_places_without_values(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept(100_000)
    keys = torch.zeros(4, 1, 1)
    made = {0: (keys, keys), 1: (keys, keys)}
    kept.keep_continuation([1, 2, 3, 4], 0, made)
    asked: list[int] = []

    def full(self: Chunks, numbers: Indices, made: Mapping[int, KeysValues], most: int) -> None:
        asked.append(len(self) + len(numbers))
        raise torch.OutOfMemoryError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(Chunks, "append", full)
        with pytest.raises(torch.OutOfMemoryError):
            kept.keep_continuation([1, 2, 3, 4, 5, 6, 7, 8], 4, made)
    assert asked == [8] and len(kept) == 0 and len(kept.find([1, 2, 3, 4, 5], 5)) == 0
    kept.keep_continuation([1, 2, 3, 4], 0, made)
    assert kept.find([1, 2, 3, 4], 4).tolist() == [0, 1, 2, 3]
