"""Whether several processes were launched, and work of one of them while the others wait.

What it asks then is not split over them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_alone: ContextVar[bool] = ContextVar("evenhand_one_process", default=False)


def launched() -> bool:
    """Whether several processes were launched; clusters set WORLD_SIZE for a single process too, but not RANK."""
    return "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


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
