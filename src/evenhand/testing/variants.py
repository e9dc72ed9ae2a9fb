"""Instances of a method that differ in one setting, made from the settings' types."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from evenhand.errors import SettingsError
from evenhand.interfaces import Method


def variants(method: Method) -> dict[str, Method]:
    """For each setting of which another value could be found, the method with that value.

    A value of another kind than a number, a flag, a text or a choice among words is left as it is.
    """
    hints = get_type_hints(type(method), include_extras=True)
    found = {}
    for f in fields(method):  # type: ignore[arg-type]  # `settings` has made it a dataclass
        if not f.init:
            continue
        for value in _others(method.settings[f.name], hints[f.name]):
            try:
                found[f.name] = type(method).build(**{**method.settings, f.name: value})
                break
            except SettingsError:  # out of its range, or at odds with another setting
                continue
    return found


def _others(value: Any, hint: Any) -> Iterator[Any]:
    """Values that a setting might take instead, the most likely first."""
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
        yield from (number for kind, number in ((int, 1), (float, 0.5)) if kind in kinds)


def _kinds(hint: Any) -> Iterator[Any]:
    """The types that an annotation is made of, seen through unions and `Annotated`."""
    yield hint
    if get_origin(hint) is not Literal:
        for part in get_args(hint):
            yield from _kinds(part)
