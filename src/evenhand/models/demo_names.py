"""The names of the embedded demo models, and their folders."""

from __future__ import annotations

from pathlib import Path

from evenhand.core import registry
from evenhand.data.io.demo import MODELS

MASKED = "demo-mlm"
NAMES = tuple(name for name in registry.BUILT_IN["models"] if name.partition("-")[0] == "demo")


def is_demo(model: str) -> bool:
    """Whether what `evenhand.load` would be given names a demo model, with options or without."""
    return model.partition("(")[0] in NAMES


def name_of(path: str) -> str:
    """The demo model whose folder this is, or ""; so that a saved adapter names it without a path of this machine."""
    place = Path(path).expanduser()
    known = place.is_absolute() and place.name in NAMES and place.resolve() == (MODELS / place.name).resolve()
    return place.name if known else ""


def located(name: str) -> str:
    """The folder of a demo model by its name; anything else as it is."""
    return str(MODELS / name) if name in NAMES else name
