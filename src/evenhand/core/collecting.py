"""Less frequent garbage collection while many small objects are made that are not garbage."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

YOUNG = 50_000
"""Number of new objects that starts a collection of the youngest. Python's own 700 make it go through all modules of a
model again and again while requests are built, which took a third of the time of asking a small model."""

_lock = Lock()
_within = 0
_usual = gc.get_threshold()


@contextmanager
def rarely_collected() -> Iterator[None]:
    """Collect garbage less often within the block; a caller's setting to collect never, or more rarely, is kept."""
    global _within, _usual  # the threshold is one for all threads: the last to leave puts it back
    with _lock:
        if not _within:
            _usual = gc.get_threshold()
            if 0 < _usual[0] < YOUNG:
                gc.set_threshold(YOUNG, *_usual[1:])
        _within += 1
    try:
        yield
    finally:
        with _lock:
            _within -= 1
            if not _within:
                gc.set_threshold(*_usual)
