"""Keys and values that stay for the next call, while calls continue one another (see `evenhand.prompting.sessions`).

They are kept as a tree of tokens, so that what dialogues share is kept once; tokens that follow one another without a
fork are one run, which is compared and copied as a whole. Where some tokens are edited, the tree is one of symbols (see
`evenhand.inference.edited_tokens`): a token that was edited is not found by one that is not to be.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from evenhand.core.sequences import common_prefix_length
from evenhand.inference.prefix_trie import NONE, Indices, Pack
from evenhand.inference.tree_attention import KeysValues

ROOT = -1
"""The place before all first tokens."""
NOWHERE = -2
"""The place of a token that there was no room for."""
FIRST = 1024
"""Tokens that room is made for at first."""
GROWTH = {"cpu": 8}
"""How many times as much room is made when it is used up, by the kind of device; 2 for others. On a CPU room takes no
memory before it is used, and what costs time is moving what is there."""


@dataclass(slots=True)
class _Run:
    """Tokens that are kept at consecutive places, each after the one before it."""

    start: int
    """Place of the first."""
    tokens: tuple[int, ...]
    after: dict[int, _Run] = field(default_factory=dict)
    """The runs that follow its last token, by their first."""


class Kept:
    """A tree of tokens with the keys and values of all layers, up to a given size."""

    def __init__(self, max_bytes: int) -> None:
        """Nothing is kept yet.

        Args:
            max_bytes: Memory for keys and values; once it is full, nothing more is kept.
        """
        self.max_bytes = max_bytes
        self.grows = True
        """Whether more is kept; not while nothing follows that would use it."""
        self._token_bytes = 0
        self._forget()

    def _forget(self) -> None:
        self._root = _Run(ROOT + 1, ())
        self._runs: list[_Run] = []
        self._starts: list[int] = []  # of the runs, ascending
        self._count = 0
        self._layers: dict[int, KeysValues] = {}

    def __len__(self) -> int:
        """Number of tokens that are kept."""
        return self._count

    def find(self, ids: Sequence[int], most: int) -> Indices:
        """Where the longest known beginning of a sequence is kept, `most` tokens at most."""
        pieces = [np.arange(begin, end) for _, begin, end in _walked(self._root, 0, tuple(ids[:most]))]
        return np.concatenate(pieces) if pieces else NONE

    def read(self, layer: int, nodes: Indices | Sequence[int]) -> KeysValues:
        """Keys and values of tokens by where they are kept."""
        keys, values = self._layers[layer]
        at = torch.as_tensor(nodes, device=keys.device)
        return keys[at], values[at]

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
        """Where tokens are kept that follow one another after a parent.

        Args:
            parent: Its place.
            tokens: They have consecutive numbers in `made`.
            number: The first one's.
            fresh: The numbers of those that were not kept before are put here.
            made: Keys and values.

        Returns:
            Their places, as many as there is room for; none where there was no room for the parent.
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
        """Let new tokens follow those of a run before the place `end`; where others follow already, it is cut there."""
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
        """Copy keys and values, by their numbers in `made`, to the places that were given out last."""
        if not fresh:
            return
        numbers = torch.from_numpy(np.concatenate(fresh))
        begin = len(self) - len(numbers)  # new places are consecutive, up to the last one there is
        try:
            for layer, tensors in made.items():
                grown = self._grown(self._layers.get(layer), tensors, len(self))
                for kept, tensor in zip(grown, tensors, strict=True):
                    torch.index_select(tensor, 0, numbers.to(tensor.device), out=kept[begin : len(self)])
                self._layers[layer] = grown
        except BaseException:  # such as too little memory: no place may stay that has no values
            self._forget()
            raise

    def _grown(self, held: KeysValues | None, like: KeysValues, count: int) -> KeysValues:
        """Room for `count` tokens, which are no more than the most."""
        most = self.max_bytes // self._token_bytes
        room = min(FIRST, most) if held is None else len(held[0])
        while room < count:
            room = min(room * GROWTH.get(like[0].device.type, 2), most)
        if held is not None and room == len(held[0]):
            return held
        keys, values = (t.new_empty(room, *t.shape[1:]) for t in like)
        if held is not None:
            keys[: len(held[0])], values[: len(held[1])] = held
        return keys, values


def _walked(run: _Run, after: int, tokens: tuple[int, ...]) -> Iterator[tuple[_Run, int, int]]:
    """The way that tokens take through the tree, as far as they are kept.

    Args:
        run: Where it begins.
        after: How many of the run's tokens come before them.
        tokens: They follow one another.

    Yields:
        A run that they are kept in, and the places in it: the first, and the one after the last.
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
