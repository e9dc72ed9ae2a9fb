"""Attention over rows of tries, computed in parts, so that pairs that do not attend to each other are left out.

A part consists of some tokens and some of the keys that they attend to: those of a long shared prefix, which all of its
continuations attend to at once, or those of a block of runs. Parts over the same tokens are merged by the normalisers
of their weights. The backward pass uses the merged normalisers for each part, which is exact: a weight depends on the
other keys through its normaliser only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import scaled_dot_product_attention

from evenhand.inference.attention_support import FAILURES, attended_with_normaliser
from evenhand.inference.blocks import Block, blocks
from evenhand.inference.prefix_trie import Indices, Pack
from evenhand.inference.stems import stems
from evenhand.inference.tree_attention import nodes_of

PART_CELLS = 5000
"""Fixed cost of a part, as the attention cells that take as long; measured with SmolLM-135M on a CPU."""


@dataclass
class Part:
    """Tokens of a row, and keys that they attend to."""

    row: int
    queries: slice | Tensor
    keys: slice | Tensor
    cells: int
    """Number of products computed per head."""
    causal: bool = False
    """Whether the keys are the queries, each of which attends to itself and those before it."""
    allowed: Tensor | None = None
    """[queries, keys] whether a query attends to a key; None if all do, or if `causal`."""
    merged: bool = False
    """Whether an earlier part has the same queries and other keys."""
    biases: dict[torch.dtype, Tensor] = field(default_factory=dict)

    def bias(self, dtype: torch.dtype) -> Tensor | None:
        """Return the mask, [1, 1, queries, keys]: 0 where a query attends, else -inf; made once for all layers."""
        if self.allowed is None:
            return None
        if dtype not in self.biases:
            blank = torch.zeros(self.allowed.shape, dtype=dtype)
            self.biases[dtype] = blank.masked_fill_(~self.allowed, -torch.inf)[None, None]
        return self.biases[dtype]


def parts_of(rows: Sequence[Sequence[Pack]], length: int) -> list[Part]:
    """Return the parts of rows of tries; none if a mask over whole rows is likely to be faster.

    Args:
        rows: The tries of each row, one after the other.
        length: Tokens in each row, padding included, which is in no part.
    """
    found: list[Part] = []
    for r, row in enumerate(rows):
        start = 0
        for trie in row:
            found += _parts(r, [_moved(block, start) for block in blocks(trie.runs)])
            start += len(trie.tokens)
    cost = sum(part.cells for part in found) + PART_CELLS * len(found)
    return found if cost < len(rows) * length**2 else []


def _moved(block: Block, start: int) -> Block:
    return replace(block, queries=block.queries + start, keys=block.keys + start)


def _parts(row: int, found: Sequence[Block]) -> Iterator[Part]:
    """Yield the parts of a trie: each block by itself, then the prefixes that several share."""
    stemmed, apart = stems(found)
    for block in [*apart, *(block for stem in stemmed for block in stem.blocks)]:
        yield _own(row, block)
    for stem in stemmed:
        queries: Indices = np.sort(np.concatenate([block.queries for block in stem.blocks]))
        cells = len(queries) * len(stem.keys)
        yield Part(row, nodes_of(queries), nodes_of(stem.keys), cells, merged=True)


def _own(row: int, block: Block) -> Part:
    queries, keys, cells = nodes_of(block.queries), nodes_of(block.keys), len(block.queries) * len(block.keys)
    if block.straight:
        return Part(row, queries, keys, (cells + len(block.queries)) // 2, causal=True)
    return Part(row, queries, keys, cells, allowed=torch.from_numpy(block.allowed))


def attended_by_parts(
    query: Tensor, key: Tensor, value: Tensor, parts: Sequence[Part], scaling: float | None = None
) -> Tensor:
    """Compute attention with gradients, on a CPU.

    Args:
        query: [rows, heads, length, width].
        key: The same shape.
        value: The same shape.
        parts: From `parts_of`.
        scaling: Factor on the products; None is 1 / sqrt(width).

    Returns:
        The same shape; 0 for tokens that are in no part.
    """
    made: Tensor = _Attended.apply(parts, scaling, query, key, value)  # type: ignore[no-untyped-call]
    return made


class _Given(NamedTuple):
    """Arguments of a kernel for one part."""

    q: Tensor
    k: Tensor
    v: Tensor
    bias: Tensor | None


def _given(part: Part, query: Tensor, key: Tensor, value: Tensor) -> _Given:
    q, k, v = _at(query, part.row, part.queries), _at(key, part.row, part.keys), _at(value, part.row, part.keys)
    return _Given(q, k, v, part.bias(query.dtype))


def _at(table: Tensor, row: int, places: slice | Tensor) -> Tensor:
    """Return [1, heads, places, ...] of one row of a table [rows, heads, length, ...]."""
    return table[row, :, places][None]


class _Attended(torch.autograd.Function):
    """Attention that stores what a kernel over whole rows would store: arguments, result and normalisers."""

    @staticmethod
    def forward(
        ctx: Any, parts: Iterable[Part], scaling: float | None, query: Tensor, key: Tensor, value: Tensor
    ) -> Tensor:
        out = torch.zeros_like(query, memory_format=torch.contiguous_format)
        sums = out.new_full(out.shape[:3], -torch.inf, dtype=torch.promote_types(out.dtype, torch.float32))
        for part in parts:
            q, k, v, bias = _given(part, query, key, value)
            made, weight = attended_with_normaliser(q, k, v, bias, scaling, causal=part.causal)
            if part.merged:
                before, others = _at(out, part.row, part.queries), _at(sums, part.row, part.queries)
                made = torch.lerp(before, made, torch.sigmoid(weight - others)[..., None].to(made.dtype))
                weight = torch.logaddexp(weight, others)
            out[part.row, :, part.queries], sums[part.row, :, part.queries] = made[0], weight[0]
        ctx.parts, ctx.scaling = parts, scaling
        ctx.save_for_backward(query, key, value, out, sums)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        *given, out, sums = ctx.saved_tensors
        found = [torch.zeros_like(t, memory_format=torch.contiguous_format) for t in given]
        for part in ctx.parts:
            q, k, v, bias = _given(part, *given)
            upon = (_at(t, part.row, part.queries) for t in (above, out, sums))
            grad, made, weight = (t.contiguous() for t in upon)
            gradients = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
                grad, q, k, v, made, weight, 0.0, part.causal, attn_mask=bias, scale=ctx.scaling
            )
            for total, more, places in zip(found, gradients, (part.queries, part.keys, part.keys), strict=True):
                total[part.row, :, places] += more[0]
        return (None, None, *found)


@cache
def supported() -> bool:
    """Whether this version of torch has the kernels, and parts give what a mask gives, gradients included."""
    generator = torch.Generator().manual_seed(0)
    given = [torch.randn(1, 2, 6, 8, generator=generator, requires_grad=True) for _ in range(3)]
    above = torch.randn(1, 2, 6, 8, generator=generator)
    seen = torch.ones(6, 6, dtype=torch.bool).tril()
    seen[5, 3:5] = False
    parts = [
        Part(0, slice(0, 3), slice(0, 3), 9, causal=True),
        Part(0, slice(3, 6), slice(3, 6), 9, allowed=seen[3:, 3:]),
        Part(0, slice(3, 6), slice(0, 3), 9, merged=True),
    ]
    try:
        with torch.enable_grad():
            q, k, v = given
            ways = [attended_by_parts(q, k, v, parts, 0.5), scaled_dot_product_attention(q, k, v, seen, scale=0.5)]
            found, expected = ([made, *torch.autograd.grad(made, given, above)] for made in ways)
    except FAILURES:
        return False
    return all(torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(found, expected, strict=True))
