"""The methods that a row's name refers to."""

from __future__ import annotations

from evenhand.core import specs
from evenhand.errors import SettingsError


def row_parts(method: str) -> list[specs.Part]:
    """Return the methods of a row with their settings; none if its name is not a spec.

    The names of baselines that are read differently, such as "none (generation, T=1)", and of plugins' rows may not be
    specs.

    Args:
        method: Row of a report: a spec, or a stack of several.
    """
    try:
        return specs.stack(method)
    except SettingsError:
        return []
