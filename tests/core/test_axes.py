"""Names of an axis as the benchmarks write them."""

from __future__ import annotations

import pytest

from evenhand.core.axes import same_axis


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Gender_identity", "gender"),
        ("Gender identity", "Gender"),
        ("Disability_status", "DisabilityStatus"),
        ("Race_ethnicity", "RaceEthnicity"),
        ("Race_ethnicity", "race-color"),
        ("Sexual_orientation", "LGBTQIA"),
        ("SES", "socioeconomic"),
        ("Physical_appearance", "Physical appearance"),
        ("Weather", "weather"),
    ],
)
def test_one_axis_under_two_names(one: str, other: str) -> None:
    assert same_axis(one, other) and same_axis(other, one)


@pytest.mark.parametrize(
    ("one", "other"), [("Age", "Religion"), ("Race_x_gender", "Gender_identity"), ("Age", ""), ("", "")]
)
def test_two_axes_are_not_one(one: str, other: str) -> None:
    assert not same_axis(one, other)
