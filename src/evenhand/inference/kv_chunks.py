"""Keys and values of many tokens, in chunks: a forward's tensors are used as they are, and copied only if necessary.

A chunk is either a forward's own tensors, or room into which keys and values are copied until it is full. Nothing moves
once it is stored. Tokens have consecutive places, whichever chunk they are in.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from evenhand.inference.prefix_trie import Indices
from evenhand.inference.tree_attention import KeysValues

FIRST = 1024
"""Minimum number of tokens that room is made for. Later rooms double the number of tokens, so that chunks stay few."""
UNUSED = 0.125
"""Maximum unused fraction of the memory of a forward's tensors for which they are used without a copy."""


class Chunks:
    """Stores keys and values of all layers by place."""

    def __init__(self) -> None:
        """Start without tokens."""
        self._layers: dict[int, list[KeysValues]] = {}
        self._starts: list[int] = []
        """Place of the first token of each chunk."""
        self._room = 0
        """Total number of places in the chunks."""
        self._count = 0

    def __len__(self) -> int:
        """Return the number of tokens."""
        return self._count

    def append(self, numbers: Indices, made: Mapping[int, KeysValues], most: int) -> None:
        """Append tokens at the next places.

        After an error the object must not be used any more: some layers may have more tokens than others.

        Args:
            numbers: Indices of tokens in `made`, at least one, in the order of their places.
            made: Keys and values of each layer, [tokens, key heads, width].
            most: Maximum number of tokens ever stored, at least the present ones and the new ones.
        """
        done = 0
        while done < len(numbers):
            if self._count == self._room:
                rest = numbers[done:]
                if _is_range(rest) and all(_is_tight(t, len(rest)) for pair in made.values() for t in pair):
                    part = slice(int(rest[0]), int(rest[-1]) + 1)
                    return self._add(
                        {layer: (k[part], v[part]) for layer, (k, v) in made.items()}, len(rest), used=True
                    )
                self._make_room(made, min(max(len(rest), self._count, FIRST), most - self._count))
            count = min(self._room - self._count, len(numbers) - done)
            self._copy(numbers[done : done + count], made)
            done += count

    def read(self, layer: int, places: Indices) -> KeysValues:
        """Return keys and values of tokens, in the order of `places`."""
        chunks = self._layers[layer]
        if len(chunks) == 1 or not len(places):
            return _picked(chunks[0], places)
        which = np.searchsorted(self._starts, places, side="right") - 1
        order = np.argsort(which, kind="stable")
        ends = np.searchsorted(which[order], np.arange(len(chunks) + 1))
        parts = [
            _picked(chunk, places[order[begin:end]] - start)
            for chunk, start, begin, end in zip(chunks, self._starts, ends, ends[1:], strict=False)
            if begin < end
        ]
        keys, values = (torch.cat(some) for some in zip(*parts, strict=True))
        if _is_range(order):
            return keys, values
        back = np.argsort(order, kind="stable")
        return _picked((keys, values), back)

    def _make_room(self, made: Mapping[int, KeysValues], count: int) -> None:
        def blank(tensor: Tensor) -> Tensor:
            return tensor.new_empty(count, *tensor.shape[1:])

        self._add({layer: (blank(k), blank(v)) for layer, (k, v) in made.items()}, count, used=False)

    def _add(self, chunk: Mapping[int, KeysValues], count: int, *, used: bool) -> None:
        self._starts.append(self._count)
        for layer, pair in chunk.items():
            self._layers.setdefault(layer, []).append(pair)
        self._room += count
        self._count += count * used

    def _copy(self, numbers: Indices, made: Mapping[int, KeysValues]) -> None:
        """Copy tokens into the room of the last chunk."""
        begin, rows = self._count - self._starts[-1], torch.from_numpy(numbers)
        for layer, pair in made.items():
            for room, tensor in zip(self._layers[layer][-1], pair, strict=True):
                torch.index_select(tensor, 0, rows.to(tensor.device), out=room[begin : begin + len(numbers)])
        self._count += len(numbers)


def _picked(pair: KeysValues, places: Indices) -> KeysValues:
    at = torch.from_numpy(places).to(pair[0].device)
    return pair[0][at], pair[1][at]


def _is_range(numbers: Indices) -> bool:
    """Return whether each number is one more than the one before it."""
    return bool((np.diff(numbers) == 1).all())


def _is_tight(tensor: Tensor, count: int) -> bool:
    """Return whether `count` tokens of a tensor take up nearly all of its memory.

    This is false for part of a larger tensor, such as values that a layer computes with queries and keys.
    """
    needed = count * tensor[0].numel() * tensor.element_size()
    return needed >= (1 - UNUSED) * tensor.untyped_storage().nbytes()
