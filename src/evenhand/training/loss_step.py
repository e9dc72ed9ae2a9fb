"""One training step as one forward pass, so that FSDP2 gathers what a loss uses outside of the model's own pass.

FSDP2 gathers weights when the `forward` of a sharded module begins. Losses call a model several times, and use its
output embedding's weight between the calls. `LossStep` is the root of the sharded modules: embeddings, final norm and
output embedding stay gathered while the loss is computed, decoder blocks while they run.

All processes must gather the same blocks in the same order, however many calls their own batches need. `Calls` lets
them agree before every call: a process that needs fewer calls repeats its last one, which does not affect the loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from evenhand.errors import EvenhandError

T = TypeVar("T")
DONE, EVALUATED, LEARNED = 0, 1, 2
"""What a process does next: no more calls, a call without gradients, or a call with gradients."""


class LossStep(nn.Module):
    """A module whose forward pass calls a function with the module that it wraps."""

    def __init__(self, module: nn.Module) -> None:
        """Wrap a module.

        Args:
            module: A whole model.
        """
        super().__init__()
        self.module = module

    def forward(self, function: Callable[[nn.Module], T]) -> T:
        """Return what the function returns for the module."""
        return function(self.module)


class Calls:
    """The calls of a stack of blocks in one loss, made equally many on all processes."""

    def __init__(self, stack: nn.Module, highest: Callable[[int], int]) -> None:
        """Watch a stack.

        Args:
            stack: Runs all sharded blocks once per call, such as a model's decoder.
            highest: Returns the maximum of a number over all processes.
        """
        self._stack, self._highest = stack, highest
        self._active = False
        self._given: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        self._outputs: list[Tensor] = []
        self._handles = [
            stack.register_forward_pre_hook(self._before, with_kwargs=True),
            stack.register_forward_hook(self._after),
        ]

    def remove(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()

    def aligned(self, loss: Callable[[nn.Module], Tensor], module: nn.Module) -> Tensor:
        """Compute the loss of this process together with the other processes.

        Args:
            loss: May call the module any number of times.
            module: Contains the stack.

        Raises:
            EvenhandError: The loss called the module on other processes but never on this one.
        """
        self._active, self._outputs = True, []
        try:
            value = loss(module)
            self._until(DONE)
            # every call has a backward pass on every process, even if the loss does not depend on it
            tied: Tensor = _Tied.apply(value, *self._outputs)  # type: ignore[no-untyped-call]
            return tied
        finally:
            self._active, self._given, self._outputs = False, None, []

    def _before(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._active:
            self._given = args, kwargs
            self._until(LEARNED if torch.is_grad_enabled() else EVALUATED)

    def _after(self, _: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        if self._active:
            self._keep(output)

    def _until(self, wanted: int) -> None:
        """Repeat calls until this process's turn has come."""
        while (agreed := self._highest(wanted)) != wanted:
            self._repeat(agreed)

    def _repeat(self, kind: int) -> None:
        if self._given is None:
            raise EvenhandError("a loss called the model on another process only: it must call it for every batch")
        args, kwargs = self._given
        self._active = False
        with torch.set_grad_enabled(kind == LEARNED):
            output = self._stack(*map(_alone, args), **{name: _without_cache(name, v) for name, v in kwargs.items()})
        self._active = True
        self._keep(output)

    def _keep(self, output: Any) -> None:
        found = _first(output)
        if found is not None and found.requires_grad:
            self._outputs.append(found)


class _Tied(torch.autograd.Function):
    """A loss that also passes a zero gradient to some outputs."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, *outputs: Tensor) -> Tensor:
        ctx.like = [(o.shape, o.dtype, o.device) for o in outputs]
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor, ...]:
        return scale, *(torch.zeros(shape, dtype=dtype, device=device) for shape, dtype, device in ctx.like)


def _first(output: Any) -> Tensor | None:
    """Return the first tensor of what a module returns, such as the last hidden states."""
    if isinstance(output, Tensor):
        return output
    every = output.values() if isinstance(output, Mapping) else output if isinstance(output, (tuple, list)) else ()
    return next((found for found in map(_first, every) if found is not None), None)


def _alone(value: Any) -> Any:
    """Detach an argument, which still requires a gradient if it did before: FSDP2 depends on that."""
    return value.detach().requires_grad_(value.requires_grad) if isinstance(value, Tensor) else value


def _without_cache(name: str, value: Any) -> Any:
    """Detach an argument, and leave out the KV cache of the call before."""
    if name == "past_key_values":
        return None
    return False if name == "use_cache" else _alone(value)
