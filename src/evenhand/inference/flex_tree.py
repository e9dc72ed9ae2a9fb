"""Attention over a tree by FlexAttention: no key is gathered, and blocks that no path crosses are skipped.

Nodes are numbered in the order in which their sequences are sorted, so that the descendants of a node follow it
directly: query q attends to key k exactly if k <= q < end(k). Which blocks of 128 queries and 128 keys contain such a
pair is determined on the host, from the largest and smallest end of each block of keys.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evenhand.inference.prefix_trie import Indices, Pack
from evenhand.inference.transfers import upload
from evenhand.inference.tree_attention import KeysValues

BLOCK = 128
"""Number of queries and of keys in a block."""


class Layout(NamedTuple):
    """Which blocks of keys each block of queries attends to."""

    counts: NDArray[np.int32]
    """Number of key blocks that are attended to in part, [blocks]."""
    indices: NDArray[np.int32]
    """Indices of these blocks first, [blocks, blocks]; the rest is not used."""
    full_counts: NDArray[np.int32]
    """Number of key blocks that are attended to entirely, [blocks]; no mask is computed for them."""
    full_indices: NDArray[np.int32]


class FlexTree:
    """Attention over one pack by FlexAttention; see `evenhand.inference.tree_attention.TreeAttention`."""

    def __init__(self, pack: Pack, *, keep: bool = False) -> None:
        """Determine the blocks.

        Args:
            pack: The tree, without known nodes.
            keep: Whether all keys and values are kept in `made`.
        """
        ends = subtree_ends(pack)
        self._nodes = len(ends)
        self._host = [torch.from_numpy(a) for a in (ends, *layout(ends))]
        self._masks: dict[torch.device, Any] = {}
        self._keep = keep
        self.made: dict[int, KeysValues] = {}
        """Keys and values by node, for each layer."""

    def __call__(
        self, layer: int | None, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, softcap: float | None
    ) -> Tensor:
        """See `evenhand.inference.attention.Attention`; the batch is one row of nodes."""
        if self._keep:
            if layer is None:
                raise NotImplementedError("its layers have no numbers")
            self.made[layer] = key[0].transpose(0, 1), value[0].transpose(0, 1)
        made: Tensor = _flex(query.device.type)(
            query,
            key,
            value,
            score_mod=None if softcap is None else _capped(softcap),
            block_mask=self._mask_on(query.device),
            scale=scaling,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        return made.transpose(1, 2)

    def _mask_on(self, device: torch.device) -> Any:
        """Return the block mask on a device; a model may be on several."""
        if device not in self._masks:
            ends, *blocks = upload(self._host, device)
            self._masks[device] = block_mask(ends, *(t[None, None] for t in blocks), nodes=self._nodes)
        return self._masks[device]


def subtree_ends(pack: Pack) -> Indices:
    """Return for each node the first node after its descendants, which are consecutive."""
    ends = np.arange(1, len(pack.tokens) + 1)
    for run in pack.runs:  # in node order, so that the last run through a node counts
        ends[run.path] = run.path[-1] + 1
    return ends


def layout(ends: Indices) -> Layout:
    """Determine which blocks are attended to in part and which entirely, from the ends of all subtrees."""
    count = -(-len(ends) // BLOCK)
    padded = np.pad(ends, (0, count * BLOCK - len(ends))).reshape(count, BLOCK)
    starts = np.arange(count)[:, None] * BLOCK
    before = np.arange(count)[None] < np.arange(count)[:, None]
    # a block of keys before that of the queries: the longest subtree reaches them, or the shortest covers them
    touched = before & (padded.max(1)[None] > starts)
    full = before & (padded.min(1)[None] >= np.minimum(starts + BLOCK, len(ends)))
    part = (touched & ~full) | np.eye(count, dtype=bool)
    return Layout(*_listed(part), *_listed(full))


def _listed(chosen: NDArray[np.bool_]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return for each row the number of chosen blocks, and their indices followed by the others."""
    return chosen.sum(1).astype(np.int32), np.argsort(~chosen, axis=1, kind="stable").astype(np.int32)


def block_mask(
    ends: Tensor, counts: Tensor, indices: Tensor, full_counts: Tensor, full_indices: Tensor, *, nodes: int
) -> Any:
    """Make the BlockMask of a tree.

    Args:
        ends: Result of `subtree_ends`, [nodes].
        counts: Counts from `layout`, [1, 1, blocks].
        indices: Indices from `layout`, [1, 1, blocks, blocks].
        full_counts: Full counts from `layout`, [1, 1, blocks].
        full_indices: Full indices from `layout`, [1, 1, blocks, blocks].
        nodes: Number of nodes.
    """
    from torch.nn.attention.flex_attention import BlockMask  # importing it takes a second

    def attends(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (query < ends[key])

    return BlockMask.from_kv_blocks(
        counts,
        indices,
        full_counts,
        full_indices,
        BLOCK_SIZE=BLOCK,
        mask_mod=attends,
        seq_lengths=(nodes, nodes),
        compute_q_blocks=False,  # only a backward pass needs them
    )


def _capped(softcap: float) -> Callable[..., Tensor]:
    def cap(score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return torch.tanh(score / softcap) * softcap

    return cap


@cache
def _flex(device_type: str) -> Any:
    """Return FlexAttention, compiled on a GPU; on a CPU uncompiled, with all products in memory.

    It is compiled for the first length and then once for all others. With `dynamic=True` it would be compiled once
    only, but the scale and the soft cap would become inputs as well, with which it cannot be compiled.
    """
    from torch.nn.attention.flex_attention import flex_attention

    return flex_attention if device_type == "cpu" else torch.compile(flex_attention)
