"""What two sequences have in common, by hand."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from evenhand.core.sequences import common_prefix_length


@pytest.mark.parametrize(
    ("one", "other", "length"),
    [
        ([], [], 0),
        ([], [1], 0),
        ([1], [], 0),
        ([1, 2, 3], [1, 2, 3], 3),
        ([1, 2], [1, 2, 3], 2),
        ([1, 2, 3], (1, 2), 2),
        ([1, 2, 3], [1, 5, 3], 1),
        ([4, 2], [1, 2], 0),
        ("abc", "abd", 2),
    ],
)
def test_common_prefix_length(one: Sequence[object], other: Sequence[object], length: int) -> None:
    assert common_prefix_length(one, other) == length
    assert common_prefix_length(other, one) == length
