"""Which tokens sequences share: every shared beginning is fed once.

Sequences are sorted by their token ids, so that those with a common beginning stand together, also across questions.
Each then adds a run of new tokens to the path that it shares with the one before it. Whole strings are tokenised before
they come here, so sharing changes no tokenisation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evenhand.core.sequences import common_prefix_length

Indices = NDArray[np.int64]
NONE: Indices = np.empty(0, dtype=np.int64)


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
    """Sequences that are fed together, as one row of tree nodes.

    Nodes are numbered from 0: those that are fed. Nodes that are known, because an earlier call has read them, have the
    numbers -1, -2, ...; they stand at the beginning of paths and are not fed.
    """

    rows: list[int] = field(default_factory=list)
    """Which sequences, by their index in what was given."""
    paths: list[Indices] = field(default_factory=list)
    """Per row the node of each of its positions."""
    tokens: list[int] = field(default_factory=list)
    """Token id of each node, or its symbol where some tokens are edited (see `evenhand.inference.edited_tokens`)."""
    positions: list[int] = field(default_factory=list)
    """Position of each node in its sequences."""
    runs: list[Run] = field(default_factory=list)
    known: dict[int, int] = field(default_factory=dict)
    """Where a known node is kept -> its number here."""

    def add(self, row: int, ids: Sequence[int], shared: int, kept: Indices = NONE) -> None:
        """Add a sequence.

        Args:
            row: Its index.
            ids: Its token ids.
            shared: How many of its first tokens are those of the sequence before it.
            kept: Where its first tokens are kept that are known.
        """
        before = self.paths[-1][:shared] if shared else NONE
        known = [self.known.setdefault(int(k), -1 - len(self.known)) for k in kept[shared:]]
        fed = shared + len(known)
        start = len(self.tokens)
        path = np.concatenate([before, np.array(known, dtype=np.int64), np.arange(start, start + len(ids) - fed)])
        self.rows.append(row)
        self.paths.append(path)
        if fed < len(ids):
            self.tokens += ids[fed:]
            self.positions += range(fed, len(ids))
            self.runs.append(Run(path, fed))


def packs(sequences: Sequence[Sequence[int]], budget: int, kept: Sequence[Indices] | None = None) -> Iterator[Pack]:
    """Cut sequences into packs of at most `budget` fed nodes; a longer sequence is a pack of its own.

    Args:
        sequences: Token ids or symbols, at least one each, in any order; the same ids may occur more than once.
        budget: Most nodes of a pack.
        kept: Per sequence where those of its first tokens are kept that need not be fed.
    """
    order = sorted(range(len(sequences)), key=lambda i: tuple(sequences[i]))
    pack = Pack()
    before: Sequence[int] = ()
    for row in order:
        ids, known = sequences[row], kept[row] if kept else NONE
        shared = common_prefix_length(before, ids)
        if shared > len(known) and pack.paths and pack.paths[-1][len(known)] < 0:
            shared = len(known)  # the one before knows more than this one may skip
        if pack.rows and len(pack.tokens) + len(ids) - max(shared, len(known)) > budget:
            yield pack
            pack, shared = Pack(), 0
        pack.add(row, ids, shared, known)
        before = ids
    if pack.rows:
        yield pack
