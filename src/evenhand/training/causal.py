"""Causal language models without their logits: the hidden states before the output embedding, and their loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from evenhand.errors import SettingsError
from evenhand.inference import support_probe
from evenhand.inference.scoring import evaluating
from evenhand.inference.tree_forward import Finish, caught
from evenhand.training.losses import CHUNK, Reduction, chunked_cross_entropy

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from evenhand.training.packing import Batch


def final_hidden(module: PreTrainedModel, **inputs: Any) -> Tensor:
    """[rows, length, H]: what the output embedding is given, with gradients; logits are made of one place a row.

    Args:
        module: A causal language model of transformers, adapters included.
        inputs: What it is called with, `input_ids` [rows, length] among them.

    Raises:
        SettingsError: The model puts tokens of its own before the text, so that places cannot be told.
    """
    ids: Tensor = inputs["input_ids"]
    with caught(module.get_output_embeddings()) as seen:
        module(**{"use_cache": False, **inputs})
    if len(seen[0]) != ids.numel():
        raise SettingsError(f"{len(seen[0])} hidden states for {ids.numel()} tokens: virtual tokens are not supported")
    return seen[0].view(*ids.shape, -1)


def finish_of(module: PreTrainedModel) -> Finish:
    """What a model does to its logits after the output embedding (soft cap, scale), found by trying.

    Raises:
        SettingsError: It does something else.
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
    """The value of `module(input_ids, labels=labels).loss`, from any layout and without its logits.

    Losses that a model adds of its own accord, such as a router's, are not in it.

    Args:
        module: A causal language model of transformers, adapters included.
        batch: One of `evenhand.training.pack`.
        finish: From `finish_of`.
        chunk: Most rows of logits held at once.
        reduction: "mean" over the predicted tokens, or "sum", where several batches make one step.
    """
    hidden = final_hidden(module, **batch.inputs)
    return chunked_cross_entropy(
        hidden[:, :-1].flatten(0, 1), module.get_output_embeddings(), batch.labels[:, 1:].flatten(),
        chunk=chunk, finish=finish, reduction=reduction,
    )  # fmt: skip
