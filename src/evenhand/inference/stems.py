"""Which blocks of a tree have a long beginning in common, such as solved examples or an instruction.

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
"""Keys that a stem has at least; gathering fewer costs less than a second call and merging."""
SHRINK = 0.5
"""A block joins those before it while at least this part of what they have in common remains."""


class Stem(NamedTuple):
    """Keys that all queries of some blocks attend to, and what else the blocks attend to."""

    keys: Indices
    """The nodes of the common beginning."""
    blocks: list[Block]
    """Without these keys."""


def stems(found: Sequence[Block]) -> tuple[list[Stem], list[Block]]:
    """Blocks with a long common beginning, and those that have none.

    Args:
        found: In the order of the tree, in which blocks with a common beginning stand together.
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
    """Blocks that stand together, with how many keys they have in common."""
    some: list[Block] = []
    shared = 0
    for block in found:
        before = len(block.keys) - len(block.queries)
        if before < SHORTEST:
            yield [block], 0  # a beginning itself; those that continue it may still share one
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
