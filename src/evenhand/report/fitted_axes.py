"""Which axis of bias a row was fitted on, read from its settings or from the name of its training data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from evenhand.core import specs
from evenhand.errors import SettingsError
from evenhand.report.row_parts import row_parts

OPEN = ("", "auto", "any")
"""Values of a setting that do not name an axis."""


def axis_of_method(method: str) -> str:
    """Return the axis in a method's settings, as in "instruction(axis=gender)"; "" if there is none, or several.

    Args:
        method: Row of a report: a spec, or a stack of several.
    """
    return _one(axis for part in row_parts(method) for axis in _axes(part.settings))


def axis_of_data(source: str) -> str:
    """Return the axis in the name of training data; "" if there is none, or several.

    Args:
        source: As `compare` takes it, such as "bbq(axes=('Age',),part=fit)" or "demo:pairs:Age:400".
    """
    return _one(axis for text in specs.split(source, "&") for axis in _of_source(text)) if source else ""


def _one(axes: Iterator[str]) -> str:
    found = list(dict.fromkeys(axes))
    return found[0] if len(found) == 1 else ""


def _of_source(text: str) -> Iterator[str]:
    if "(" in text:
        scheme, colon, rest = text.partition(":")
        spec = rest if colon and "(" not in scheme else text
        try:
            yield from _axes(specs.parse(spec).settings)
        except SettingsError:
            return
    elif text.startswith("demo:"):
        yield from (part for part in text.split(":")[2:] if part and not part.isdigit())


def _axes(settings: dict[str, Any]) -> Iterator[str]:
    """Yield every axis that settings name."""
    for name in ("axis", "axes", "categories"):
        given = settings.get(name, ())
        yield from (str(axis) for axis in ([given] if isinstance(given, str) else given or ()) if axis not in OPEN)
