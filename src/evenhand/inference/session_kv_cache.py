"""The KV cache across calls that continue one another (see `evenhand.prompting.sessions`).

It is a tree of tokens, so that what dialogues share is kept once; tokens that follow one another without a
fork are one run, which is compared and copied as a whole. If some tokens are edited, the tree is one of symbols (see
`evenhand.inference.edited_tokens`): an edited token is not reused for an unedited one.

Keys and values are in `evenhand.inference.kv_chunks`, which uses a forward's tensors without a copy if possible.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from evenhand.core.sequences import common_prefix_length
from evenhand.inference.kv_chunks import Chunks
from evenhand.inference.prefix_trie import NONE, Indices, Pack
from evenhand.inference.tree_attention import KeysValues

ROOT = -1
"""Place before all first tokens."""
NOWHERE = -2
"""Place of a token for which there was no room."""


@dataclass(slots=True)
class _Run:
    """Tokens that are kept at consecutive places, each after the one before it."""

    start: int
    """Place of the first token."""
    tokens: tuple[int, ...]
    after: dict[int, _Run] = field(default_factory=dict)
    """Runs that follow its last token, by their first token."""


class Kept:
    """A tree of tokens with the keys and values of all layers, up to a given size."""

    def __init__(self, max_bytes: int) -> None:
        """Start empty.

        Args:
            max_bytes: Memory for keys and values; once it is full, nothing more is kept. Tensors that
                are used without a copy may take an eighth more (see `evenhand.inference.kv_chunks`).
        """
        self.max_bytes = max_bytes
        self.grows = True
        """Whether more is kept; off in the last turn, after which nothing would use it."""
        self._token_bytes = 0
        self._forget()

    def _forget(self) -> None:
        self._root = _Run(ROOT + 1, ())
        self._runs: list[_Run] = []
        self._starts: list[int] = []  # of the runs, ascending
        self._count = 0
        self._chunks = Chunks()

    def __len__(self) -> int:
        """Return the number of tokens that are kept."""
        return self._count

    def find(self, ids: Sequence[int], most: int) -> Indices:
        """Return the places of the longest known beginning of a sequence, at most `most` tokens."""
        if not self._count:
            return NONE
        pieces = [np.arange(begin, end) for _, begin, end in _walked(self._root, 0, tuple(ids[:most]))]
        return np.concatenate(pieces) if pieces else NONE

    def read(self, layer: int, nodes: Indices | Sequence[int]) -> KeysValues:
        """Return keys and values of tokens by their places."""
        return self._chunks.read(layer, np.asarray(nodes, dtype=np.int64))

    def keep_pack(self, pack: Pack, made: Mapping[int, KeysValues]) -> None:
        """Keep the fed nodes of a pack."""
        if not self.grows:
            return
        places = np.full(len(pack.tokens), NOWHERE)
        fresh: list[Indices] = []
        for run in pack.runs:
            first, parent = int(run.path[run.depth]), ROOT
            if run.depth:
                before = int(run.path[run.depth - 1])
                parent = int(places[before]) if before >= 0 else pack.known[-1 - before]
            tokens = tuple(pack.tokens[first : first + len(run.path) - run.depth])  # a run's nodes are consecutive
            kept = self._add(parent, tokens, first, fresh, made)
            places[first : first + len(kept)] = kept
        self._store(fresh, made)

    def keep_continuation(self, ids: Sequence[int], start: int, made: Mapping[int, KeysValues]) -> None:
        """Keep the tokens of a sequence from `start` on; `made` begins there."""
        if not self.grows:
            return
        path = self.find(ids, start)
        node = NOWHERE if len(path) < start else int(path[-1]) if start else ROOT
        fresh: list[Indices] = []
        self._add(node, tuple(ids[start:]), 0, fresh, made)
        self._store(fresh, made)

    def _add(
        self,
        parent: int,
        tokens: tuple[int, ...],
        number: int,
        fresh: list[Indices],
        made: Mapping[int, KeysValues],
    ) -> Indices:
        """Add a sequence of tokens after a parent, and return their places.

        Args:
            parent: Place of the parent.
            tokens: Tokens with consecutive numbers in `made`.
            number: Number of the first token.
            fresh: The numbers of tokens that were not kept before are appended here.
            made: Keys and values.

        Returns:
            Places of as many tokens as there is room for; none if there was no room for the parent.
        """
        if parent == NOWHERE:
            return NONE
        run = self._run_of(parent)
        way = list(_walked(run, parent + 1 - run.start, tokens))
        pieces = [np.arange(begin, end) for _, begin, end in way]
        done = sum(map(len, pieces))
        if done < len(tokens) and (count := min(len(tokens) - done, self._most(made) - len(self))) > 0:
            pieces.append(np.arange(len(self), len(self) + count))
            fresh.append(np.arange(number + done, number + done + count))
            run, _, end = way[-1] if way else (run, 0, parent + 1)
            self._attach(run, end, tokens[done : done + count])
        return np.concatenate(pieces) if pieces else NONE

    def _run_of(self, place: int) -> _Run:
        return self._root if place == ROOT else self._runs[bisect_right(self._starts, place) - 1]

    def _attach(self, run: _Run, end: int, tokens: tuple[int, ...]) -> None:
        """Attach new tokens to a run before the place `end`; if the run continues there, it is split."""
        kept = end - run.start
        if kept < len(run.tokens):
            rest = _Run(end, run.tokens[kept:], run.after)
            run.tokens, run.after = run.tokens[:kept], {rest.tokens[0]: rest}
            self._insert(rest)
        run.after[tokens[0]] = new = _Run(len(self), tokens)
        self._insert(new)
        self._count += len(tokens)

    def _insert(self, run: _Run) -> None:
        at = bisect_right(self._starts, run.start)
        self._starts.insert(at, run.start)
        self._runs.insert(at, run)

    def _most(self, made: Mapping[int, KeysValues]) -> int:
        if not self._token_bytes:
            self._token_bytes = sum(t[0].numel() * t.element_size() for pair in made.values() for t in pair)
        return self.max_bytes // self._token_bytes

    def _store(self, fresh: list[Indices], made: Mapping[int, KeysValues]) -> None:
        """Store keys and values, by their numbers in `made`, at the places assigned last."""
        if not fresh:
            return
        numbers = np.concatenate(fresh)
        try:
            self._chunks.append(numbers, made, self.max_bytes // self._token_bytes)
        except BaseException:  # such as lack of memory: no place may remain without values
            self._forget()
            raise


def _walked(run: _Run, after: int, tokens: tuple[int, ...]) -> Iterator[tuple[_Run, int, int]]:
    """Follow tokens through the tree, as far as they are kept.

    Args:
        run: Run in which the path begins.
        after: Number of the run's tokens before them.
        tokens: Consecutive tokens.

    Yields:
        A run that contains some of them, and their first place and the one after their last in it.
    """
    done = 0
    while done < len(tokens):
        if after == len(run.tokens):
            if tokens[done] not in run.after:
                return
            run, after = run.after[tokens[done]], 0
        there = run.tokens[after:]
        mine = tokens[done : done + len(there)]
        same = len(there) if mine == there else common_prefix_length(mine, there)
        if same:
            yield run, run.start + after, run.start + after + same
        if same < len(there):
            return
        done, after = done + same, len(run.tokens)
