"""How numbers are written, by hand."""

from __future__ import annotations

from math import inf, nan

import pytest

from evenhand.core.text_output import count, interval, number, percent, size, visible, without_user_info


@pytest.mark.parametrize(
    ("value", "plain", "signed"),
    [
        (0.1234, "0.123", "+0.123"),
        (-0.5, "-0.500", "-0.500"),
        (0.0, "0.000", "0.000"),
        (-0.0, "0.000", "0.000"),
        (-0.0004, "0.000", "0.000"),
        (0.0004, "0.000", "0.000"),
        (-0.0006, "-0.001", "-0.001"),
        (-10.0, "-10.000", "-10.000"),
        (12345.6789, "12345.679", "+12345.679"),
        (inf, "inf", "+inf"),
        (nan, "–", "–"),
        (None, "–", "–"),
    ],
)
def test_numbers_have_three_decimals(value: float | None, plain: str, signed: str) -> None:
    assert number(value) == plain
    assert number(value, signed=True) == signed


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [(0.126, 2, "0.13"), (-0.004, 2, "0.00"), (-0.04, 1, "0.0"), (-0.06, 1, "-0.1"), (-0.4, 0, "0"), (nan, 1, "–")],
)
def test_numbers_have_as_many_decimals_as_are_asked_for(value: float, decimals: int, text: str) -> None:
    assert number(value, decimals=decimals) == text


def test_intervals() -> None:
    assert interval(0.1, 0.25) == "[0.100, 0.250]"
    assert interval(-0.1, 0.25, signed=True) == "[-0.100, +0.250]"
    assert interval(-0.0001, inf) == "[0.000, inf]"
    assert interval(nan, nan) == ""


@pytest.mark.parametrize(("share", "text"), [(0, "0.0 %"), (0.12345, "12.3 %"), (1, "100.0 %"), (nan, "nan %")])
def test_percent(share: float, text: str) -> None:
    assert percent(share) == text


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (999, "999"), (1234, "1,234"), (1234567.4, "1,234,567")])
def test_counts(value: float, text: str) -> None:
    assert count(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0.0 MB"), (1234567, "1.2 MB"), (99_900_000, "99.9 MB"), (10**8, "0.10 GB"), (14_480_000_000, "14.48 GB")],
)
def test_sizes(value: int, text: str) -> None:
    assert size(value) == text


def test_control_characters_are_spelled_out() -> None:
    assert visible("a\n\tb \x1b[31mred\x07 \u202e größe 語") == "a\n\tb \\x1b[31mred\\x07 \\u202e größe 語"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("openai:https://me:secret@host/v1#model", "openai:https://...@host/v1#model"),
        ("//a@b and //c:d@e", "//...@b and //...@e"),
        ("me@host, https://host/a@b and // at@home", "me@host, https://host/a@b and // at@home"),
    ],
)
def test_users_and_passwords_of_urls_are_not_shown(text: str, shown: str) -> None:
    assert without_user_info(text) == shown
