"""Errors that help: each names what was wrong, where, and what to do about it."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable

SHOWN = 60
"""Maximum number of characters of a wrong name that a message shows."""
REASON = 300
"""Maximum number of characters of another library's message that ours show."""


class EvenhandError(Exception):
    """Base of every error that evenhand raises on purpose; the command line prints it without a traceback."""

    def __str__(self) -> str:
        """Return the message, in which names of folders and words of data cannot control a terminal."""
        return visible(super().__str__())


class SettingsError(EvenhandError):
    """Raised for a setting, a name or a specification that cannot be used."""


class UnknownNameError(SettingsError):
    """Raised for a name that is not registered; the message suggests similar ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str], more: str = "") -> None:
        """Build the message.

        Args:
            kind: Kind of thing that was looked for, such as "method".
            name: The name that was given.
            known: All names that would have been accepted.
            more: End of the message, such as what else could have been given.
        """
        self.name = name
        super().__init__(f"unknown {kind} {short(name, SHOWN)!r}. {suggest(name, known)} {more}".rstrip())


class MissingAbilityError(EvenhandError):
    """Raised if a model is asked for an ability that it does not have."""


class ContextTooLongError(EvenhandError):
    """Raised for an item that does not fit the model's context; it is never cut silently."""


class DivergedError(EvenhandError):
    """Raised if weights, gradients or scores of a trained or edited model are no longer finite."""


class DataError(EvenhandError):
    """Raised for a missing or broken data file; the message names file, line and field."""


class EndpointError(EvenhandError):
    """Raised if an endpoint refuses in a way that retrying cannot fix (bad key, unknown model)."""


class RunError(EvenhandError):
    """Raised for a run folder that cannot be used: in use by another run, not a run, or on a full disk."""


def visible(text: str) -> str:
    """Prepare a text of several lines for a terminal: control and direction characters are spelled out."""
    if text.isprintable():
        return text
    return "".join(c.encode("unicode_escape").decode() if _acts(c) else c for c in text)


def _acts(sign: str) -> bool:
    """Whether a character is a control rather than something to be read; line breaks and tabs are not."""
    return sign not in "\n\t" and unicodedata.category(sign) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def first_lines(error: Exception) -> str:
    """Return the first three lines of another library's message, or the error's name if it has none."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:3]) or type(error).__name__


def reason(error: BaseException) -> str:
    """Return another library's message for one of ours: on one short line; the error's name if it has none."""
    return short(" ".join(str(error).split()), REASON) or type(error).__name__


def short(text: str, width: int) -> str:
    """Shorten a text for a message to one line of at most `width` characters, leaving out its middle."""
    half = (width - 3) // 2
    kept = text if len(text) <= width else f"{text[:half]}...{text[-half:]}"
    return "".join(c if c.isprintable() else "?" for c in kept)


def suggest(name: str, known: Iterable[str]) -> str:
    """Name the known names similar to `name`, or list them all if none is."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if near:
        return "Did you mean " + " or ".join(repr(n) for n in near) + "?"
    return "Known: " + (", ".join(names) if names else "none") + "."
