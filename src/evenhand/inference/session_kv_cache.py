"""Keys and values that stay for the next call, while calls continue one another (see `evenhand.prompting.sessions`).

They are kept as a tree of tokens, so that what dialogues share is kept once. Where some tokens are edited, the tree is
one of symbols (see `evenhand.inference.edited_tokens`): a token that was edited is not found by one that is not to be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from evenhand.inference.prefix_trie import Indices, Pack
from evenhand.inference.tree_attention import KeysValues

ROOT = -1
FIRST = 1024
"""Tokens that room is made for at first; it doubles from there."""


class Kept:
    """A tree of tokens with the keys and values of all layers, up to a given size."""

    def __init__(self, max_bytes: int) -> None:
        """Nothing is kept yet.

        Args:
            max_bytes: Memory for keys and values; once it is full, nothing more is kept.
        """
        self.max_bytes = max_bytes
        self._next: dict[tuple[int, int], int] = {}
        self._layers: dict[int, KeysValues] = {}
        self._token_bytes = 0

    def __len__(self) -> int:
        """Tokens that are kept."""
        return len(self._next)

    def find(self, ids: Sequence[int], most: int) -> Indices:
        """Where the longest known beginning of a sequence is kept, `most` tokens at most."""
        found, node = [], ROOT
        for token in ids[:most]:
            child = self._next.get((node, token))
            if child is None:
                break
            found.append(child)
            node = child
        return np.array(found, dtype=np.int64)

    def read(self, layer: int, nodes: Sequence[int]) -> KeysValues:
        """Keys and values of tokens by where they are kept."""
        keys, values = self._layers[layer]
        at = torch.tensor(nodes, device=keys.device)
        return keys[at], values[at]

    def keep_pack(self, pack: Pack, made: Mapping[int, KeysValues]) -> None:
        """Keep the fed nodes of a pack."""
        place = {number: node for node, number in pack.known.items()}
        fresh: list[tuple[int, int]] = []
        for run in pack.runs:
            node: int | None = place.get(int(run.path[run.depth - 1])) if run.depth else ROOT
            for number in run.own.tolist():
                node = self._add(node, pack.tokens[number], number, fresh, made)
                if node is None:
                    break
                place[number] = node
        self._store(fresh, made)

    def keep_continuation(self, ids: Sequence[int], start: int, made: Mapping[int, KeysValues]) -> None:
        """Keep the tokens of a sequence from `start` on; `made` begins there."""
        path = self.find(ids, start)
        node: int | None = None if len(path) < start else int(path[-1]) if start else ROOT
        fresh: list[tuple[int, int]] = []
        for number, token in enumerate(ids[start:]):
            node = self._add(node, token, number, fresh, made)
        self._store(fresh, made)

    def _add(
        self, parent: int | None, token: int, number: int, fresh: list[tuple[int, int]], made: Mapping[int, KeysValues]
    ) -> int | None:
        """Where a token is kept after its parent; None where there is no room, or none was there for the parent."""
        if parent is None:
            return None
        node = self._next.get((parent, token))
        if node is None and len(self) < self._most(made):
            node = self._next[parent, token] = len(self)
            fresh.append((number, node))
        return node

    def _most(self, made: Mapping[int, KeysValues]) -> int:
        if not self._token_bytes:
            self._token_bytes = sum(t[0].numel() * t.element_size() for pair in made.values() for t in pair)
        return self.max_bytes // self._token_bytes

    def _store(self, fresh: list[tuple[int, int]], made: Mapping[int, KeysValues]) -> None:
        if not fresh:
            return
        numbers, nodes = (torch.tensor(column) for column in zip(*fresh, strict=True))
        for layer, tensors in made.items():
            grown = self._grown(self._layers.get(layer), tensors, len(self))
            for kept, tensor in zip(grown, tensors, strict=True):
                kept[nodes.to(kept.device)] = tensor[numbers.to(tensor.device)]
            self._layers[layer] = grown

    def _grown(self, held: KeysValues | None, like: KeysValues, count: int) -> KeysValues:
        """Room for `count` tokens."""
        room = FIRST if held is None else len(held[0])
        while room < count:
            room *= 2
        if held is not None and room == len(held[0]):
            return held
        keys, values = (t.new_empty(room, *t.shape[1:]) for t in like)
        if held is not None:
            keys[: len(held[0])], values[: len(held[1])] = held
        return keys, values
