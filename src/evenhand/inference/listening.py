"""Report new tokens as they are drawn, for callers that want to see a reply before it is complete.

Listening changes no reply, except that a listener may end one that is no longer needed. A listener receives
all new tokens of a row so far: if a batch did not fit into memory and is restarted, they start from the beginning
again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from evenhand.core import answer_cache
from evenhand.inference.requests import Prompt

Listener = Callable[[Prompt, Sequence[int]], bool | None]
"""Receives a prompt and all new tokens of its reply so far, possibly some after its end. Returning False ends
the reply there, as if it had reached the token limit."""

_listener: ContextVar[Listener | None] = ContextVar("evenhand_listener", default=None)


@contextmanager
def listening(listener: Listener | None) -> Iterator[None]:
    """Report every token drawn within the block to the listener; None reports to none."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def listener() -> Listener | None:
    """Return the active listener."""
    return _listener.get()


def is_left(heard: Listener, prompt: Prompt, new: Sequence[int]) -> bool:
    """Report a row's tokens to a listener, and return whether the row is to end there.

    Rows never end early while answers are cached: an incomplete reply would later be taken for a complete one.
    """
    return heard(prompt, new) is False and answer_cache.active() is None
