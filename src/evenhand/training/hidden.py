"""The hidden states of a causal language model before its output embedding, without its logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from evenhand.errors import SettingsError
from evenhand.inference.tree_forward import caught

if TYPE_CHECKING:
    from transformers import PreTrainedModel


NODES = "nodes"
"""Key among the inputs of a batch that shares prefixes: [1, n] index of the fed token that each token stands for."""


def final_hidden(module: PreTrainedModel, **inputs: Any) -> Tensor:
    """Return the input of the output embedding, [rows, length, H], with gradients; only one place per row gets logits.

    Args:
        module: A causal language model of transformers, adapters included.
        inputs: Arguments of the module, `input_ids` [rows, length] among them. With `NODES` [1, n], which is not passed
            to the module, the states are [1, n, H]: that of a fed token for each place that it stands for.

    Raises:
        SettingsError: The model puts virtual tokens before the text, so that places cannot be identified.
    """
    nodes: Tensor | None = inputs.pop(NODES, None)
    states = fed_hidden(module, inputs)
    return states.view(*inputs["input_ids"].shape, -1) if nodes is None else states[nodes.to(states.device)]


def fed_hidden(module: PreTrainedModel, inputs: Mapping[str, Any]) -> Tensor:
    """Return the states of the tokens as they are fed, [rows * length, H]; see `final_hidden`."""
    given = {name: _as_dtype(value, module.dtype) for name, value in inputs.items() if name != NODES}
    with caught(module.get_output_embeddings()) as seen:
        module(**{"use_cache": False, **given})
    count = inputs["input_ids"].numel()
    if len(seen[0]) != count:
        raise SettingsError(f"{len(seen[0])} hidden states for {count} tokens: virtual tokens are not supported")
    return seen[0]


def _as_dtype(value: Any, dtype: torch.dtype) -> Any:
    """Cast a mask to a model's dtype, and only a mask: torch 2.13 computes wrong attention with another dtype."""
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value
