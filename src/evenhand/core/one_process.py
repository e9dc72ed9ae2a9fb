"""Work of one process while the others of a launch wait: what it asks then is not split over them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_alone: ContextVar[bool] = ContextVar("evenhand_one_process", default=False)


@contextmanager
def by_itself() -> Iterator[None]:
    """Let this process answer all it asks within the block: the others wait for a lock or a file, not for answers."""
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


def is_by_itself() -> bool:
    """Whether requests must not be split over processes now."""
    return _alone.get()
