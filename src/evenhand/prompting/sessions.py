"""Conversations: calls that continue one another, so that what a model has read need not be read again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")

_memory: ContextVar[dict[Any, Any] | None] = ContextVar("evenhand_conversation", default=None)
_last: ContextVar[bool] = ContextVar("evenhand_last_turn", default=False)


class Conversation:
    """A series of calls in which later dialogues begin with earlier ones."""

    def __init__(self, *, ends: bool) -> None:
        """Start a conversation in which nothing was asked yet.

        Args:
            ends: Whether nothing follows its last turn; a part of another conversation may be followed by more turns.
        """
        self._ends = ends

    @contextmanager
    def last(self) -> Iterator[None]:
        """Declare that no call follows those inside the block, so that what they read need not be kept."""
        token = _last.set(self._ends)
        try:
            yield
        finally:
            _last.reset(token)


@contextmanager
def conversation() -> Iterator[Conversation]:
    """Declare that the dialogues of later calls inside the block begin with those of earlier ones.

    Local models then keep what they have read until the end, within a part of the free memory. Answers stay the same up
    to rounding, as sums run in another order. Inside another conversation, this one is part of that.
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
    """Whether what is read now need not be kept, since no turn of this conversation follows."""
    return _last.get()


def remembered(key: Any, make: Callable[[], T]) -> T | None:
    """Return what this conversation keeps under `key`, made at its first use; None outside conversations."""
    memory = _memory.get()
    if memory is None:
        return None
    if key not in memory:
        memory[key] = make()
    found: T = memory[key]
    return found
