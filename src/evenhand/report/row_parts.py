"""The methods that the name of a row stands for."""

from __future__ import annotations

from evenhand.core import specs
from evenhand.errors import SettingsError


def row_parts(method: str) -> list[specs.Part]:
    """The methods of a row with their settings; none where its name is not a spec.

    A baseline that is read in another way, such as "none (generation, T=1)", and a row of a plugin may be called
    otherwise.

    Args:
        method: Row of a report: a spec, or a stack of several.
    """
    try:
        return specs.stack(method)
    except SettingsError:
        return []
