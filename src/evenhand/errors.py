"""Errors that help: each says what was wrong, where, and what to do about it."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable

SHOWN = 60
"""Characters of a wrong name that a message shows."""
REASON = 300
"""Characters of another library's message that ours show."""


class EvenhandError(Exception):
    """Base of every error that evenhand raises on purpose; the command line prints it without a traceback."""

    def __str__(self) -> str:
        """The message; names of folders and words of data in it cannot act on a terminal."""
        return visible(super().__str__())


class SettingsError(EvenhandError):
    """A setting, a name or a specification that cannot be used."""


class UnknownNameError(SettingsError):
    """A name that is not registered; the message lists the near ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str], more: str = "") -> None:
        """Build the message.

        Args:
            kind: What was looked for, such as "method".
            name: The name that was given.
            known: All names that would have been accepted.
            more: Ends the message, such as what else could have been given.
        """
        self.name = name
        super().__init__(f"unknown {kind} {short(name, SHOWN)!r}. {suggest(name, known)} {more}".rstrip())


class MissingAbilityError(EvenhandError):
    """A model was asked for a verb that it does not have."""


class ContextTooLongError(EvenhandError):
    """An item does not fit the model's context; it is never cut silently."""


class DivergedError(EvenhandError):
    """Weights, gradients or scores of a model that was trained or edited are no longer finite."""


class DataError(EvenhandError):
    """A data file that is missing or broken; the message names file, line and field."""


class EndpointError(EvenhandError):
    """An endpoint refused in a way that trying again cannot mend (bad key, unknown model)."""


class RunError(EvenhandError):
    """A run folder that cannot be used: in use by another run, not a run, or on a full disk."""


def visible(text: str) -> str:
    """A text of several lines for a terminal: control characters and directions of writing are spelled out."""
    if text.isprintable():
        return text
    return "".join(c.encode("unicode_escape").decode() if _acts(c) else c for c in text)


def _acts(sign: str) -> bool:
    """Whether a character is an order rather than something to be read; line breaks and tabs are neither."""
    return sign not in "\n\t" and unicodedata.category(sign) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def first_lines(error: Exception) -> str:
    """The first three lines of another library's message, or the error's name where it has none."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:3]) or type(error).__name__


def reason(error: BaseException) -> str:
    """Another library's message for one of ours: on one line and not long; the error's name where it has none."""
    return short(" ".join(str(error).split()), REASON) or type(error).__name__


def short(text: str, width: int) -> str:
    """A text for a message: on one line, with its middle left out where it is longer than `width` characters."""
    half = (width - 3) // 2
    kept = text if len(text) <= width else f"{text[:half]}...{text[-half:]}"
    return "".join(c if c.isprintable() else "?" for c in kept)


def suggest(name: str, known: Iterable[str]) -> str:
    """Say which known names are near `name`, or list them all when none is."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if near:
        return "Did you mean " + " or ".join(repr(n) for n in near) + "?"
    return "Known: " + (", ".join(names) if names else "none") + "."
