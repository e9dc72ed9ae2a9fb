"""Names in braces, and what is refused in their place."""

from __future__ import annotations

import pytest

from evenhand.core.text_fields import fields


def test_fields_are_named_in_order() -> None:
    assert fields("The {job} said {{this}} to {a} {job}.") == ["job", "a", "job"]
    assert fields("{}") == [""]


@pytest.mark.parametrize("text", ["{a:>9}", "{a:{b}}", "{a!r}", "{a.b}", "{a[0]}", "{0}", "{a", "a}", "{a b}"])
def test_more_than_a_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        fields(text)
