"""Names of the same axis of bias: benchmarks write "Gender_identity", "Gender" or "gender identity"."""

from __future__ import annotations

from evenhand.core.word_lists import listed

_SAME = {
    "age": listed("ageism"),
    "disability": listed("disabilitystatus, ability, disable"),
    "gender": listed("genderidentity, sex, genderandsex"),
    "nationality": listed("country"),
    "physicalappearance": listed("physical, appearance, bodytype"),
    "race": listed("raceethnicity, ethnicity, racecolor, raceethnicitynationality"),
    "religion": listed("religious"),
    "ses": listed("socioeconomic, socioeconomicstatus, class, socioeconomicclass"),
    "sexualorientation": listed("sexuality, lgbtqia, lgbtq"),
}
"""Other names of an axis in the benchmarks, in letters only, by its key."""
_NAMES = {name: axis for axis, names in _SAME.items() for name in names}


def axis_key(name: str) -> str:
    """Return one key for all names of an axis; a name that no benchmark here has is its own key."""
    letters = "".join(c for c in name.casefold() if c.isalnum())
    return _NAMES.get(letters, letters)


def same_axis(one: str, other: str) -> bool:
    """Whether two names mean the same axis; an empty name means none.

    KoBBQ's "Race/Ethnicity/Nationality" counts as race, and an intersection, such as "Race_x_gender", is an axis of its
    own.
    """
    return bool(one and other) and axis_key(one) == axis_key(other)
