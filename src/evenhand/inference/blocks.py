"""Group runs of a tree that attend together: those that branch off each other.

A question and its options are four runs whose paths are nearly the same; together, their keys are gathered once
and the products are larger, at the cost of a few masked cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from evenhand.inference.prefix_trie import Indices, Run

WASTE = 1.5
"""Maximum ratio of a block's attention cells to those of its runs."""
WIDEST = 1024
"""Maximum number of keys of a block of several runs; it bounds the mask."""
ALONE = 128
"""Number of tokens from which a run at the root stays alone: it needs no mask, and others may share it as a stem."""


@dataclass
class Block:
    """Queries, and all keys that any of them attends to."""

    queries: Indices
    """Indices of the nodes that attend."""
    keys: Indices
    """Indices of the nodes attended to: the path to the first query, then the queries."""
    parents: Indices
    """For each query, the query that it follows; -1 follows the path."""
    needed: int
    """Number of attention cells of its runs taken separately."""

    @property
    def straight(self) -> bool:
        """Whether the block is a single sequence, complete from its first token."""
        return len(self.queries) == len(self.keys) and bool((self.parents == np.arange(len(self.queries)) - 1).all())

    @property
    def allowed(self) -> NDArray[np.bool_]:
        """Whether each query attends to each key, [queries, keys]."""
        before = len(self.keys) - len(self.queries)
        seen = np.zeros((len(self.queries), len(self.keys)), dtype=bool)
        seen[:, :before] = True
        for query, parent in enumerate(self.parents):
            if parent >= 0:
                seen[query] = seen[parent]
            seen[query, before + query] = True
        return seen


def blocks(runs: Sequence[Run]) -> list[Block]:
    """Group runs, in the order of their tree; each joins the block of its parent run if that wastes little."""
    found: list[_Draft] = []
    nodes = max((int(run.path[-1]) for run in runs), default=-1) + 1
    holder, place = [-1] * nodes, [-1] * nodes
    for run in runs:
        before, count = int(run.path[run.depth - 1]) if run.depth else -1, len(run.path) - run.depth
        which, parent = (holder[before], place[before]) if before >= 0 else (-1, -1)
        if which < 0 or not found[which].fits(run, count):
            which, parent = len(found), -1
            found.append(_Draft(run.path[: run.depth]))
        first = int(run.path[run.depth])
        start = found[which].add(run, count, parent)
        holder[first : first + count] = [which] * count
        place[first : first + count] = range(start, start + count)
    return [draft.block for draft in found]


@dataclass
class _Draft:
    """A growing block; its arrays are made once at the end."""

    before: Indices
    """Path to its first query."""
    runs: list[Run] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    needed: int = 0
    straight: bool = True

    def fits(self, run: Run, count: int) -> bool:
        """Whether a run of `count` tokens may join."""
        queries = len(self.parents)
        if queries >= ALONE and self.straight and not len(self.before):
            return False
        keys = len(self.before) + queries + count
        return keys <= WIDEST and (queries + count) * keys <= WASTE * (self.needed + count * len(run.path))

    def add(self, run: Run, count: int, parent: int) -> int:
        """Add a run after a query, or after the path if -1; return the index of its first query."""
        start = len(self.parents)
        self.runs.append(run)
        self.parents.append(parent)
        self.parents += range(start, start + count - 1)
        self.needed += count * len(run.path)
        self.straight = self.straight and parent == start - 1
        return start

    @property
    def block(self) -> Block:
        """The finished block with its arrays."""
        queries = np.concatenate([run.own for run in self.runs])
        keys = np.concatenate([self.before, queries])
        return Block(queries, keys, np.array(self.parents, dtype=np.int64), self.needed)
