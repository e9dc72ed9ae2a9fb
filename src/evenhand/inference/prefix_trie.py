"""Which tokens sequences share: every shared beginning is fed once.

Sequences are sorted by their token ids, so that those with a common beginning stand together, also across questions.
Each then adds a run of new tokens to the path that it shares with the one before it. Whole strings are tokenised before
they come here, so sharing changes no tokenisation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

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
    known: list[int] = field(default_factory=list)
    """Where the known nodes -1, -2, ... are kept."""

    def add(self, row: int, ids: Sequence[int], shared: int, kept: Indices = NONE) -> None:
        """Add a sequence.

        Args:
            row: Its index.
            ids: Its token ids.
            shared: How many of its first tokens are those of the sequence before it.
            kept: Where its first tokens are kept that are known.
        """
        fed, start = max(shared, len(kept)), len(self.tokens)
        path = np.empty(len(ids), dtype=np.int64)
        if shared:
            path[:shared] = self.paths[-1][:shared]
        if fed > shared:
            # sequences are sorted, so what this one does not share with the one before it is shared with none before
            path[shared:fed] = np.arange(-1 - len(self.known), -1 - len(self.known) - (fed - shared), -1)
            self.known += kept[shared:].tolist()
        self.rows.append(row)
        self.paths.append(path)
        if fed < len(ids):
            path[fed:] = np.arange(start, start + len(ids) - fed)
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
    pack = Pack()
    for row, shared in sorted_with_shared(sequences):
        ids, known = sequences[row], kept[row] if kept else NONE
        if shared > len(known) and pack.paths and pack.paths[-1][len(known)] < 0:
            shared = len(known)  # the one before knows more than this one may skip
        if pack.rows and len(pack.tokens) + len(ids) - max(shared, len(known)) > budget:
            yield pack
            pack, shared = Pack(), 0
        pack.add(row, ids, shared, known)
    if pack.rows:
        yield pack


def sorted_with_shared(sequences: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """The order in which sequences stand sorted, equal ones as they came, and what each shares with the one before it.

    Args:
        sequences: At least one number each, all of them far from the bounds of 64 bits.

    Returns:
        Per sequence, in order, its index and how many first numbers are those of the one before it, 0 of the first.
    """
    if not sequences:
        return []
    lengths = np.fromiter(map(len, sequences), np.int64, len(sequences))
    ends = np.cumsum(lengths)
    flat = np.fromiter(chain.from_iterable(sequences), np.int64, int(ends[-1]))
    # as bytes, the most significant first, they compare as they do number by number, and faster
    text, bounds = (flat + 2**62).astype(">u8").tobytes(), [0, *(ends * 8).tolist()]
    names = [text[start:end] for start, end in pairwise(bounds)]
    order = sorted(range(len(names)), key=names.__getitem__)
    return list(zip(order, [0, *_shared(flat, (ends - lengths)[order], lengths[order])], strict=True))


def _shared(flat: Indices, starts: Indices, lengths: Indices) -> list[int]:
    """How many first numbers each sequence but the first has in common with the one before it."""
    if len(lengths) < 2:
        return []
    least = np.minimum(lengths[1:], lengths[:-1])
    begins = np.cumsum(least) - least
    within = np.arange(int(least.sum())) - np.repeat(begins, least)
    one, other = (flat[np.repeat(some, least) + within] for some in (starts[1:], starts[:-1]))
    unlike = np.where(one == other, int(least.max()), within)
    found: list[int] = np.minimum(np.minimum.reduceat(unlike, begins), least).tolist()
    return found
