"""How deep values lie inside of each other: what is nested without end would exhaust Python's stack further on."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

DEEPEST = 100
"""Levels that no data file or setting of evenhand's reaches."""


def deeper(value: Any, levels: int) -> bool:
    """Whether lists and objects lie more than so many levels inside of each other.

    Args:
        value: JSON values, or such values as Python writes them.
        levels: Levels that are accepted; a plain value has none, a list of plain values one.
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
