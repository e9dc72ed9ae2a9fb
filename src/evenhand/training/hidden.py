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
"""Among the inputs of a batch that shares beginnings: [1, n] which of the tokens that are fed each token is."""


def final_hidden(module: PreTrainedModel, **inputs: Any) -> Tensor:
    """[rows, length, H]: the input of the output embedding, with gradients; logits are made of one place a row.

    Args:
        module: A causal language model of transformers, adapters included.
        inputs: What it is called with, `input_ids` [rows, length] among them. With `NODES` [1, n], which the module is
            not given, the states are [1, n, H], those of a token that is fed once for each place that it stands in.

    Raises:
        SettingsError: The model puts tokens of its own before the text, so that places cannot be told.
    """
    nodes: Tensor | None = inputs.pop(NODES, None)
    states = fed_hidden(module, inputs)
    return states.view(*inputs["input_ids"].shape, -1) if nodes is None else states[nodes.to(states.device)]


def fed_hidden(module: PreTrainedModel, inputs: Mapping[str, Any]) -> Tensor:
    """[rows * length, H]: the same of the tokens as they are fed; see `final_hidden`."""
    given = {name: _as_dtype(value, module.dtype) for name, value in inputs.items() if name != NODES}
    with caught(module.get_output_embeddings()) as seen:
        module(**{"use_cache": False, **given})
    count = inputs["input_ids"].numel()
    if len(seen[0]) != count:
        raise SettingsError(f"{len(seen[0])} hidden states for {count} tokens: virtual tokens are not supported")
    return seen[0]


def _as_dtype(value: Any, dtype: torch.dtype) -> Any:
    """A mask in the dtype of a model, anything else as it is: torch 2.13 attends wrongly under one of another dtype."""
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value
