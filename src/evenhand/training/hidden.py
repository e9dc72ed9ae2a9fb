"""The hidden states of a causal language model before its output embedding, without its logits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from evenhand.errors import SettingsError
from evenhand.inference.tree_forward import caught

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def final_hidden(module: PreTrainedModel, **inputs: Any) -> Tensor:
    """[rows, length, H]: the input of the output embedding, with gradients; logits are made of one place a row.

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
