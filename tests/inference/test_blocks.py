"""Runs that are attended to together: every query exactly once, and its ancestors exactly."""

from __future__ import annotations

import numpy as np
import pytest

from evenhand.inference import blocks as module
from evenhand.inference.blocks import blocks
from evenhand.inference.prefix_trie import Pack, packs


def tree(seed: int, rows: int = 40) -> Pack:
    rng = np.random.default_rng(seed)
    heads = [tuple(rng.integers(0, 9, size=n)) for n in (1, 6, 17, 30)]
    sequences = [(*heads[rng.integers(4)], *rng.integers(0, 3, size=rng.integers(1, 9))) for _ in range(rows)]
    return next(packs(sequences, 10**6))


def ancestors(pack: Pack) -> dict[int, set[int]]:
    out: dict[int, set[int]] = {}
    for path in pack.paths:
        for n, node in enumerate(path):
            out[int(node)] = {int(p) for p in path[: n + 1]}
    return out


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("waste", [0.0, 1.0, 1.5, 10.0])
def test_every_node_attends_to_its_ancestors_once(seed: int, waste: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WASTE", waste)
    pack = tree(seed)
    expected, seen = ancestors(pack), list[int]()
    for block in blocks(pack.runs):
        for query, allowed in zip(block.queries, block.allowed, strict=True):
            keys = block.keys[allowed].tolist()
            assert len(keys) == len(set(keys))
            assert set(keys) == expected[int(query)]
            seen.append(int(query))
    assert sorted(seen) == list(range(len(pack.tokens)))


def plain_blocks(pack: Pack) -> list[tuple[list[int], list[int], list[int], int]]:
    """The same rule node by node: per block its queries, keys, their parents and the cells of its runs."""
    found: list[tuple[list[int], list[int], list[int], int]] = []
    holder: dict[int, tuple[int, int]] = {}
    for run in pack.runs:
        path, own = run.path.tolist(), run.own.tolist()
        which, parent = holder.get(path[run.depth - 1], (-1, -1)) if run.depth else (-1, -1)
        if which >= 0:
            queries, keys, parents, needed = found[which]
            most, cells = len(keys) + len(own), needed + len(own) * len(path)
            straight = len(keys) == len(queries) and parents == list(range(-1, len(queries) - 1))
            alone = straight and len(queries) >= module.ALONE
            if alone or most > module.WIDEST or (len(queries) + len(own)) * most > module.WASTE * cells:
                which = -1
        if which < 0:
            which, parent = len(found), -1
            found.append(([], path[: run.depth], [], 0))
        queries, keys, parents, needed = found[which]
        for node in own:
            holder[node] = which, len(queries)
            parents.append(parent)
            parent = len(queries)
            queries.append(node)
            keys.append(node)
        found[which] = queries, keys, parents, needed + len(own) * len(path)
    return found


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("waste", "widest", "alone"), [(1.5, 1024, 128), (1.5, 40, 6), (3.0, 30, 17), (1.0, 1024, 1)])
def test_blocks_are_those_of_the_rule_node_by_node(
    seed: int, waste: float, widest: int, alone: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"WASTE": waste, "WIDEST": widest, "ALONE": alone}.items():
        monkeypatch.setattr(module, name, value)
    whole = tree(seed, 60)
    sequences = [[whole.tokens[n] for n in path] for path in whole.paths]
    known = [path[: min(len(path) - 1, seed % 4)] for path in whole.paths]
    for pack in (whole, *packs(sequences, 50, known)):
        found = [(b.queries.tolist(), b.keys.tolist(), b.parents.tolist(), b.needed) for b in blocks(pack.runs)]
        assert found == plain_blocks(pack)


def test_siblings_share_a_block_where_that_wastes_little() -> None:
    pack = next(packs([(*range(20), 30 + n, 40 + n) for n in range(3)], 10**6))
    together = blocks(pack.runs)
    assert [len(b.queries) for b in together] == [26]
    assert not together[0].straight
    apart = next(packs([(5, 50 + n, *range(60, 80)) for n in range(40)], 10**6))  # they share one token only
    assert len(blocks(apart.runs)) > 20


def test_a_long_beginning_stays_alone() -> None:
    length = module.ALONE
    for trunk, expected in ((length, [length + 2, 2, 2]), (length - 2 - 1, [length - 1 + 2 * 2])):
        pack = next(packs([(*range(trunk), 300 + n, 400 + n) for n in range(3)], 10**6))
        assert [len(b.queries) for b in blocks(pack.runs)] == expected


def test_a_block_is_no_wider_than_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WIDEST", 12)
    monkeypatch.setattr(module, "WASTE", 100.0)
    found = blocks(tree(0).runs)
    assert all(len(b.keys) <= 12 or (b.parents == np.arange(len(b.queries)) - 1).all() for b in found)


def test_one_sequence_is_straight_and_its_cells_are_counted() -> None:
    (block,) = blocks(next(packs([(1, 2, 3, 4)], 100)).runs)
    assert block.straight
    assert block.needed == 16
    assert block.allowed.sum() == 10
