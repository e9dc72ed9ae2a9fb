"""Methods that learn something worth storing, so that it is made once and shared."""

from __future__ import annotations

from evenhand.core.repeats import parts_of
from evenhand.interfaces import Method
from evenhand.training.trained_method import TrainedMethod


def learns(part: Method) -> bool:
    """Whether a single method, not a stack, trains or works on weights."""
    return isinstance(part, TrainedMethod) or "weights" in part.needs


def learns_any(method: Method) -> bool:
    """Whether any part of a method learns something."""
    return any(map(learns, parts_of(method)))
