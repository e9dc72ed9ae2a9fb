"""Scoring over a tree of tokens: the same log-probabilities as one forward per sequence, from far fewer tokens.

A model runs on one row of tree nodes with explicit positions; only its attention needs to know the tree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from evenhand.inference.attention import attending
from evenhand.inference.edit_hooks import editing_rows
from evenhand.inference.edited_tokens import flags, token_ids
from evenhand.inference.prefix_trie import Pack
from evenhand.inference.requests import Request
from evenhand.inference.scoring import input_device, log_normaliser
from evenhand.inference.session_kv_cache import Kept
from evenhand.inference.tree_attention import TreeAttention

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CHUNK = 256
"""Rows of logits that are held at once."""

CACHED = 400_000
"""Logits that fit a CPU's cache."""

Finish = Callable[[Tensor], Tensor]
"""What a model does to its logits after the output embedding: soft caps, scales."""


def score_pack(
    module: PreTrainedModel, pack: Pack, requests: Sequence[Request], finish: Finish, kept: Kept | None = None
) -> list[list[float]]:
    """Reads of the pack's requests, in the pack's order.

    Args:
        module: The model; it must have been tried out (see `evenhand.inference.support_probe`).
        pack: Made of the requests' ids, or of symbols (see `evenhand.inference.edited_tokens`).
        requests: What the pack's rows number.
        finish: From trying out.
        kept: Where known nodes are, and where those that are read now go to.
    """
    wanted: dict[int, int] = {}
    slots, tokens = [], []
    for row, path in zip(pack.rows, pack.paths, strict=True):
        for position, token in requests[row].reads:
            slots.append(wanted.setdefault(int(path[position]), len(wanted)))
            tokens.append(token)
    hidden, _ = hidden_states(module, pack, list(wanted), kept, keep=kept is not None)
    values = iter(_read(hidden, module, finish, torch.tensor(slots), torch.tensor(tokens)))
    return [[next(values) for _ in requests[row].reads] for row in pack.rows]


def hidden_states(
    module: PreTrainedModel, pack: Pack, read: Sequence[int], kept: Kept | None = None, *, keep: bool = False
) -> tuple[Tensor, TreeAttention]:
    """What the output embedding is given at some nodes, [read, hidden], and the attention with what it kept.

    Args:
        module: The model.
        pack: What is fed.
        read: The nodes asked for; nothing hangs on the others' way through the last MLP, and it is left out.
        kept: Where the pack's known nodes are; what is read goes there, too.
        keep: Whether keys and values stay in the attention.
    """
    places = list(pack.known)
    known = None if kept is None else lambda layer: kept.read(layer, places)
    tree = TreeAttention(pack, known, keep=keep)
    device = input_device(module)
    ids, positions = (torch.tensor([row], device=device) for row in (token_ids(pack.tokens), pack.positions))
    rows = torch.tensor(read, device=device)
    edited = editing_rows([flags(pack.tokens)])
    with attending(module, tree), only_at(rows, module), edited, caught(module.get_output_embeddings()) as seen:
        module(input_ids=ids, position_ids=positions, use_cache=False)
    if kept is not None:
        kept.keep_pack(pack, tree.made)
    return seen[0][rows.to(seen[0].device)], tree


def logits_in_chunks(hidden: Tensor, module: PreTrainedModel, finish: Finish, together: int = 1) -> Iterator[Tensor]:
    """Finished logits of rows of hidden states, about `CHUNK` rows at a time, whole groups of `together`."""
    head: torch.nn.Module = module.get_output_embeddings()
    for rows in torch.split(hidden, max(1, CHUNK // together) * together):
        yield finish(head(rows))


def _read(hidden: Tensor, module: PreTrainedModel, finish: Finish, slots: Tensor, tokens: Tensor) -> list[float]:
    """Log-probabilities of tokens after rows of hidden states."""
    out = torch.empty(len(slots))
    for n, logits in enumerate(logits_in_chunks(hidden, module, finish)):
        start = n * CHUNK
        mine = torch.nonzero((slots >= start) & (slots < start + CHUNK)).flatten()
        at, token = (slots[mine] - start).to(logits.device), tokens[mine].to(logits.device)
        out[mine] = (logits[at, token].float() - _logsumexp(logits)[at]).cpu()
    found: list[float] = out.tolist()
    return found


def _logsumexp(logits: Tensor) -> Tensor:
    """Over the last axis, in float32; on a CPU of so few rows at a time that they stay in its cache."""
    rows = max(1, CACHED // logits.shape[-1]) if logits.device.type == "cpu" else len(logits)
    return torch.cat([log_normaliser(part.float()) for part in torch.split(logits, rows)])


@contextmanager
def only_at(rows: Tensor, module: PreTrainedModel) -> Iterator[None]:
    """Let some tokens of a row through the last MLP of a model; of the others it gives zeros."""
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
    """Keep the hidden states that the output embedding is given, and give it only the last of them."""
    seen: list[Tensor] = []

    def keep(_: torch.nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        seen.append(inputs[0].flatten(0, 1))
        return (inputs[0][:, -1:], *inputs[1:])

    handle = head.register_forward_pre_hook(keep)
    try:
        yield seen
    finally:
        handle.remove()
