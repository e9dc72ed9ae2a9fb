"""One setting of a method or benchmark in words: its default, its allowed values and its description."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterable
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

KINDS = {bool: "True or False", int: "an integer", float: "a number", str: "text", Path: "a path", NoneType: "None"}
BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


class SettingFacts(NamedTuple):
    """Default, allowed values and description of a setting, as text."""

    default: str
    """The default as Python writes it, or "required"."""
    values: str
    """The allowed values; "" if its type does not list them."""
    about: str
    """Its docstring on one line; "" if it has none."""


def described(name: str, cls: type, fields: dict[str, Any]) -> str:
    """Describe default, allowed values and meaning of a setting in one line.

    Args:
        name: Its name.
        cls: The method or benchmark.
        fields: The class's pydantic fields; a setting that is not among them is shown as Python's signature has it.
    """
    default, values, about = parts(name, cls, fields)
    return f"{default}{f' ({values})' if values else ''}{f' - {about}' if about else ''}"


def parts(name: str, cls: type, fields: dict[str, Any]) -> SettingFacts:
    """Describe default, allowed values and meaning of a setting separately; arguments as for `described`."""
    field = fields.get(name)
    if field is None:
        return SettingFacts(str(inspect.signature(cls).parameters[name]), "", "")
    default = "required" if field.is_required() else repr(field.get_default(call_default_factory=True))
    about = " ".join((field.description or docstrings(cls).get(name, "")).split())
    return SettingFacts(default, allowed(field.annotation, field.metadata), about)


def docstrings(cls: type) -> dict[str, str]:
    """Return the docstrings of the fields of a class and of its bases, by field.

    They are read from the source on demand: pydantic would read them whenever a class is made, which takes a second
    for all benchmarks together.
    """
    found: dict[str, str] = {}
    for one in reversed(cls.__mro__):
        found |= _own_docstrings(one)
    return found


@cache
def _own_docstrings(cls: type) -> dict[str, str]:
    """Return the docstrings of a class's own fields; cached, since finding a class parses its whole file."""
    if "__annotations__" not in vars(cls):
        return {}
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError, SyntaxError):  # no source: built in, or typed into an interpreter
        return {}
    body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
    found = {}
    for field, text in pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            docstring = _text(text)
            if docstring is not None:
                found[field.target.id] = inspect.cleandoc(docstring)
    return found


def _text(statement: ast.stmt) -> str | None:
    """Return the text of a statement that is only a string literal, else None."""
    value = statement.value if isinstance(statement, ast.Expr) else None
    return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else None


def allowed(annotation: Any, constraints: Iterable[Any] = ()) -> str:
    """Describe the values that a type takes, such as "reprompting, explanation" or "an integer >= 1"; "" for others."""
    bounds = [
        f"{sign} {value:g}"
        for c in constraints
        for key, sign in BOUNDS.items()
        if (value := _bound(c, key)) is not None
    ]
    kinds = _kinds(annotation)
    if kinds == ["None"]:  # an old setting that no longer takes a value
        return ""
    text = ", ".join(kinds[:-1]) + (" or " if len(kinds) > 1 else "") + kinds[-1] if kinds else ""
    return f"{text} {' and '.join(bounds)}" if bounds else text


def _bound(constraint: Any, key: str) -> float | None:
    """Return a bound of an annotated_types constraint, whose classes have one field each."""
    value = vars(type(constraint)).get("__dataclass_fields__", {}).get(key)
    found: float | None = None if value is None else getattr(constraint, key)
    return found


def _kinds(annotation: Any) -> list[str]:
    """Describe the alternatives of a type, each once."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return [str(value) for value in arguments]
    if origin in (Union, UnionType):
        return list(dict.fromkeys(kind for one in arguments for kind in _kinds(one)))
    if origin in (tuple, list):
        inside = _kinds(arguments[0]) if arguments else []
        return [f"a list of: {', '.join(inside)}" if inside else "a list"]
    return [KINDS[annotation]] if annotation in KINDS else []
