"""Gradient checkpointing: activations are recomputed in the backward pass instead of being stored.

It changes no result: dropout draws the same numbers again, since the generator's state is stored with each block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from evenhand.errors import SettingsError

if TYPE_CHECKING:
    from torch import nn


@contextmanager
def checkpointed(module: nn.Module, wanted: bool = True) -> Iterator[None]:
    """Recompute the activations of a module's blocks in backward passes inside the context.

    The KV cache is off meanwhile.

    Args:
        module: A model of transformers, adapters and wrappers included; in training mode.
        wanted: False does nothing.

    Raises:
        SettingsError: The module does not support gradient checkpointing.
    """
    if not wanted:
        yield
        return
    model = _model_of(module)
    cache = model.config.use_cache if "use_cache" in model.config.to_dict() else None
    enable, disable = _switches(model)
    enable({"use_reentrant": False})
    try:
        if cache is not None:
            model.config.use_cache = False
        yield
    finally:
        disable()
        if cache is not None:
            model.config.use_cache = cache


def _model_of(module: nn.Module) -> Any:
    """Return the outermost model of transformers in a module."""
    from transformers import PreTrainedModel

    model = next((m for m in module.modules() if isinstance(m, PreTrainedModel)), None)
    if model is None or not model.supports_gradient_checkpointing:
        name = type(module if model is None else model).__name__
        raise SettingsError(f"{name} has no gradient checkpointing: take gradient_checkpointing=False")
    return model


def _switches(model: Any) -> tuple[Callable[[dict[str, bool]], None], Callable[[], None]]:
    """Return what turns it on and off: version 5 of transformers renamed both, version 6 removes the old names."""
    if "activation_checkpointing_enable" in dir(model):
        return model.activation_checkpointing_enable, model.activation_checkpointing_disable
    return model.gradient_checkpointing_enable, model.gradient_checkpointing_disable
