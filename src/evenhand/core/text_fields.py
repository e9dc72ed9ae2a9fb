"""The fields in braces of a text that is filled in later, such as {occupation}."""

from __future__ import annotations

from string import Formatter


def fields(text: str) -> list[str]:
    """Return the names of a text's fields, in their order.

    Raises:
        ValueError: A brace has no counterpart, or a field is more than a name: a format (`{axis:>9}`), a conversion
            (`{axis!r}`), or a part of a value (`{axis.upper}`), which would fail or do harm when it is filled in.
    """
    found = []
    for _, field, form, conversion in Formatter().parse(text):
        if field is None:
            continue
        if form or conversion or (field and not field.isidentifier()):
            raise ValueError(f"the field {{{field[:40]}}} must be a plain name in braces; double a literal brace")
        found.append(field)
    return found
