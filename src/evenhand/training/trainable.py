"""Whether a method can train or edit a model."""

from __future__ import annotations

from evenhand.interfaces import Model
from evenhand.models.local import LocalModel
from evenhand.models.masked import MaskedModel


def untrainable(method: str, model: Model, *, masked: bool) -> str:
    """Why a method that changes weights cannot be applied, or "" when it can.

    Args:
        method: Its name.
        model: What it is to be applied to.
        masked: Whether masked models will do, too.
    """
    if not isinstance(model, LocalModel | MaskedModel if masked else LocalModel):
        kind = "" if masked else " (a causal one)"
        return f"{method} trains a local model itself{kind}; {model.name} is none: put it first"
    if any(key.startswith("load_in_") and on for key, on in getattr(model, "load_options", {}).items()):
        return f"{method} needs weights that are not quantised; load {model.name} without"
    return ""
