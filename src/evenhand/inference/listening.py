"""New tokens as they are drawn, for whoever wants to see a reply before it is complete.

Listening changes no reply, except that a listener may end one that nobody waits for any longer. A listener gets the
whole of a row's new tokens so far: where a batch did not fit the memory and is begun anew, it starts from the beginning
again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from evenhand.core import answer_cache
from evenhand.inference.requests import Prompt

Listener = Callable[[Prompt, Sequence[int]], bool | None]
"""Takes a prompt and all new tokens of its reply so far; tokens after the end of a reply may be among them. False ends
the reply there, as if it had met the limit of tokens."""

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


def is_left(heard: Listener, prompt: Prompt, new: Sequence[int]) -> bool:
    """Tell a listener of a row's tokens; whether the row is to end there.

    None does while answers are stored: a reply that was left would be taken for the model's whole one later.
    """
    return heard(prompt, new) is False and answer_cache.active() is None
