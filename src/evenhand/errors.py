"""Errors that help: each says what was wrong, where, and what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EvenhandError(Exception):
    """Base of every error that evenhand raises on purpose; the command line prints it without a traceback."""


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
        super().__init__(f"unknown {kind} {name!r}. {suggest(name, known)} {more}".rstrip())


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


def first_lines(error: Exception) -> str:
    """The first three lines of another library's message, or the error's name where it has none."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:3]) or type(error).__name__


def suggest(name: str, known: Iterable[str]) -> str:
    """Say which known names are near `name`, or list them all when none is."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if near:
        return "Did you mean " + " or ".join(repr(n) for n in near) + "?"
    return "Known: " + (", ".join(names) if names else "none") + "."
