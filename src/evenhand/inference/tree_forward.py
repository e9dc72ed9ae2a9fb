"""Scoring over a tree of tokens: the same log-probabilities as one forward per sequence, from far fewer tokens.

A model runs on one row of tree nodes with explicit positions; only its attention needs to know the tree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from evenhand.inference.attention import attending
from evenhand.inference.edit_hooks import editing_rows
from evenhand.inference.edited_tokens import flags, token_ids
from evenhand.inference.prefix_trie import Pack
from evenhand.inference.requests import Request
from evenhand.inference.scoring import input_device, log_normaliser
from evenhand.inference.session_kv_cache import Kept
from evenhand.inference.transfers import download, upload
from evenhand.inference.tree_kernels import Tree, tree_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CHUNK = 256
"""Number of rows of logits in memory at once."""

CACHED = 400_000
"""Number of logits that fit into a CPU's cache."""

Finish = Callable[[Tensor], Tensor]
"""Step of a model after the output embedding: soft caps, scales."""


def score_pack(
    module: PreTrainedModel, pack: Pack, requests: Sequence[Request], finish: Finish, kept: Kept | None = None
) -> Callable[[], list[list[float]]]:
    """Run a pack, or queue it on a GPU.

    Args:
        module: The model; it must have passed the support probe (see `evenhand.inference.support_probe`).
        pack: Pack of the requests' ids, or of symbols (see `evenhand.inference.edited_tokens`).
        requests: Requests to which the pack's rows refer.
        finish: Output step found by the support probe.
        kept: Store of known nodes, in which newly read ones are kept.

    Returns:
        A function that waits for the reads of the pack's requests and returns them, in the pack's order.
    """
    wanted: dict[int, int] = {}
    slots, tokens = [], []
    for row, path in zip(pack.rows, pack.paths, strict=True):
        slot = last = -1
        for position, token in requests[row].reads:
            if position != last:  # letters are read at one position
                slot, last = wanted.setdefault(int(path[position]), len(wanted)), position
            slots.append(slot)
            tokens.append(token)
    hidden, _ = hidden_states(module, pack, list(wanted), kept, keep=kept is not None and kept.grows)
    fetch = _read(hidden, module, finish, _whole_numbers(slots), _whole_numbers(tokens))

    def values() -> list[list[float]]:
        found = iter(fetch())
        return [list(islice(found, len(requests[row].reads))) for row in pack.rows]

    return values


def hidden_states(
    module: PreTrainedModel, pack: Pack, read: Sequence[int], kept: Kept | None = None, *, keep: bool = False
) -> tuple[Tensor, Tree]:
    """Return the inputs of the output embedding at some nodes, [read, hidden], and the attention with what it kept.

    Args:
        module: The model.
        pack: Pack to feed.
        read: Nodes to read; no result depends on the others in the last MLP, which is skipped for them.
        kept: Store of the pack's known nodes, in which newly read ones are kept.
        keep: Whether the attention keeps keys and values.
    """
    places = np.array(pack.known, dtype=np.int64)
    known = None if kept is None else lambda layer: kept.read(layer, places)
    tree = tree_of(pack, known, keep=keep)
    device = input_device(module)
    here = [_whole_numbers(some) for some in (token_ids(pack.tokens), pack.positions, read)]
    ids, positions, rows = upload([here[0][None], here[1][None], here[2]], device)
    edited = editing_rows([flags(pack.tokens)])
    with attending(module, tree), only_at(rows, module), edited, caught(module.get_output_embeddings()) as seen:
        module(input_ids=ids, position_ids=positions, use_cache=False)
    if kept is not None:
        kept.keep_pack(pack, tree.made)
    return seen[0][rows.to(seen[0].device)], tree


def _whole_numbers(values: Sequence[int]) -> Tensor:
    """Make a tensor of 64-bit integers through numpy, which reads lists several times faster."""
    return torch.from_numpy(np.fromiter(values, np.int64, len(values)))


def logits_in_chunks(hidden: Tensor, module: PreTrainedModel, finish: Finish, together: int = 1) -> Iterator[Tensor]:
    """Yield final logits of rows of hidden states, about `CHUNK` rows at a time, in whole groups of `together`."""
    head: torch.nn.Module = module.get_output_embeddings()
    for rows in torch.split(hidden, max(1, CHUNK // together) * together):
        yield finish(head(rows))


def _read(
    hidden: Tensor, module: PreTrainedModel, finish: Finish, slots: Tensor, tokens: Tensor
) -> Callable[[], list[float]]:
    """Queue reading log-probabilities of tokens after rows of hidden states; return a function that fetches them."""
    order = slots.argsort(stable=True)
    slots, tokens = slots[order], tokens[order]
    chunks = -(-len(hidden) // CHUNK)
    counts = torch.bincount(slots // CHUNK, minlength=chunks).tolist()
    at, token = (torch.split(t, counts) for t in upload([slots % CHUNK, tokens], hidden.device))
    parts = []
    for rows, ids, logits in zip(at, token, logits_in_chunks(hidden, module, finish), strict=True):
        rows, ids = rows.to(logits.device), ids.to(logits.device)
        parts.append(logits[rows, ids].float() - _logsumexp(logits)[rows])
    fetch = download(torch.cat(parts))

    def values() -> list[float]:
        found: list[float] = torch.empty(len(order)).index_copy_(0, order, fetch()).tolist()
        return found

    return values


def _logsumexp(logits: Tensor) -> Tensor:
    """Return the logsumexp over the last axis, in float32; on a CPU in parts that fit into its cache."""
    rows = max(1, CACHED // logits.shape[-1]) if logits.device.type == "cpu" else len(logits)
    return torch.cat([log_normaliser(part.float()) for part in torch.split(logits, rows)])


@contextmanager
def only_at(rows: Tensor, module: PreTrainedModel) -> Iterator[None]:
    """Run only some tokens of a row through the last MLP of a model; it returns zeros for the others."""
    last = next((m for m in reversed(list(module.modules())) if type(m).__name__.endswith("MLP")), None)
    if last is None:
        yield
        return

    whole: list[Tensor] = []

    def select(_: torch.nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        whole.append(inputs[0])
        return (inputs[0][:, rows.to(inputs[0].device)], *inputs[1:])

    def spread(_: torch.nn.Module, __: tuple[Tensor, ...], made: Tensor) -> Tensor:
        return torch.zeros_like(whole.pop()).index_copy_(1, rows.to(made.device), made)

    handles = [last.register_forward_pre_hook(select), last.register_forward_hook(spread)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def caught(head: torch.nn.Module) -> Iterator[list[Tensor]]:
    """Record the inputs of the output embedding, and pass it only the last position."""
    seen: list[Tensor] = []

    def keep(_: torch.nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        seen.append(inputs[0].flatten(0, 1))
        return (inputs[0][:, -1:], *inputs[1:])

    handle = head.register_forward_pre_hook(keep)
    try:
        yield seen
    finally:
        handle.remove()
