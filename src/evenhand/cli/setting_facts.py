"""One setting of a method or benchmark in words: its default, the values that it takes, and what it is."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

KINDS = {bool: "True or False", int: "an integer", float: "a number", str: "text", Path: "a path", NoneType: "None"}
BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


def described(name: str, cls: type, fields: dict[str, Any]) -> str:
    """Default, allowed values and description of a setting.

    Args:
        name: Its name.
        cls: The method or benchmark.
        fields: The class's pydantic fields; a setting that is not among them is shown as Python's signature has it.
    """
    field = fields.get(name)
    if field is None:
        return str(inspect.signature(cls).parameters[name])
    default = "required" if field.is_required() else repr(field.get_default(call_default_factory=True))
    values = allowed(field.annotation, field.metadata)
    about = " ".join((field.description or "").split())
    return f"{default}{f' ({values})' if values else ''}{f' - {about}' if about else ''}"


def allowed(annotation: Any, constraints: Iterable[Any] = ()) -> str:
    """The values that a type takes, such as "reprompting, explanation" or "an integer >= 1"; "" for any other type."""
    bounds = [
        f"{sign} {value:g}"
        for c in constraints
        for key, sign in BOUNDS.items()
        if (value := _bound(c, key)) is not None
    ]
    kinds = _kinds(annotation)
    if kinds == ["None"]:  # an old form that no longer takes anything
        return ""
    text = ", ".join(kinds[:-1]) + (" or " if len(kinds) > 1 else "") + kinds[-1] if kinds else ""
    return f"{text} {' and '.join(bounds)}" if bounds else text


def _bound(constraint: Any, key: str) -> float | None:
    """A bound of annotated_types, whose classes have one field each."""
    value = vars(type(constraint)).get("__dataclass_fields__", {}).get(key)
    found: float | None = None if value is None else getattr(constraint, key)
    return found


def _kinds(annotation: Any) -> list[str]:
    """The alternatives, each once."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return [str(value) for value in arguments]
    if origin in (Union, UnionType):
        return list(dict.fromkeys(kind for one in arguments for kind in _kinds(one)))
    if origin in (tuple, list):
        inside = _kinds(arguments[0]) if arguments else []
        return [f"a list of: {', '.join(inside)}" if inside else "a list"]
    return [KINDS[annotation]] if annotation in KINDS else []
