"""What a preset of a method that trains leaves at its defaults, and how the table of presets says where that is from.

A preset follows a published procedure, and a setting that it does not name is part of that procedure as well. Where the
source has a value for it, the preset names it, even if it is the default; `UNSTATED` says that it has none.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from evenhand.training.trained_method import TrainedMethod

UNSTATED = "ours: the source does not say"
"""The source of a value about which neither paper nor released code says anything."""
OF_THE_DATA = frozenset({"seed", "axes"})
"""Settings that are in the key of a training, and say what is drawn or learned, not how."""


def at_defaults(method: type[TrainedMethod], preset: str) -> dict[str, Any]:
    """Settings that enter a training and that a preset does not name, with their defaults.

    Args:
        method: The method.
        preset: Name of one of its presets.
    """
    named, made = method.presets[preset], method.build()
    left_out = {*named, *method.not_in_key, *OF_THE_DATA}
    return {f.name: getattr(made, f.name) for f in fields(method) if f.init and f.name not in left_out}  # type: ignore[arg-type]
