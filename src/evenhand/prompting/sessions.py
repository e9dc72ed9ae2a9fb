"""Calls that continue one another: what a model has read of a dialogue need not be read again at its next turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")

_memory: ContextVar[dict[Any, Any] | None] = ContextVar("evenhand_conversation", default=None)
_last: ContextVar[bool] = ContextVar("evenhand_last_turn", default=False)


class Conversation:
    """Calls whose dialogues begin with one another."""

    def __init__(self, *, ends: bool) -> None:
        """Nothing was asked yet.

        Args:
            ends: Whether nothing follows its last turn; a part of another conversation may be followed by more of it.
        """
        self._ends = ends

    @contextmanager
    def last(self) -> Iterator[None]:
        """Say that no call follows those inside, so that what they read need not be kept."""
        token = _last.set(self._ends)
        try:
            yield
        finally:
            _last.reset(token)


@contextmanager
def conversation() -> Iterator[Conversation]:
    """Say that the dialogues of later calls inside begin with those of earlier ones.

    Local models then keep what they have read, within a part of the free memory, until the end. Answers stay the same,
    up to the rounding of sums in another order. Inside another conversation this is part of that one.
    """
    if _memory.get() is None:
        memory, ends = _memory.set({}), True
    else:
        memory, ends = None, _last.get()
    last = _last.set(False)
    try:
        yield Conversation(ends=ends)
    finally:
        _last.reset(last)
        if memory is not None:
            _memory.reset(memory)


def is_last_turn() -> bool:
    """Whether what is read now need not be kept, as nothing of this conversation follows."""
    return _last.get()


def remembered(key: Any, make: Callable[[], T]) -> T | None:
    """What was put aside under `key` in this conversation, made at first; None outside of conversations."""
    memory = _memory.get()
    if memory is None:
        return None
    if key not in memory:
        memory[key] = make()
    found: T = memory[key]
    return found
