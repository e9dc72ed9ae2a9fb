"""A reply's text while it is being written: what is certain not to change is passed on, the rest waits.

A word waits for what follows it, since tokenizers may still change its end, and so does text that may be the beginning
of a stop string.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

INTERVAL = 0.05
"""Seconds between two checks of a growing reply, each of which decodes all of it."""
LONGEST_WORD = 40
"""Number of characters without a blank after which text is passed on anyway, as in scripts without blanks."""


class Pieces:
    """Passes on one reply piece by piece."""

    def __init__(
        self,
        tell: Callable[[str], object],
        text_of: Callable[[Sequence[int]], str],
        stop: Sequence[str],
        *,
        strip: bool,
    ) -> None:
        """Begin with an empty reply.

        Args:
            tell: Takes each piece.
            text_of: Returns the reply's text from its new tokens, without what follows its end.
            stop: Strings that end the reply.
            strip: Whether blanks at the beginning are removed.
        """
        self._tell, self._text_of, self._stop, self._strip = tell, text_of, stop, strip
        self._sent, self._looked = "", 0.0

    def grow(self, new: Sequence[int]) -> None:
        """Pass on what is certain, given all new tokens so far."""
        now = time.monotonic()
        if now - self._looked < INTERVAL:
            return
        self._looked = now
        text = self._text_of(new)
        text = settled(text.lstrip() if self._strip else text, self._stop)
        if len(text) > len(self._sent) and text.startswith(self._sent):
            self._tell(text[len(self._sent) :])
            self._sent = text


def settled(text: str, stop: Sequence[str] = ()) -> str:
    """Return the beginning of a growing text that will not change."""
    words = text.rstrip()
    last = max((i for i, c in enumerate(words) if c.isspace()), default=-1)
    kept = words if len(words) - last > LONGEST_WORD else words[: max(0, last)].rstrip()
    kept = kept.rstrip("\ufffd")
    open_ends = [kept.find(s[:n], len(kept) - n) for s in stop for n in range(1, len(s)) if kept.endswith(s[:n])]
    whole = [at for s in stop if (at := text.find(s)) >= 0]
    return kept[: min([len(kept), *open_ends, *whole])]
