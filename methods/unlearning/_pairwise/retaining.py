"""Losses that preserve a model's predictions on other texts: cross-entropy, and divergence from the reference."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from evenhand.inference.tree_forward import Finish
from evenhand.methods.unlearning._pairwise.objective import KlForm
from evenhand.methods.unlearning._pairwise.sequence_nll import as_reference
from evenhand.training.hidden import final_hidden
from evenhand.training.losses import chunked_cross_entropy, chunked_kl, chunked_sum
from evenhand.training.packing import IGNORED, Batch


def retain_losses(
    network: Any, batch: Batch, finish: Finish, wanted: tuple[str, ...], form: KlForm
) -> dict[str, Tensor]:
    """Compute the losses on a batch of texts, summed over its predicted tokens.

    Args:
        network: Network under an adapter; without the adapter it is the reference.
        batch: Batch from `evenhand.training.packing.pack`.
        finish: Function from `evenhand.training.finish_of`.
        wanted: "retain_lm", "retain_kl", or both.
        form: "kl" is KL(reference || network); "cross_entropy" leaves out the reference's entropy: the same gradient,
            but not 0 at the beginning.
    """
    batch = batch.to(network.get_input_embeddings().weight.device)
    labels = batch.labels[:, 1:]
    counted = labels != IGNORED
    theirs = None
    if "retain_kl" in wanted:  # comes first, as PEFT turns the adapter's gradients off and on
        with as_reference(network):
            theirs = final_hidden(network, **batch.inputs)[:, :-1][counted]
    mine = final_hidden(network, **batch.inputs)[:, :-1][counted]
    head = network.get_output_embeddings()
    found = {}
    if "retain_lm" in wanted:
        found["retain_lm"] = chunked_cross_entropy(mine, head, labels[counted], finish=finish, reduction="sum")
    if theirs is not None:
        divergence = kl_from_reference if form == "kl" else cross_entropy_with_reference
        found["retain_kl"] = divergence(mine, theirs, head, finish)
    return found


def kl_from_reference(mine: Tensor, theirs: Tensor, head: Any, finish: Finish) -> Tensor:
    """Sum KL(reference || network) over rows of hidden states [rows, H], in nats; it is 0 if both are equal."""
    return chunked_kl(mine, head, theirs, head, finish=finish, teacher_finish=finish, reduction="sum")


def cross_entropy_with_reference(mine: Tensor, theirs: Tensor, head: Any, finish: Finish) -> Tensor:
    """Sum -sum p_reference log p_network over rows, which BiasUnlearn's released code calls its KL."""

    def loss_of(logits: Tensor, rows: slice) -> Tensor:
        with torch.no_grad():
            given = torch.softmax(finish(head(theirs[rows])).to(logits.dtype), dim=-1)
        return -(given * torch.log_softmax(logits, dim=-1)).sum()

    return chunked_sum(mine, head, loss_of, finish=finish)
