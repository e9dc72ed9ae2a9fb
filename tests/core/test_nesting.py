"""Depth of nested values, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from evenhand.core.nesting import deeper


@pytest.mark.parametrize(
    ("value", "levels"),
    [(1, 0), ([], 1), ([1], 1), ({"a": 1}, 1), ([[1]], 2), ({"a": [1, {"b": ()}]}, 4), ({(1, (2,)): 1}, 3)],
)
def test_levels_are_counted(value: Any, levels: int) -> None:
    assert not deeper(value, levels)
    assert levels == 0 or deeper(value, levels - 1)


def test_any_depth_is_judged_without_recursion() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    assert deeper(value, 50)
    while value:
        value = value[0]  # taken apart, as freeing it whole would recurse
