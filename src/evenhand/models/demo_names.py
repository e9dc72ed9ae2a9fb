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
    """Return whether a model is a demo model, judging by its name.

    Args:
        model: A model or its specification, with or without options: "demo(dtype=float32)", {"demo": {...}}.
    """
    if isinstance(model, Mapping):
        return any(map(is_demo, model))
    name = model.name if isinstance(model, Model) else str(model)
    return name.partition("(")[0] in NAMES


def name_of(path: str) -> str:
    """Return the name of the demo model in a folder, or ""; a saved adapter then has no path of this machine."""
    place = Path(path).expanduser()
    known = place.is_absolute() and place.name in NAMES and place.resolve() == (MODELS / place.name).resolve()
    return place.name if known else ""


def located(name: str) -> str:
    """Return the folder of a demo model by its name; any other text is returned as it is."""
    return str(MODELS / name) if name in NAMES else name
