"""Negative log-likelihoods of continuations with gradients, and under the reference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from evenhand.inference.scoring import frozen
from evenhand.inference.tree_forward import Finish
from evenhand.training.hidden import final_hidden
from evenhand.training.packing import IGNORED, Batch, Layout, pack

ROW = 256
"""Maximum number of tokens in a row of several sequences."""
Ids = Sequence[int]


@contextmanager
def as_reference(network: Any) -> Iterator[None]:
    """Run the network without its adapter, dropout and gradients inside the block."""
    with frozen(network), network.disable_adapter():
        yield


def packed(prompts: Sequence[Ids], continuations: Sequence[Ids], layout: Layout, tokens: int) -> list[Batch]:
    """Pack sequences in which only the continuations have labels.

    Args:
        prompts: Token ids, at least one each.
        continuations: Token ids that follow, at least one each.
        layout: Layout from `evenhand.training.layout_of`.
        tokens: Maximum number of tokens in a batch.
    """
    pairs = list(zip(prompts, continuations, strict=True))
    sequences = [[*before, *after] for before, after in pairs]
    labels = [[IGNORED] * len(before) + list(after) for before, after in pairs]
    return pack(sequences, layout, labels=labels, length=ROW, tokens=tokens)


def sequence_nll(network: Any, batches: Sequence[Batch], count: int, finish: Finish) -> Tensor:
    """Compute each sequence's negative log-likelihood of its labels, in nats, summed in at least float32, [count].

    Args:
        network: A causal transformers model under an adapter.
        batches: Batches from `packed`.
        count: Number of sequences that were packed.
        finish: Function from `evenhand.training.finish_of`.
    """
    head = network.get_output_embeddings()
    device = network.get_input_embeddings().weight.device
    total: Tensor | None = None
    for batch in batches:
        batch = batch.to(device)
        hidden = final_hidden(network, **batch.inputs)[:, :-1]
        labels, owner = batch.labels[:, 1:], batch.owner[:, 1:]
        counted = labels != IGNORED
        logits = finish(head(hidden[counted]))
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        each = cross_entropy(logits, labels[counted], reduction="none")
        total = each.new_zeros(count) if total is None else total
        total = total.index_add(0, owner[counted], each)
    return torch.zeros(count, device=device) if total is None else total
