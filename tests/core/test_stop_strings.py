"""Where a reply ends by its stop strings, by hand."""

from __future__ import annotations

import pytest

from evenhand.core.stop_strings import first_stop


@pytest.mark.parametrize(
    ("stop", "begin", "place"),
    [((), 0, None), (("x",), 0, None), (("d", "b"), 0, 1), (("cd", "bc"), 0, 1), (("b",), 2, 5), (("a",), 5, None)],
)
def test_the_first_of_all_stop_strings_counts(stop: tuple[str, ...], begin: int, place: int | None) -> None:
    assert first_stop("abcdab", stop, begin) == place
    assert (
        "abcdab"[: first_stop("abcdab", ("d", "q"))] == "abc" and "abcdab"[: first_stop("abcdab", ("q",))] == "abcdab"
    )
