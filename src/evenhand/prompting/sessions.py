"""Calls that continue one another: what a model has read of a dialogue need not be read again at its next turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")

_memory: ContextVar[dict[Any, Any] | None] = ContextVar("evenhand_conversation", default=None)


@contextmanager
def conversation() -> Iterator[None]:
    """Say that the dialogues of later calls inside begin with those of earlier ones.

    Local models then keep what they have read, within a part of the free memory, until the end. Answers stay the same,
    up to the rounding of sums in another order. Inside another conversation this is part of that one.
    """
    if _memory.get() is not None:
        yield
        return
    token = _memory.set({})
    try:
        yield
    finally:
        _memory.reset(token)


def remembered(key: Any, make: Callable[[], T]) -> T | None:
    """What was put aside under `key` in this conversation, made at first; None outside of conversations."""
    memory = _memory.get()
    if memory is None:
        return None
    if key not in memory:
        memory[key] = make()
    found: T = memory[key]
    return found
