"""The loss of causal language models, from the hidden states before the output embedding instead of all logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from evenhand.errors import SettingsError
from evenhand.inference import support_probe
from evenhand.inference.scoring import evaluating
from evenhand.inference.tree_forward import Finish
from evenhand.training.hidden import NODES, fed_hidden, final_hidden
from evenhand.training.losses import CHUNK, Reduction, chunked_cross_entropy, chunked_repeated_cross_entropy
from evenhand.training.packing import IGNORED, Batch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def finish_of(module: PreTrainedModel) -> Finish:
    """Find out by a probe what a model does to its logits after the output embedding (soft cap, scale).

    Raises:
        SettingsError: The model does something else to them.
    """
    words = int(module.config.get_text_config().vocab_size)
    with evaluating(module):
        finish = support_probe.finish_of(
            module, *support_probe.plain_forward(module, [token % words for token in support_probe.PROBE[0]])
        )
    if finish is None:
        raise SettingsError(
            f"{type(module).__name__} changes its logits in a way that is not known (neither a soft cap nor a scale of "
            "its configuration); take the loss of module(labels=...) instead"
        )
    return finish


def causal_lm_loss(
    module: PreTrainedModel, batch: Batch, *, finish: Finish, chunk: int = CHUNK, reduction: Reduction = "mean"
) -> Tensor:
    """Return the value of `module(input_ids, labels=labels).loss`, for any layout and without holding all logits.

    Losses that a model adds itself, such as a router's, are not included.

    Args:
        module: A causal language model of transformers, adapters included.
        batch: From `evenhand.training.pack`.
        finish: From `finish_of`.
        chunk: Maximum number of rows of logits in memory at once.
        reduction: "mean" over the predicted tokens, or "sum", for steps of several batches.
    """
    if NODES in batch.inputs:
        return _shared_loss(module, batch, finish, chunk, reduction)
    hidden = final_hidden(module, **batch.inputs)
    return chunked_cross_entropy(
        hidden[:, :-1].flatten(0, 1),
        module.get_output_embeddings(),
        batch.labels[:, 1:].flatten(),
        chunk=chunk,
        finish=finish,
        reduction=reduction,
    )


def _shared_loss(module: PreTrainedModel, batch: Batch, finish: Finish, chunk: int, reduction: Reduction) -> Tensor:
    """Return the loss over a trie; a token that several sequences share is predicted once and counted for each."""
    counted = batch.labels[0, 1:] != IGNORED
    nodes, targets = batch.inputs[NODES][0, :-1][counted], batch.labels[0, 1:][counted]
    # sorted by node
    pairs, counts = torch.stack([nodes, targets]).unique(dim=1, return_counts=True)  # type: ignore[no-untyped-call]
    read, rows = pairs[0].unique(return_inverse=True)
    hidden = fed_hidden(module, batch.inputs)
    return chunked_repeated_cross_entropy(
        hidden[read.to(hidden.device)],
        module.get_output_embeddings(),
        rows,
        pairs[1],
        counts,
        chunk=chunk,
        finish=finish,
        reduction=reduction,
    )
