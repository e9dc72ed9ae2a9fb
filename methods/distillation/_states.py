"""Run a language model up to its output embedding, to get its states at the positions read without its logits."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn


class States(NamedTuple):
    """States of a network for a batch, at the positions that are read."""

    before_head: Tensor
    """[n, H] inputs of the output embedding."""
    last: Tensor
    """[n, H'] last hidden states, for the cosine; empty if it has no weight."""


def states_of(module: Any, head: nn.Module, inputs: dict[str, Any], places: Tensor, *, last: bool) -> States:
    """Run a language model without its logits.

    Args:
        module: A causal or masked language model of transformers, adapters and wrappers included.
        head: Its output embedding.
        inputs: Arguments with which it is called.
        places: [n] indices into the flattened [rows, length] table.
        last: Whether the last hidden states are needed, too.
    """
    seen: list[Tensor] = []

    def keep(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        seen.append(given[0].flatten(0, -2))
        return (given[0][:, -1:], *given[1:])

    handle = head.register_forward_pre_hook(keep)
    try:
        out = module(**inputs, output_hidden_states=True) if last else module(**inputs)
    finally:
        handle.remove()
    before = seen[0][places.to(seen[0].device)].to(next(head.parameters()).dtype)  # autocast may have cast it down
    return States(before, out.hidden_states[-1].flatten(0, -2)[places] if last else before.new_zeros(0))
