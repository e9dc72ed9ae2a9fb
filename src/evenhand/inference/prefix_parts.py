"""Divide a list among processes into parts with similar numbers of tokens, and keep shared beginnings together.

Sequences are in the order of the prefix trie, so that a part is a stretch of them, and a tree is cut only if that
balances the parts: what a sequence shares with the one before it is read again if a part begins with it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from evenhand.inference.prefix_trie import Indices, sorted_with_shared
from evenhand.inference.requests import Prompt, Request

SLACK = 0.02
"""Relative excess of a part's size that is accepted for a cut at which less is shared."""


def by_prefix(sequences: Sequence[Sequence[int]], count: int, more: Sequence[int] = ()) -> list[list[int]]:
    """Divide sequences into parts whose prefix tries have similar numbers of nodes.

    Args:
        sequences: Token ids, at least one each.
        count: Number of parts.
        more: Additional unshared tokens of each sequence, such as those of its reply.

    Returns:
        For each part the indices of its sequences, which are neighbours in the trie.
    """
    order = sorted_with_shared(sequences)
    shared = np.array([n for _, n in order], dtype=np.int64)
    extra = more or [0] * len(sequences)
    own = np.array([len(sequences[row]) + extra[row] for row, _ in order], dtype=np.int64) - shared
    return [[order[n][0] for n in range(*bounds)] for bounds in _stretches(own, shared, count)]


def by_length(sequences: Sequence[Sequence[int]], count: int) -> list[list[int]]:
    """Divide sequences that share nothing into parts with similar numbers of tokens, by length.

    Args:
        sequences: Token ids, at least one each.
        count: Number of parts.
    """
    order = sorted(range(len(sequences)), key=lambda i: -len(sequences[i]))
    own = np.array([len(sequences[i]) for i in order], dtype=np.int64)
    return [[order[n] for n in range(*bounds)] for bounds in _stretches(own, np.zeros_like(own), count)]


def of_requests(asked: Sequence[Request], count: int) -> list[list[int]]:
    """Divide requests by their shared beginnings."""
    return by_prefix([r.ids for r in asked], count)


def of_prompts(asked: Sequence[Prompt], count: int, new_tokens: int) -> list[list[int]]:
    """Divide prompts by their shared beginnings and new tokens.

    Args:
        asked: Prompts that are continued.
        count: Number of parts.
        new_tokens: Maximum number of tokens of a reply; actual lengths are unknown in advance.
    """
    return by_prefix([p.ids for p in asked], count, [new_tokens + sum(map(len, p.beside)) for p in asked])


def _stretches(own: Indices, shared: Indices, count: int) -> list[tuple[int, int]]:
    """Return bounds of stretches: the largest is minimal up to `SLACK`, and cuts are where little is shared.

    Args:
        own: For each sequence, in order, the number of tokens that it adds to those before it.
        shared: Number of tokens shared with the one before it, which a part that begins with it reads again.
        count: Number of stretches.
    """
    row = _Row(np.concatenate([[0], np.cumsum(own)]), np.concatenate([shared, [0]]))
    limit = int(row.least(count) * (1 + SLACK))
    bounds, start = [], 0
    for others in range(count - 1, 0, -1):
        last = row.furthest(start, limit)
        fits = partial(row.fits, count=others, limit=limit)
        first = start + bisect_left(range(start, last), True, key=fits)
        end = first + int(np.argmin(row.again[first : last + 1]))
        bounds.append((start, end))
        start = end
    return [*bounds, (start, len(own))]


class _Row(NamedTuple):
    """Token counts of sequences in order."""

    before: Indices
    """Number of tokens before each sequence, and finally of all, with shared ones counted once."""
    again: Indices
    """Number of tokens that a stretch which begins with the sequence reads again; 0 after the last one."""

    def furthest(self, start: int, limit: int) -> int:
        """Return the end of the longest stretch from `start` on with at most `limit` tokens."""
        room = self.before[start] + limit - self.again[start]
        return max(start, int(np.searchsorted(self.before, room, side="right")) - 1)

    def fits(self, start: int, count: int, limit: int) -> bool:
        """Return whether the rest from `start` on fits into `count` stretches; if so, it does from later on, too."""
        for _ in range(count):
            start = self.furthest(start, limit)
        return start == len(self.before) - 1

    def least(self, count: int) -> int:
        """Return the smallest limit with which all sequences fit."""
        return bisect_left(range(int(self.before[-1])), True, key=lambda limit: self.fits(0, count, limit))
