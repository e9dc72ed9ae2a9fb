"""Which runs of a tree are attended to together: those that hang on one another.

A question and its options are four runs whose paths are nearly the same; taken together their keys are gathered once
and the products are larger, for a few cells that the mask leaves out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evenhand.inference.prefix_trie import Indices, Run

WASTE = 1.5
"""A block has at most this many times the attention cells of its runs."""
WIDEST = 1024
"""Most keys of a block of several runs; bounds the mask."""


@dataclass
class Block:
    """Queries, and all keys that any of them attends to."""

    queries: Indices
    """Nodes that attend."""
    keys: Indices
    """Nodes that are attended to: the path to the first query, then the queries."""
    parents: Indices
    """Per query which of the queries it follows; -1 follows the path."""
    needed: int
    """Attention cells of its runs, one by one."""

    @property
    def straight(self) -> bool:
        """Whether it is a single sequence from its first token on."""
        return len(self.queries) == len(self.keys) and bool((self.parents == np.arange(len(self.queries)) - 1).all())

    @property
    def allowed(self) -> NDArray[np.bool_]:
        """[queries, keys] whether a query attends to a key."""
        before = len(self.keys) - len(self.queries)
        seen = np.zeros((len(self.queries), len(self.keys)), dtype=bool)
        seen[:, :before] = True
        for query, parent in enumerate(self.parents):
            if parent >= 0:
                seen[query] = seen[parent]
            seen[query, before + query] = True
        return seen


def blocks(runs: Sequence[Run]) -> list[Block]:
    """Runs in the order of their tree, each put to the block of the run it hangs on where that wastes little."""
    found: list[Block] = []
    holder: dict[int, tuple[Block, int]] = {}
    for run in runs:
        block, parent = holder.get(int(run.path[run.depth - 1]), (None, -1)) if run.depth else (None, -1)
        if block is None or not _fits(block, run):
            block, parent = Block(run.own[:0], run.path[: run.depth], run.own[:0], 0), -1
            found.append(block)
        start, count = len(block.queries), len(run.own)
        after = np.concatenate([[parent], np.arange(start, start + count - 1)])
        block.queries, block.keys = np.append(block.queries, run.own), np.append(block.keys, run.own)
        block.parents, block.needed = np.append(block.parents, after), block.needed + count * len(run.path)
        holder |= {int(node): (block, start + n) for n, node in enumerate(run.own)}
    return found


def _fits(block: Block, run: Run) -> bool:
    queries, keys = len(block.queries) + len(run.own), len(block.keys) + len(run.own)
    return keys <= WIDEST and queries * keys <= WASTE * (block.needed + len(run.own) * len(run.path))
