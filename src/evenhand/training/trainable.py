"""Whether a method can train or edit a model."""

from __future__ import annotations

from evenhand.interfaces import Model
from evenhand.models.local import LocalModel
from evenhand.models.masked import MaskedModel


def unsupported_reason(method: str, model: Model | None, *, masked: bool) -> str:
    """Say why a method that changes weights cannot be applied to a model; "" if it can.

    Args:
        method: Name of the method.
        model: The model to apply it to; None if that is not known yet.
        masked: Whether masked models are supported as well.
    """
    if model is None:
        return ""
    if not isinstance(model, LocalModel | MaskedModel if masked else LocalModel):
        kind = "" if masked else " (a causal one)"
        return f"{method} trains a local model itself{kind}, and {model.name} is not one: put the method first"
    if any(key.startswith("load_in_") and on for key, on in model.load_options.items()):
        return f"{method} needs weights that are not quantised; load {model.name} without quantisation"
    return model.edit_refused
