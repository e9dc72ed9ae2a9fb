"""Lists of words that are written as text."""

from __future__ import annotations

import pytest

from evenhand.core.word_lists import listed


def test_entries_may_have_blanks_and_stand_on_several_lines() -> None:
    text = """
        old, Native American, Down's
        syndrome, a.d
        """
    assert listed(text) == ("old", "Native American", "Down's syndrome", "a.d")
    assert listed("a") == ("a",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a, b, a", "entry 3 of 3 repeats 'a'; remove it"),
        ("a, , b", "entry 2 of 3 is empty; remove it"),
        ("a, b,", "entry 3 of 3 is empty; remove it"),
        ("", "entry 1 of 1 is empty; remove it"),
    ],
)
def test_slips_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        listed(text)
