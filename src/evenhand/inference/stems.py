"""Find blocks of a tree with a long common beginning, such as solved examples or an instruction.

Its keys and values need not be gathered for every block: all queries attend to it at once, each block to the rest of
its own, and the two results are merged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from evenhand.inference.blocks import Block
from evenhand.inference.prefix_trie import Indices

SHORTEST = 64
"""Minimum number of keys in a stem; gathering fewer costs less than a second call and merging."""
SHRINK = 0.5
"""A block joins those before it if at least this fraction of their common beginning remains."""


class Stem(NamedTuple):
    """Keys that all queries of some blocks attend to, and the blocks without them."""

    keys: Indices
    """Nodes of the common beginning."""
    blocks: list[Block]
    """Blocks without these keys."""


def stems(found: Sequence[Block]) -> tuple[list[Stem], list[Block]]:
    """Return groups of blocks with a long common beginning, and the blocks without one.

    Args:
        found: Blocks in the order of the tree, in which those with a common beginning are adjacent.
    """
    made, apart = [], []
    for some, shared in _together(found):
        if len(some) > 1:
            less = [replace(block, keys=block.keys[shared:]) for block in some]
            made.append(Stem(some[0].keys[:shared], less))
        else:
            apart += some
    return made, apart


def _together(found: Sequence[Block]) -> Iterator[tuple[list[Block], int]]:
    """Yield groups of adjacent blocks with the number of keys that they have in common."""
    some: list[Block] = []
    shared = 0
    for block in found:
        before = len(block.keys) - len(block.queries)
        if before < SHORTEST:
            yield [block], 0  # it is a beginning itself; blocks that continue it may still share one
            continue
        common = min(shared, before, _common(some[-1].keys, block.keys)) if some else before
        if some and common < max(SHORTEST, SHRINK * shared):
            yield some, shared
            some, common = [], before
        some.append(block)
        shared = common
    if some:
        yield some, shared


def _common(one: Indices, other: Indices) -> int:
    length = min(len(one), len(other))
    differing = np.flatnonzero(one[:length] != other[:length])
    return int(differing[0]) if len(differing) else length
