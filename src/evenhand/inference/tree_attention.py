"""Attention over a tree of tokens: every node attends to its ancestors and to itself.

The keys and values of a path are gathered, so that runs that hang on one prefix see it without its being fed again;
runs that hang on one another are gathered for together. Everything else of the model runs on the flat row of nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from evenhand.inference.attention import attended
from evenhand.inference.blocks import Block, blocks
from evenhand.inference.prefix_trie import Pack

WASTE = 1.6
"""A group of blocks is padded to at most this many times its own attention cells."""
KEYS = 32_768
"""Most gathered keys of a group; bounds the memory."""

KeysValues = tuple[Tensor, Tensor]
"""Keys and values of tokens in one layer, each [tokens, key heads, width]."""


@dataclass
class Group:
    """Blocks of about the same size, padded to [blocks, queries] and [blocks, keys]."""

    causal: bool
    """A single sequence from its first token on: neither gathering nor a mask is needed."""
    queries: Tensor
    """[blocks, Q] node indices; padding repeats the last."""
    keys: Tensor
    """[blocks, K] node indices; padding repeats the last."""
    allowed: Tensor
    """[blocks, Q, K] whether a query attends to a key."""
    kept: Tensor
    """Which of the flattened [blocks * Q] queries are none of the padding."""
    biases: dict[tuple[int, torch.dtype], Tensor] = field(default_factory=dict)

    def to(self, device: torch.device) -> Group:
        """The same on a device."""
        queries, keys, allowed, kept = (t.to(device) for t in (self.queries, self.keys, self.allowed, self.kept))
        return Group(self.causal, queries, keys, allowed, kept)

    def bias(self, repeats: int, dtype: torch.dtype) -> Tensor:
        """[blocks, 1, repeats * Q, K]: 0 where a query attends and -inf elsewhere; the same for all layers."""
        if (repeats, dtype) not in self.biases:
            blank = torch.zeros(self.allowed.shape, dtype=dtype, device=self.allowed.device)
            blank.masked_fill_(~self.allowed, -torch.inf)
            self.biases[repeats, dtype] = blank.repeat(1, repeats, 1)[:, None]
        return self.biases[repeats, dtype]


class TreeAttention:
    """How one pack is attended to."""

    def __init__(self, pack: Pack, known: Callable[[int], KeysValues] | None = None, *, keep: bool = False) -> None:
        """Sort the tree into groups.

        Args:
            pack: The tree.
            known: Gives a layer's keys and values of the pack's known nodes, in their order.
            keep: Whether all keys and values are kept in `made`.
        """
        self._groups = [_group(runs) for runs in _alike(blocks(pack.runs))]
        self._on: dict[torch.device, list[Group]] = {}
        self._known = known if pack.known else None
        self._keep = keep
        self.made: dict[int, KeysValues] = {}
        """Per layer keys and values by node; those of known nodes stand reversed at the end, where -1 is the first."""

    def __call__(
        self, layer: int | None, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, softcap: float | None
    ) -> Tensor:
        """See `evenhand.inference.attention.Attention`; the batch is one row of nodes."""
        heads, shared = query.shape[1], key.shape[1]
        repeats = heads // shared
        out = query.new_empty(query.shape[2], heads, value.shape[-1])
        k, v = self._all(layer, key, value)
        q = query[0].transpose(0, 1).reshape(query.shape[2], shared, repeats, -1)
        for group in self._groups_on(query.device):
            if group.causal and softcap is None:
                start, length = int(group.queries[0, 0]), group.queries.shape[1]
                part = slice(start, start + length)
                made = scaled_dot_product_attention(
                    query[:, :, part],
                    key[:, :, part],
                    value[:, :, part],
                    is_causal=True,
                    scale=scaling,
                    enable_gqa=repeats > 1,
                )
                out[part] = made[0].transpose(0, 1)
                continue
            # the queries that share a key head stand one below the other: [blocks, key heads, repeats * Q, width]
            folded = q[group.queries].permute(0, 2, 3, 1, 4).flatten(2, 3)
            keys, values = (t[group.keys].transpose(1, 2) for t in (k, v))
            made = attended(folded, keys, values, group.bias(repeats, query.dtype), scaling, softcap)
            apart = made.reshape(*made.shape[:2], repeats, -1, made.shape[-1])
            flat = apart.permute(0, 3, 1, 2, 4).flatten(0, 1).flatten(1, 2)
            out[group.queries.flatten()[group.kept]] = flat[group.kept]
        return out[None]

    def _all(self, layer: int | None, key: Tensor, value: Tensor) -> KeysValues:
        """Keys and values of fed and known nodes, [nodes, key heads, width]."""
        k, v = key[0].transpose(0, 1), value[0].transpose(0, 1)
        if layer is None:
            if self._keep or self._known:
                raise NotImplementedError("its layers have no numbers")
            return k, v
        if self._known:
            known = self._known(layer)
            k, v = torch.cat([k, known[0].flip(0)]), torch.cat([v, known[1].flip(0)])
        if self._keep:
            self.made[layer] = k, v
        return k, v

    def _groups_on(self, device: torch.device) -> list[Group]:
        """The groups with their tensors on a device; a model may lie on several."""
        if device not in self._on:
            self._on[device] = [g.to(device) for g in self._groups]
        return self._on[device]


def _alike(found: Sequence[Block]) -> Iterator[list[Block]]:
    group: list[Block] = []
    cells = 0
    widest = 0
    for block in sorted(found, key=lambda b: (len(b.queries), len(b.keys))):
        queries, keys = len(block.queries), max(widest, len(block.keys))
        more, count = queries * len(block.keys), len(group) + 1
        if group and (count * queries * keys > WASTE * (cells + more) or count * keys > KEYS):
            yield group
            group, cells, keys = [], 0, len(block.keys)
        group.append(block)
        cells, widest = cells + more, keys
    if group:
        yield group


def _group(found: Sequence[Block]) -> Group:
    longest, widest = max(len(b.queries) for b in found), max(len(b.keys) for b in found)
    queries = np.stack([np.pad(b.queries, (0, longest - len(b.queries)), mode="edge") for b in found])
    keys = np.stack([np.pad(b.keys, (0, widest - len(b.keys)), mode="edge") for b in found])
    allowed = np.zeros((len(found), longest, widest), dtype=bool)
    for mine, block in zip(allowed, found, strict=True):
        mine[: len(block.queries), : len(block.keys)] = block.allowed
        mine[len(block.queries) :] = mine[len(block.queries) - 1]
    kept = np.flatnonzero(np.arange(longest)[None] < np.array([len(b.queries) for b in found])[:, None])
    causal = len(found) == 1 and found[0].straight
    tensors = [torch.from_numpy(a) for a in (queries, keys, allowed, kept)]
    return Group(causal, tensors[0], tensors[1], tensors[2], tensors[3])
