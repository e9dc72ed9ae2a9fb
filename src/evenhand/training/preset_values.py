"""Settings that a preset of a trained method leaves at their defaults, and their source in the table of presets.

A preset follows a published procedure, and a setting that it does not name is part of that procedure as well. If the
source gives a value, the preset names it, even if it is the default; `UNSTATED` marks values that no source gives.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from evenhand.training.trained_method import TrainedMethod

UNSTATED = "ours: the source does not say"
"""Source of a value that neither the paper nor its released code gives."""
OF_THE_DATA = frozenset({"seed", "axes"})
"""Settings in the key of a training that decide what is drawn or learned, not how."""


def at_defaults(method: type[TrainedMethod], preset: str) -> dict[str, Any]:
    """Return the settings that affect a training and that a preset does not name, with their defaults.

    Args:
        method: The method.
        preset: Name of one of its presets.
    """
    named, made = method.presets[preset], method.build()
    left_out = {*named, *method.not_in_key, *OF_THE_DATA}
    return {f.name: getattr(made, f.name) for f in fields(method) if f.init and f.name not in left_out}  # type: ignore[arg-type]
