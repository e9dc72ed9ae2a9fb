"""Stop strings, which end a reply that does not stop by itself."""

from __future__ import annotations

from collections.abc import Iterable


def first_stop(text: str, stop: Iterable[str], begin: int = 0) -> int | None:
    """Return where the first stop string in a text begins, or None, so that `text[:first_stop]` is the reply.

    Args:
        text: A reply, with any text after its end.
        stop: Strings that end it.
        begin: Where to begin looking.
    """
    return min((at for s in stop if (at := text.find(s, begin)) >= 0), default=None)
