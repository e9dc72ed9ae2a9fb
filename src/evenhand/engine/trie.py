"""Which tokens sequences share: every shared beginning is fed once.

Sequences are sorted by their token ids, so that those with a common beginning stand together, also across questions.
Each then adds a run of new tokens to the path that it shares with the one before it. Whole strings are tokenised before
they come here, so sharing changes no tokenisation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


class Run(NamedTuple):
    """Tokens that one sequence added: a straight piece of the tree."""

    path: Indices
    """All nodes from the root to its end."""
    depth: int
    """How many of them were there before; the rest are its own, and consecutive."""

    @property
    def own(self) -> Indices:
        """Its own nodes."""
        return self.path[self.depth :]


@dataclass
class Pack:
    """Sequences that are fed together, as one row of tree nodes."""

    rows: list[int] = field(default_factory=list)
    """Which sequences, by their index in what was given."""
    paths: list[Indices] = field(default_factory=list)
    """Per row the node of each of its positions."""
    tokens: list[int] = field(default_factory=list)
    """Token id of each node."""
    positions: list[int] = field(default_factory=list)
    """Position of each node in its sequences."""
    runs: list[Run] = field(default_factory=list)

    def add(self, row: int, ids: Sequence[int], shared: int) -> None:
        """Add a sequence whose first `shared` tokens are those of the sequence before it."""
        start = len(self.tokens)
        own = np.arange(start, start + len(ids) - shared)
        path = np.concatenate([self.paths[-1][:shared], own]) if shared else own
        self.rows.append(row)
        self.paths.append(path)
        if len(own):
            self.tokens += ids[shared:]
            self.positions += range(shared, len(ids))
            self.runs.append(Run(path, shared))


def packs(sequences: Sequence[Sequence[int]], budget: int) -> Iterator[Pack]:
    """Cut sequences into packs of at most `budget` nodes; a longer sequence is a pack of its own.

    Args:
        sequences: Token ids, at least one each, in any order; the same ids may occur more than once.
        budget: Most nodes of a pack.
    """
    order = sorted(range(len(sequences)), key=lambda i: tuple(sequences[i]))
    pack = Pack()
    before: Sequence[int] = ()
    for row in order:
        ids = sequences[row]
        shared = common(before, ids)
        if pack.rows and len(pack.tokens) + len(ids) - shared > budget:
            yield pack
            pack, shared = Pack(), 0
        pack.add(row, ids, shared)
        before = ids
    if pack.rows:
        yield pack


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the common beginning."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
