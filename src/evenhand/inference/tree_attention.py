"""Attention over a tree of tokens: every node attends to its ancestors and to itself.

The keys and values of a path are gathered, so that runs that share a prefix see it without feeding it again;
runs that branch off each other are gathered together. On CPUs a long beginning of many paths is not gathered but
attended to by all of them at once. Everything else of the model runs on the flat row of nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from evenhand.inference import attention_support
from evenhand.inference.attention import attended
from evenhand.inference.blocks import Block, blocks
from evenhand.inference.prefix_trie import Indices, Pack
from evenhand.inference.stems import Stem, stems
from evenhand.inference.transfers import upload

WASTE = 1.6
"""Maximum ratio of a group's padded attention cells to its own."""
KEYS = 32_768
"""Maximum number of gathered keys in a group; it bounds the memory."""

KeysValues = tuple[Tensor, Tensor]
"""Keys and values of tokens in one layer, each [tokens, key heads, width]."""


@dataclass
class Group:
    """Blocks of about the same size, padded to [blocks, queries] and [blocks, keys]."""

    causal: bool
    """Whether it is a single sequence from its first token on, which needs neither gathering nor a mask."""
    first: int
    """Node of the first query, as a number on the host: reading it from a GPU would wait for the GPU."""
    queries: Tensor
    """Node indices of the queries, [blocks, Q]; padding repeats the last."""
    keys: Tensor
    """Node indices of the keys, [blocks, K]; padding repeats the last."""
    allowed: Tensor
    """Whether a query attends to a key, [blocks, Q, K]."""
    kept: Tensor
    """Indices of the flattened queries, [blocks * Q], that are not padding."""
    biases: dict[tuple[int, torch.dtype], Tensor] = field(default_factory=dict)

    def bias(self, repeats: int, dtype: torch.dtype) -> Tensor:
        """Return the bias, [blocks, 1, repeats * Q, K]: 0 where a query attends, else -inf; the same for all layers."""
        if (repeats, dtype) not in self.biases:
            blank = torch.zeros(self.allowed.shape, dtype=dtype, device=self.allowed.device)
            blank.masked_fill_(~self.allowed, -torch.inf)
            self.biases[repeats, dtype] = blank.repeat(1, repeats, 1)[:, None]
        return self.biases[repeats, dtype]


@dataclass
class StemGroups:
    """A common beginning of blocks, and the groups of what else they attend to."""

    keys: slice | Tensor
    """Nodes of the beginning."""
    queries: slice | Tensor
    """Nodes that attend to it."""
    groups: list[Group]


