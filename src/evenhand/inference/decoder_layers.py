"""Find the layers of a model whose outputs are its residual stream, where activations are read and edited."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from evenhand.errors import EvenhandError, SettingsError


def decoder_layers(module: nn.Module) -> nn.ModuleList:
    """Return the decoder layers of a transformers model (or encoder layers of an encoder), also under adapters.

    They are the only list of `num_hidden_layers` modules whose classes are called layers or blocks, such as
    `model.layers` of Llama, `transformer.h` of GPT-2, `gpt_neox.layers`, `model.decoder.layers` of OPT and
    `bert.encoder.layer`. A layer's output is a tensor [..., hidden], or a tuple that begins with it.

    Raises:
        SettingsError: There is no such list, or there are several.
    """
    config: Any = module.config
    text = config.get_text_config()
    count = int(getattr(text, "num_hidden_layers", 0))
    lists = [m for m in module.modules() if isinstance(m, nn.ModuleList) and len(m) == count > 0]
    found = [m for m in lists if all(type(layer).__name__.endswith(("Layer", "Block")) for layer in m)]
    if len(found) != 1:
        raise SettingsError(
            f"{type(module).__name__} has {len(found)} lists of {count} layers, so its residual stream "
            "cannot be found; activations are read and edited in models such as Llama, GPT-2, GPT-NeoX, OPT and BERT"
        )
    return found[0]


def hidden_size(module: nn.Module) -> int:
    """Return the number of coordinates of a hidden state."""
    config: Any = module.config
    return int(config.get_text_config().hidden_size)


def check_layers(module: nn.Module, layers: list[int], size: int | None = None) -> None:
    """Refuse layers that a model does not have, and vectors of another hidden size.

    Args:
        module: The model.
        layers: Layers counted from 0.
        size: Size of the vectors; None if there are none.

    Raises:
        SettingsError: A layer or size does not fit; the message names the first wrong layer, or both sizes.
    """
    count = len(decoder_layers(module))
    wrong = [layer for layer in layers if not 0 <= layer < count]
    if wrong:
        raise SettingsError(f"layer {wrong[0]}: {type(module).__name__} has the layers 0 to {count - 1}")
    if size is not None and size != hidden_size(module):
        raise SettingsError(
            f"the edit is made for hidden states of {size} coordinates, but those of {type(module).__name__} have "
            f"{hidden_size(module)}: fit it on this model"
        )


def rows_of(output: Any) -> Tensor:
    """Return the hidden states in a layer's output, [..., hidden]."""
    rows = output[0] if isinstance(output, tuple) else output
    if not isinstance(rows, torch.Tensor):
        raise EvenhandError(
            f"a layer returns {type(rows).__name__} instead of hidden states; this model is not supported"
        )
    return rows


def with_rows(output: Any, rows: Tensor) -> Any:
    """Return a layer's output with other hidden states in it."""
    return (rows, *output[1:]) if isinstance(output, tuple) else rows
