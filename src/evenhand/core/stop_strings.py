"""Where a reply ends that does not stop by itself."""

from __future__ import annotations

from collections.abc import Iterable


def first_stop(text: str, stop: Iterable[str], begin: int = 0) -> int | None:
    """Where the first stop string in a text begins; None where there is none, so that `text[:first_stop]` is all of it.

    Args:
        text: A reply, with what follows its end.
        stop: Strings that end it.
        begin: Where to begin looking.
    """
    return min((at for s in stop if (at := text.find(s, begin)) >= 0), default=None)
