"""Attention over a tree of tokens: every node attends to its ancestors and to itself.

transformers looks attention functions up by name. Ours gathers the keys and values of each run's path, so that runs
that hang on one prefix see it without its being fed again. Everything else of the model runs on the flat row of nodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface

from evenhand.engine.trie import Pack, Run

NAME = "evenhand_tree"
WASTE = 1.3
"""A group of runs is padded to at most this many times its own attention cells."""
KEYS = 32_768
"""Most gathered keys of a group; bounds the memory."""


@dataclass
class Group:
    """Runs of about the same size, padded to [runs, queries] and [runs, keys]."""

    causal: bool
    """A single sequence from its first token on: neither gathering nor a mask is needed."""
    queries: Tensor
    """[runs, Q] node indices; padding repeats the last."""
    keys: Tensor
    """[runs, K] node indices of the paths; padding repeats the last."""
    allowed: Tensor
    """[runs, Q, K] whether a query attends to a key."""
    kept: Tensor
    """Which of the flattened [runs * Q] queries are none of the padding."""
    biases: dict[tuple[int, torch.dtype], Tensor] = field(default_factory=dict)

    def to(self, device: torch.device) -> Group:
        """The same on a device."""
        queries, keys, allowed, kept = (t.to(device) for t in (self.queries, self.keys, self.allowed, self.kept))
        return Group(self.causal, queries, keys, allowed, kept)

    def bias(self, repeats: int, dtype: torch.dtype) -> Tensor:
        """[runs, 1, repeats * Q, K]: 0 where a query attends and -inf elsewhere; the same for all layers."""
        if (repeats, dtype) not in self.biases:
            blank = torch.zeros(self.allowed.shape, dtype=dtype, device=self.allowed.device)
            blank.masked_fill_(~self.allowed, -torch.inf)
            self.biases[repeats, dtype] = blank.repeat(1, repeats, 1)[:, None]
        return self.biases[repeats, dtype]


class Plan:
    """How one pack is attended to."""

    def __init__(self, pack: Pack) -> None:
        """Sort the runs into groups."""
        self._groups = [_group(runs) for runs in _alike(pack.runs)]
        self._on: dict[torch.device, list[Group]] = {}

    def groups(self, device: torch.device) -> list[Group]:
        """The groups with their tensors on a device; a model may lie on several."""
        if device not in self._on:
            self._on[device] = [g.to(device) for g in self._groups]
        return self._on[device]


def _alike(runs: Sequence[Run]) -> Iterator[list[Run]]:
    group: list[Run] = []
    cells = 0
    widest = 0
    for run in sorted(runs, key=lambda r: (len(r.own), len(r.path))):
        more, count, widest = len(run.own) * len(run.path), len(group) + 1, max(widest, len(run.path))
        if group and (count * len(run.own) * widest > WASTE * (cells + more) or count * widest > KEYS):
            yield group
            group, cells, widest = [], 0, len(run.path)
        group.append(run)
        cells += more
    if group:
        yield group


def _group(runs: Sequence[Run]) -> Group:
    longest, widest = max(len(r.own) for r in runs), max(len(r.path) for r in runs)
    queries = np.stack([np.pad(r.own, (0, longest - len(r.own)), mode="edge") for r in runs])
    keys = np.stack([np.pad(r.path, (0, widest - len(r.path)), mode="edge") for r in runs])
    depth = np.array([r.depth for r in runs])[:, None, None]
    allowed = np.arange(widest)[None, None] <= depth + np.arange(longest)[None, :, None]
    allowed &= np.arange(widest)[None, None] < np.array([len(r.path) for r in runs])[:, None, None]
    kept = np.flatnonzero(np.arange(longest)[None] < np.array([len(r.own) for r in runs])[:, None])
    causal = len(runs) == 1 and runs[0].depth == 0
    tensors = [torch.from_numpy(a) for a in (queries, keys, allowed, kept)]
    return Group(causal, tensors[0], tensors[1], tensors[2], tensors[3])


_ACTIVE: ContextVar[Plan] = ContextVar("tree attention")


@contextmanager
def tree_attention(module: torch.nn.Module, plan: Plan) -> Iterator[None]:
    """Let all attention of a model follow a plan; it is put back as it was afterwards."""
    configs = _configs(module)
    before = {key: config._attn_implementation for key, config in configs.items()}
    token = _ACTIVE.set(plan)
    for config in configs.values():
        config._attn_implementation = NAME
    try:
        yield
    finally:
        for key, config in configs.items():
            config._attn_implementation = before[key]
        _ACTIVE.reset(token)


def _configs(module: torch.nn.Module) -> dict[int, Any]:
    """The configs that the layers look their attention up in, each once."""
    found: list[Any] = [getattr(m, "config", None) for m in module.modules()]
    return {id(config): config for config in found if hasattr(config, "_attn_implementation")}


def attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """The attention function that transformers calls in every layer.

    Args:
        module: The layer; not used.
        query: [1, heads, nodes, width].
        key: [1, key heads, nodes, width], with positions already turned in.
        value: The same shape as `key`.
        attention_mask: Not used; the tree says who attends to whom.
        scaling: Factor on the products; None is 1 / sqrt(width).
        softcap: Cap of the products (Gemma 2).

    Returns:
        [1, nodes, heads, width], and no weights.
    """
    heads, shared = query.shape[1], key.shape[1]
    repeats = heads // shared
    out = query.new_empty(query.shape[2], heads, value.shape[-1])
    k, v = key[0].transpose(0, 1), value[0].transpose(0, 1)  # [nodes, key heads, width]
    q = query[0].transpose(0, 1).reshape(query.shape[2], shared, repeats, -1)
    for group in _ACTIVE.get().groups(query.device):
        if group.causal and softcap is None:
            start, length = int(group.queries[0, 0]), group.queries.shape[1]
            part = slice(start, start + length)
            made = scaled_dot_product_attention(
                query[:, :, part], key[:, :, part], value[:, :, part], is_causal=True, scale=scaling,
                enable_gqa=repeats > 1,
            )  # fmt: skip
            out[part] = made[0].transpose(0, 1)
            continue
        # the queries that share a key head stand one below the other: [runs, key heads, repeats * Q, width]
        folded = q[group.queries].permute(0, 2, 3, 1, 4).flatten(2, 3)
        keys, values = (t[group.keys].transpose(1, 2) for t in (k, v))
        bias = group.bias(repeats, query.dtype)
        made = _attended(folded, keys, values, bias, scaling, softcap)
        apart = made.reshape(*made.shape[:2], repeats, -1, made.shape[-1])
        flat = apart.permute(0, 3, 1, 2, 4).flatten(0, 1).flatten(1, 2)
        out[group.queries.flatten()[group.kept]] = flat[group.kept]
    return out[None], None


def _attended(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scaling: float | None, softcap: float | None) -> Tensor:
    if softcap is None:
        return scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scaling)
    scores = q @ k.transpose(-1, -2) * (q.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = torch.tanh(scores / softcap) * softcap + bias
    return torch.softmax(scores, dim=-1, dtype=torch.float32).to(q.dtype) @ v


def _no_mask(*_: Any, **__: Any) -> None:
    """No mask is built: positions that begin anew would be taken for packed sequences."""


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, _no_mask)
