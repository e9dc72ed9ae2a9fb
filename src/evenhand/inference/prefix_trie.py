"""The prefix trie of sequences: every shared beginning is fed once.

Sequences are sorted by their token ids, so that those with a common beginning are adjacent, also across questions.
Each then adds a run of new tokens to the path that it shares with the one before it. Whole strings are tokenised before
they get here, so sharing changes no tokenisation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Sized
from dataclasses import dataclass, field
from itertools import chain, pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
NONE: Indices = np.empty(0, dtype=np.int64)
BYTES = 8
"""Number of bytes of a number."""
SLICE = 65_536
"""Maximum number of numbers sorted or compared at once; it bounds the additional memory."""


class Run(NamedTuple):
    """Tokens that one sequence adds: an unbranched piece of the tree."""

    path: Indices
    """All nodes from the root to the end of the run."""
    depth: int
    """Number of these nodes that existed before; the rest are its own, and consecutive."""

    @property
    def own(self) -> Indices:
        """Nodes of the run itself."""
        return self.path[self.depth :]


@dataclass
class Pack:
    """Sequences that are fed together, as one row of tree nodes.

    Nodes that are fed are numbered from 0. Nodes that are known because an earlier call has read them have the
    numbers -1, -2, ...; they are at the beginning of paths and are not fed.
    """

    rows: list[int] = field(default_factory=list)
    """Indices of the sequences in the given list."""
    paths: list[Indices] = field(default_factory=list)
    """For each row, the node of each of its positions."""
    tokens: list[int] = field(default_factory=list)
    """Token id of each node, or its symbol if some tokens are edited (see `evenhand.inference.edited_tokens`)."""
    positions: list[int] = field(default_factory=list)
    """Position of each node in its sequences."""
    runs: list[Run] = field(default_factory=list)
    known: list[int] = field(default_factory=list)
    """Places of the known nodes -1, -2, ... in the KV cache."""

    def add(self, row: int, ids: Sequence[int], shared: int, kept: Indices = NONE) -> None:
        """Add a sequence.

        Args:
            row: Index of the sequence.
            ids: Token ids of the sequence.
            shared: Number of first tokens that it shares with the sequence before it.
            kept: Places of its known first tokens in the KV cache.
        """
        fed, start = max(shared, len(kept)), len(self.tokens)
        path = np.empty(len(ids), dtype=np.int64)
        if shared:
            path[:shared] = self.paths[-1][:shared]
        if fed > shared:
            # sequences are sorted, so what it does not share with the previous one, it shares with none before
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
        budget: Maximum number of nodes in a pack.
        kept: For each sequence, the places in the KV cache of the first tokens that need not be fed.
    """
    pack = Pack()
    for row, shared in sorted_with_shared(sequences):
        ids, known = sequences[row], kept[row] if kept else NONE
        if shared > len(known) and pack.paths and pack.paths[-1][len(known)] < 0:
            shared = len(known)  # the previous one has more known tokens than this one may skip
        if pack.rows and len(pack.tokens) + len(ids) - max(shared, len(known)) > budget:
            yield pack
            pack, shared = Pack(), 0
        pack.add(row, ids, shared, known)
    if pack.rows:
        yield pack


def sorted_with_shared(sequences: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """Return the stable sorted order of sequences, and how many tokens each shares with the one before it.

    Args:
        sequences: At least one number each, all far from the bounds of 64 bits.

    Returns:
        For each sequence, in order, its index and the number of first numbers shared with the one before it.
    """
    if not sequences:
        return []
    names = [name for begin, end in _slices(sequences, SLICE) for name in _names(sequences[begin:end])]
    order = sorted(range(len(names)), key=names.__getitem__)
    ordered = [names[row] for row in order]
    # each slice begins with the last one of the slice before it
    shared = (_shared(ordered[max(0, begin - 1) : end]) for begin, end in _slices(ordered, BYTES * SLICE))
    return list(zip(order, chain([0], *shared), strict=True))


def _slices(parts: Sequence[Sized], most: int) -> Iterator[tuple[int, int]]:
    """Yield bounds of slices of parts with at most that many items in all; a larger part is a slice of its own."""
    begin = items = 0
    for n, part in enumerate(parts):
        if items + len(part) > most and n > begin:
            yield begin, n
            begin, items = n, 0
        items += len(part)
    yield begin, len(parts)


def _names(sequences: Sequence[Sequence[int]]) -> list[bytes]:
    """Return sequences as big-endian bytes, which compare as the numbers do, but faster."""
    lengths = np.fromiter(map(len, sequences), np.int64, len(sequences))
    ends = np.cumsum(lengths)
    flat = np.fromiter(chain.from_iterable(sequences), np.int64, int(ends[-1]))
    text, bounds = (flat + 2**62).astype(">u8").tobytes(), [0, *(ends * BYTES).tolist()]
    return [text[start:end] for start, end in pairwise(bounds)]


def _shared(names: Sequence[bytes]) -> list[int]:
    """Return how many first numbers each sequence but the first shares with the one before it."""
    if len(names) < 2:
        return []
    flat = np.frombuffer(b"".join(names), np.int64)
    lengths = np.fromiter(map(len, names), np.int64, len(names)) // BYTES
    starts = np.cumsum(lengths) - lengths
    least = np.minimum(lengths[1:], lengths[:-1])
    begins = np.cumsum(least) - least
    within = np.arange(int(least.sum())) - np.repeat(begins, least)
    one, other = (flat[np.repeat(some, least) + within] for some in (starts[1:], starts[:-1]))
    unlike = np.where(one == other, int(least.max()), within)
    found: list[int] = np.minimum(np.minimum.reduceat(unlike, begins), least).tolist()
    return found
