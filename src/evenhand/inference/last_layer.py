"""Run the last layer of an encoder only at tokens that are read: no result depends on others after its attention."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PARTS = {"attention", "intermediate", "output"}
"""Parts of a layer of BERT and similar models: its wide part is `output(intermediate(x), x)`."""


@contextmanager
def wide_part_at(rows: Tensor, module: PreTrainedModel) -> Iterator[None]:
    """Run only some tokens of a batch through the wide part of the last layer; it returns zeros for the others.

    Args:
        rows: Indices in the flattened hidden states, [batch * sequence].
        module: An encoder. If its layers differ from BERT's, or run several times or in chunks, all tokens are run.
    """
    layer = _last(module)
    if layer is None:
        yield
        return
    whole: list[Tensor] = []

    def select(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        whole.append(inputs[0])
        return (_at(inputs[0], rows),)

    def select_beside(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0], _at(inputs[1], rows))

    def spread(_: nn.Module, __: tuple[Tensor, ...], made: Tensor) -> Tensor:
        out = torch.zeros_like(whole.pop())
        out.flatten(0, 1)[rows.to(made.device)] = made[0]
        return out

    wide, output = layer.get_submodule("intermediate"), layer.get_submodule("output")
    handles = [
        wide.register_forward_pre_hook(select),
        output.register_forward_pre_hook(select_beside),
        output.register_forward_hook(spread),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _at(hidden: Tensor, rows: Tensor) -> Tensor:
    return hidden.flatten(0, 1)[rows.to(hidden.device)][None]


def _last(module: PreTrainedModel) -> nn.Module | None:
    """Return the last of several layers like BERT's, if each is run once, else None."""
    layers = [m for m in module.modules() if {name for name, _ in m.named_children()} == PARTS]
    config = vars(module.config)
    if len(layers) < 2 or len(layers) != config.get("num_hidden_layers"):
        return None
    if config.get("chunk_size_feed_forward"):  # the wide part gets a few positions at a time, which `rows` do not count
        return None
    output = layers[-1].get_submodule("output")
    return layers[-1] if len(inspect.signature(output.forward).parameters) == 2 else None
