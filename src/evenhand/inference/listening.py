"""New tokens as they are drawn, for whoever wants to see a reply before it is complete.

Listening changes no reply. A listener gets the whole of a row's new tokens so far: where a batch did not fit the memory
and is begun anew, it starts from the beginning again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from evenhand.inference.requests import Prompt

Listener = Callable[[Prompt, Sequence[int]], None]
"""Takes a prompt and all new tokens of its reply so far; tokens after the end of a reply may be among them."""

_listener: ContextVar[Listener | None] = ContextVar("evenhand_listener", default=None)


@contextmanager
def listening(listener: Listener | None) -> Iterator[None]:
    """Tell the listener of every token that is drawn inside; None tells nobody."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def listener() -> Listener | None:
    """Who listens now."""
    return _listener.get()
