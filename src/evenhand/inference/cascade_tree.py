"""Attention over a tree in two parts: over the path before a run and within the run, merged by log-sum-exp.

Both parts are FlashAttention over sequences of unequal length, without a mask or padding. Runs that branch off one node
have the same path, whose keys are gathered once for all of them; within a run the nodes are consecutive and nothing is
gathered.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from evenhand.inference.prefix_trie import NONE, Indices, Pack, Run
from evenhand.inference.transfers import upload
from evenhand.inference.tree_attention import KeysValues, TreeAttention

HALF = (torch.bfloat16, torch.float16)
"""Data types of FlashAttention."""


class Parts(NamedTuple):
    """Node indices of both parts on a device; offsets are int32 and begin with 0."""

    runs: Tensor
    """Start of each run, [runs + 1]."""
    queries: Tensor
    """Nodes of all runs that branch off another node, grouped by that node."""
    query_starts: Tensor
    """Start of each parent's queries, [parents + 1]."""
    keys: Tensor
    """Paths to the parents, concatenated."""
    key_starts: Tensor
    """Start of each path, [parents + 1]."""


class CascadeTree:
    """Attention over one pack in two parts; see `evenhand.inference.tree_attention.TreeAttention`."""

    def __init__(self, pack: Pack, *, keep: bool = False) -> None:
        """Group the runs by the node that they branch off.

        Args:
            pack: The tree, without known nodes.
            keep: Whether all keys and values are kept in `made`.
        """
        self._pack, self._keep = pack, keep
        self._gathered: TreeAttention | None = None
        self._host, self._longest = _parts(pack.runs)
        self._on: dict[torch.device, Parts] = {}
        self.made: dict[int, KeysValues] = {}
        """Keys and values by node, for each layer."""

    def __call__(
        self, layer: int | None, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, softcap: float | None
    ) -> Tensor:
        """See `evenhand.inference.attention.Attention`; cases FlashAttention does not support are gathered."""
        q, k, v = (t[0].transpose(0, 1) for t in (query, key, value))
        if self._keep:
            if layer is None:
                raise NotImplementedError("its layers have no numbers")
            self.made[layer] = k, v
        if softcap is not None or not supported(query) or v.shape[-1] != q.shape[-1]:
            self._gathered = self._gathered or TreeAttention(self._pack)
            return self._gathered(layer, query, key, value, scaling, softcap)
        parts, (run, queries, path) = self._parts_on(query.device), self._longest
        out, weight = flash(q, k, v, (parts.runs, parts.runs), (run, run), scaling, causal=True)
        if len(parts.queries):
            starts = parts.query_starts, parts.key_starts
            before = k[parts.keys], v[parts.keys]
            other = flash(q[parts.queries], *before, starts, (queries, path), scaling, causal=False)
            rows = parts.queries
            out[rows] = merged((out[rows], weight[:, rows]), other)
        return out[None]

    def _parts_on(self, device: torch.device) -> Parts:
        if device not in self._on:
            self._on[device] = Parts(*upload(self._host, device))
        return self._on[device]


def _parts(runs: list[Run]) -> tuple[Parts, tuple[int, int, int]]:
    """Return the indices on the host, and the maxima of nodes per run, queries per parent and keys per path."""
    children: dict[int, list[Run]] = defaultdict(list)
    for run in runs:
        if run.depth:
            children[int(run.path[run.depth - 1])].append(run)
    queries = [np.concatenate([run.own for run in some]) for some in children.values()]
    keys = [some[0].path[: some[0].depth] for some in children.values()]
    own = [len(run.own) for run in runs]
    parts = Parts(_starts(own), _joined(queries), _starts(map(len, queries)), _joined(keys), _starts(map(len, keys)))
    return parts, (max(own), max(map(len, queries), default=0), max(map(len, keys), default=0))


def _joined(parts: Sequence[Indices]) -> Tensor:
    return torch.from_numpy(np.concatenate([NONE, *parts]))


def _starts(lengths: Iterable[int]) -> Tensor:
    return torch.from_numpy(np.cumsum([0, *lengths]).astype(np.int32))


def supported(query: Tensor) -> bool:
    """Return whether FlashAttention supports queries of this kind."""
    return query.device.type == "cuda" and query.dtype in HALF and query.shape[-1] <= 256


def merged(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> Tensor:
    """Merge attention over two sets of keys into attention over both.

    Args:
        one: Outputs over one set, [queries, heads, width], and the log of the sum of exp of the products, [heads,
        queries], float32.
        other: The same over the other keys.
    """
    share = torch.sigmoid(one[1] - other[1]).transpose(0, 1)[..., None]
    return (one[0] * share + other[0] * (1 - share)).to(one[0].dtype)


def flash(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    starts: tuple[Tensor, Tensor],
    longest: tuple[int, int],
    scaling: float | None,
    *,
    causal: bool,
) -> tuple[Tensor, Tensor]:
    """Compute FlashAttention over sequences of unequal length.

    Args:
        q: [queries, heads, width].
        k: [keys, key heads, width].
        v: The same shape.
        starts: Start of each sequence in the queries and in the keys, int32, with the end.
        longest: Maximum number of queries and of keys in a sequence.
        scaling: Factor on the products; None is 1 / sqrt(width).
        causal: Whether a query attends to the keys up to its own position only.

    Returns:
        Outputs, [queries, heads, width], and the log of the sum of exp of the products, [heads, queries], float32.
    """
    made, weight, *_ = torch.ops.aten._flash_attention_forward(
        q, k, v, *starts, *longest, 0.0, causal, False, scale=scaling
    )
    return made, weight
