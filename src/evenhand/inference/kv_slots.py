"""Attention for rows that each continue their own text token by token, with their keys and values side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from evenhand.inference.attention import attended
from evenhand.inference.prefix_trie import Indices
from evenhand.inference.tree_attention import KeysValues


class _Step(NamedTuple):
    """Tensors that all layers need at one step."""

    rows: Tensor
    lengths: Tensor
    bias: Tensor
    """Bias of the attention, [rows, 1, 1, longest]: -inf after a row's end."""


class Slots:
    """Keys and values of rows by place; the places in use are always the first ones."""

    def __init__(self, places: int, room: int) -> None:
        """Set the sizes; memory is allocated when the first rows are admitted.

        Args:
            places: Maximum number of rows at a time.
            room: Maximum number of tokens of a row.
        """
        self.places, self.room = places, room
        self.lengths: list[int] = []
        """Number of tokens read so far in each row."""
        self._layers: dict[int, KeysValues] = {}
        self._steps: dict[tuple[torch.device, torch.dtype], _Step] = {}

    def admit(self, made: Mapping[int, KeysValues], paths: Sequence[Indices]) -> None:
        """Admit rows.

        Args:
            made: Keys and values of tree nodes, for each layer.
            paths: Nodes of the tokens of each row.
        """
        begin, end, longest = len(self.lengths), len(self.lengths) + len(paths), max(map(len, paths))
        nodes = torch.from_numpy(np.stack([np.pad(p, (0, longest - len(p)), mode="edge") for p in paths]))
        for layer, tensors in made.items():
            if layer not in self._layers:
                # zeros: values after a row's end are masked, but must be finite for that
                keys, values = (t.new_zeros(self.places, t.shape[1], self.room, t.shape[2]) for t in tensors)
                self._layers[layer] = keys, values
            for slots, tensor in zip(self._layers[layer], tensors, strict=True):
                slots[begin:end, :, :longest] = tensor[nodes.to(tensor.device)].transpose(1, 2)
        self.lengths += map(len, paths)

    def clear(self, row: int) -> None:
        """Zero a row that is not finite: masked nan would still spoil the next row at its place."""
        for tensor in (t for pair in self._layers.values() for t in pair):
            tensor[row] = 0

    def drop(self, rows: Sequence[int]) -> list[int]:
        """Drop rows; the last ones take their places.

        Returns:
            For each place, the previous number of the row that is there now.
        """
        stay = [r for r in range(len(self.lengths)) if r not in set(rows)]
        holes = [r for r in rows if r < len(stay)]
        movers = [r for r in stay if r >= len(stay)]
        if holes:
            for tensor in (t for pair in self._layers.values() for t in pair):
                tensor[holes] = tensor[movers]
        order = list(range(len(stay)))
        for hole, mover in zip(holes, movers, strict=True):
            order[hole] = mover
        self.lengths = [self.lengths[r] for r in order]
        return order

    def kept(self, row: int, start: int) -> dict[int, KeysValues]:
        """Return keys and values of a row's tokens from `start` on, for each layer."""
        part = slice(start, self.lengths[row])
        return {
            layer: (keys[row, :, part].transpose(0, 1), values[row, :, part].transpose(0, 1))
            for layer, (keys, values) in self._layers.items()
        }

    def positions(self) -> list[int]:
        """Begin a step, and return the position of the next token of each row."""
        self._steps.clear()
        before = list(self.lengths)
        self.lengths = [n + 1 for n in before]
        return before

    def __call__(
        self, layer: int | None, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, softcap: float | None
    ) -> Tensor:
        """See `evenhand.inference.attention.Attention`; each row of the batch has one new token."""
        if layer is None:
            raise NotImplementedError("its layers have no numbers")
        now, (keys, values) = self._step(query), self._layers[layer]
        keys[now.rows, :, now.lengths - 1] = key[:, :, 0]
        values[now.rows, :, now.lengths - 1] = value[:, :, 0]
        longest = now.bias.shape[-1]
        k, v = keys[: len(now.rows), :, :longest], values[: len(now.rows), :, :longest]
        # queries that share a key head are stacked: [rows, key heads, repeats, width]
        folded = query[:, :, 0].reshape(len(query), key.shape[1], -1, query.shape[-1])
        return attended(folded, k, v, now.bias, scaling, softcap).flatten(1, 2)[:, None]

    def _step(self, query: Tensor) -> _Step:
        where = query.device, query.dtype
        if where not in self._steps:
            lengths = torch.tensor(self.lengths, device=query.device)
            behind = torch.arange(max(self.lengths), device=query.device)[None] >= lengths[:, None]
            bias = torch.zeros(behind.shape, dtype=query.dtype, device=query.device).masked_fill_(behind, -torch.inf)
            rows = torch.arange(len(self.lengths), device=query.device)
            self._steps[where] = _Step(rows, lengths, bias[:, None, None])
        return self._steps[where]
