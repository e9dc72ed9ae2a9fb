"""The names of the embedded demo models, and their folders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evenhand.core import registry
from evenhand.data.io.demo import MODELS
from evenhand.interfaces import Model

MASKED = "demo-mlm"
NAMES = tuple(name for name in registry.BUILT_IN["models"] if name.partition("-")[0] == "demo")


def is_demo(model: str | Path | Model | Mapping[str, Any]) -> bool:
    """Whether a model is a demo model, by its name.

    Args:
        model: A model, or what names one, with options or without: "demo(dtype=float32)", {"demo": {...}}.
    """
    if isinstance(model, Mapping):
        return any(map(is_demo, model))
    name = model.name if isinstance(model, Model) else str(model)
    return name.partition("(")[0] in NAMES


def name_of(path: str) -> str:
    """The demo model whose folder this is, or ""; so that a saved adapter names it without a path of this machine."""
    place = Path(path).expanduser()
    known = place.is_absolute() and place.name in NAMES and place.resolve() == (MODELS / place.name).resolve()
    return place.name if known else ""


def located(name: str) -> str:
    """The folder of a demo model by its name; anything else as it is."""
    return str(MODELS / name) if name in NAMES else name