class TreeAttention:
    """Attention over one pack, with gathered keys and values."""

    def __init__(self, pack: Pack, known: Callable[[int], KeysValues] | None = None, *, keep: bool = False) -> None:
        """Divide the tree into blocks.

        Args:
            pack: The tree.
            known: Returns a layer's keys and values of the pack's known nodes, in order.
            keep: Whether all keys and values are kept in `made`.
        """
        self._blocks = blocks(pack.runs)
        self._on: dict[torch.device, list[Group]] = {}
        self._cascade: tuple[list[StemGroups], list[Group]] | None = None
        self._known = known if pack.known else None
        self._keep = keep
        self.made: dict[int, KeysValues] = {}
        """Keys and values by node, for each layer; those of known nodes are reversed at the end, so -1 is the first."""

    def __call__(
        self, layer: int | None, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, softcap: float | None
    ) -> Tensor:
        """See `evenhand.inference.attention.Attention`; the batch is one row of nodes."""
        heads, shared = query.shape[1], key.shape[1]
        out = query.new_empty(query.shape[2], shared, heads // shared, value.shape[-1])
        k, v = self._all(layer, key, value)
        q = query[0].transpose(0, 1).reshape(query.shape[2], shared, heads // shared, -1)
        cascade = softcap is None and query.device.type == "cpu" and query.shape[-1] == value.shape[-1]
        if cascade and attention_support.supported():
            stemmed, groups = self._cascaded()
        else:
            stemmed, groups = [], self._groups_on(query.device)
        for group in groups:
            if group.causal and softcap is None:
                _run_alone(slice(group.first, group.first + group.queries.shape[1]), query, key, value, scaling, out)
                continue
            folded, keys, values, bias = _gathered(group, q, k, v)
            _put(group, attended(folded, keys, values, bias, scaling, softcap), out)
        for stem in stemmed:
            _attend_to_stem(stem, q, k, v, scaling, out)
        return out.flatten(1, 2)[None]

    def _all(self, layer: int | None, key: Tensor, value: Tensor) -> KeysValues:
        """Return keys and values of fed and known nodes, [nodes, key heads, width]."""
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
        """Return the groups with their tensors on a device; a model may be on several."""
        if device not in self._on:
            groups = [_group(some) for some in _alike(self._blocks)]
            there = iter(upload([t for g in groups for t in (g.queries, g.keys, g.allowed, g.kept)], device))
            fours = zip(groups, there, there, there, there, strict=True)
            self._on[device] = [Group(g.causal, g.first, q, k, allowed, kept) for g, q, k, allowed, kept in fours]
        return self._on[device]

    def _cascaded(self) -> tuple[list[StemGroups], list[Group]]:
        """Return the groups on the CPU, with long common beginnings separated."""
        if self._cascade is None:
            found, apart = stems(self._blocks)
            self._cascade = [_stem_groups(stem) for stem in found], [_group(some) for some in _alike(apart)]
        return self._cascade


def _run_alone(part: slice, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, out: Tensor) -> None:
    """Compute plain causal attention of a sequence from its first token on."""
    q, k, v = (t[:, :, part] for t in (query, key, value))
    grouped = query.shape[1] > key.shape[1]
    made = scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=grouped)
    out[part] = made[0].transpose(0, 1).reshape(out[part].shape)


def _gathered(group: Group, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gather queries, keys and values of a group's blocks, and the mask.

    Queries that share a key head are stacked: [blocks, key heads, repeats * Q, width].
    """
    folded = q[group.queries].permute(0, 2, 3, 1, 4).flatten(2, 3)
    keys, values = (t[group.keys].transpose(1, 2) for t in (k, v))
    return folded, keys, values, group.bias(q.shape[2], q.dtype)


def _put(group: Group, made: Tensor, out: Tensor) -> None:
    """Write the results of a group's queries, [blocks, key heads, repeats * Q, ...], to their nodes, [node, ...]."""
    folded = made.reshape(*made.shape[:2], out.shape[2], -1, *made.shape[3:])
    apart = folded.movedim(3, 1).flatten(0, 1)
    nodes = group.queries.flatten()
    if len(group.kept) == len(nodes):
        out[nodes] = apart
    else:
        out[nodes[group.kept]] = apart[group.kept]


def _attend_to_stem(stem: StemGroups, q: Tensor, k: Tensor, v: Tensor, scaling: float | None, out: Tensor) -> None:
    """Attend to the common beginning for all queries and to the rest per block, and merge by the sums of weights."""
    normaliser = q.new_empty(q.shape[:3], dtype=torch.promote_types(q.dtype, torch.float32))
    for group in stem.groups:
        made, sums = attention_support.attended_with_normaliser(*_gathered(group, q, k, v), scaling)
        _put(group, made, out)
        _put(group, sums, normaliser)
    folded = q[stem.queries].transpose(0, 1).flatten(1, 2)[None]
    keys, values = (t[stem.keys].transpose(0, 1)[None] for t in (k, v))
    made, sums = attention_support.attended_with_normaliser(folded, keys, values, None, scaling)
    first, first_sums = (t[0].reshape(q.shape[1], -1, q.shape[2], *t.shape[3:]).transpose(0, 1) for t in (made, sums))
    weight = torch.sigmoid(first_sums - normaliser[stem.queries])[..., None]
    out[stem.queries] = torch.lerp(out[stem.queries], first, weight.to(q.dtype))


def _stem_groups(stem: Stem) -> StemGroups:
    queries = np.sort(np.concatenate([block.queries for block in stem.blocks]))
    return StemGroups(nodes_of(stem.keys), nodes_of(queries), [_group(some) for some in _alike(stem.blocks)])


def nodes_of(indices: Indices) -> slice | Tensor:
    """Return consecutive nodes as a slice, which needs no copy, others as a tensor."""
    first, last = int(indices[0]), int(indices[-1])
    if first >= 0 and bool((np.diff(indices) == 1).all()):
        return slice(first, last + 1)
    return torch.from_numpy(indices)


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
    return Group(causal, int(queries[0, 0]), tensors[0], tensors[1], tensors[2], tensors[3])
