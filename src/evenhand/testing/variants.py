"""Instances of a method that differ in one setting, made from the settings' types."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from itertools import islice
from typing import Any, Literal, get_args, get_origin, get_type_hints

from evenhand.errors import SettingsError
from evenhand.interfaces import Method


def variants(method: Method) -> list[Method]:
    """Return the method with another value of one setting, for each setting for which one can be found.

    For a list there are several, as the shorter one may be invalid and the longer one may mean the same. A value other
    than a number, a flag, a text, a choice among words, or a list of these is left as it is.
    """
    hints = get_type_hints(type(method), include_extras=True)
    found = []
    for f in fields(method):  # type: ignore[arg-type]  # `settings` has made it a dataclass
        if f.init:
            several = isinstance(method.settings[f.name], tuple | list)
            made = _built(method, f.name, _others(method.settings[f.name], hints[f.name]))
            found += list(made) if several else list(islice(made, 1))
    return found


def _built(method: Method, name: str, values: Iterator[Any]) -> Iterator[Method]:
    """Yield the method with each of the values that it accepts for a setting."""
    for value in values:
        try:
            yield type(method).build(**{**method.settings, name: value})
        except SettingsError:  # out of its range, or in conflict with another setting
            continue


def _others(value: Any, hint: Any) -> Iterator[Any]:
    """Yield values that a setting might take instead, the most likely first."""
    kinds = list(_kinds(hint))
    yield from (word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind) if word != value)
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield from (value + 1, value - 1)
    elif isinstance(value, float):
        yield from (value / 2, value + 0.5, value + 1)
    elif isinstance(value, str) and str in kinds:
        yield f"{value} again"  # the blank keeps it from being a name on the hub
    elif value is None:
        yield from _first(kinds)
    elif isinstance(value, tuple | list):
        yield from _longer_and_shorter(value, kinds)


def _longer_and_shorter(value: Any, kinds: Sequence[Any]) -> Iterator[Any]:
    """Yield a tuple or list without its last element, and with it twice; an empty one gets an element."""
    if value:
        yield from (value[:-1], value + value[-1:])
    else:
        yield from (type(value)([element]) for element in _first(kinds))


def _first(kinds: Sequence[Any]) -> list[Any]:
    """Return a value of each simple kind; the blank keeps the text from being a name on the hub."""
    return [value for kind, value in ((int, 1), (float, 0.5), (str, "a text")) if kind in kinds]


def _kinds(hint: Any) -> Iterator[Any]:
    """Yield the types that an annotation consists of, including those inside unions and `Annotated`."""
    yield hint
    if get_origin(hint) is not Literal:
        for part in get_args(hint):
            yield from _kinds(part)
