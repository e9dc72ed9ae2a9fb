"""A limit on the nesting of values, since very deep nesting would exhaust Python's stack later."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

DEEPEST = 100
"""Maximum number of levels; no data file or setting of evenhand has as many."""


def deeper(value: Any, levels: int) -> bool:
    """Whether lists and mappings are nested deeper than a number of levels.

    Args:
        value: A JSON value, or its equivalent in Python, with tuples and sets.
        levels: Maximum that is accepted; a plain value has none, a list of plain values one.
    """
    level = [value]
    for _ in range(levels):
        inner = [_parts(one) for one in level]
        level = [one for some in inner for one in some]
        if not level:
            return False
    return any(isinstance(one, Mapping | list | tuple | set) for one in level)


def _parts(value: Any) -> Collection[Any]:
    if isinstance(value, Mapping):
        return [*value, *value.values()]
    return value if isinstance(value, list | tuple | set) else ()
