"""Installed versions and settings that are known to change numbers, and what evenhand does about each.

The table is `known_effects.toml`, next to this file. `evenhand doctor` shows the rows that apply here.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

TABLE = Path(__file__).with_suffix(".toml")


class Effect(NamedTuple):
    """One row: when it applies, and what it does to numbers."""

    source: str
    """Name of the script in `findings/` that shows it, or an address."""
    effect: str
    evenhand: str
    """What evenhand does about it, or why its own numbers are not affected."""
    package: str = ""
    """The distribution with the effect; "" for a setting."""
    versions: str = ""
    """The versions in which it was seen, as a version specifier: ==0.21.2."""
    variable: str = ""
    """The environment variable with the effect; "" for a package."""
    values: tuple[str, ...] = ()
    """The values of the variable that have the effect."""


@cache
def effects() -> tuple[Effect, ...]:
    """Return all rows of the table."""
    rows = tomllib.loads(TABLE.read_text(encoding="utf-8"))["effect"]
    return tuple(Effect(**{**row, "values": tuple(row.get("values", ()))}) for row in rows)


def applying(
    installed: Callable[[str], str] = version, environment: Mapping[str, str] | None = None
) -> dict[str, dict[str, str]]:
    """Return the rows that apply to this installation, by their source.

    Args:
        installed: Returns the version of a distribution; raises `PackageNotFoundError` for one that is not installed.
        environment: Environment variables; None is this process's.

    Returns:
        Per row, what has the effect ("peft 0.21.2"), the effect, and what evenhand does.
    """
    variables = os.environ if environment is None else environment
    found = {}
    for row in effects():
        if here := _setting(row, variables) if row.variable else _package(row, installed):
            found[row.source] = {"where": here, "effect": row.effect, "evenhand": row.evenhand}
    return found


def _setting(row: Effect, variables: Mapping[str, str]) -> str:
    value = variables.get(row.variable)
    return f"{row.variable}={value}" if value in row.values else ""


def _package(row: Effect, installed: Callable[[str], str]) -> str:
    """Return the package with its version, if that version has the effect; else ""."""
    try:
        have = installed(row.package)
        within = SpecifierSet(row.versions).contains(Version(have), prereleases=True)
    except (PackageNotFoundError, InvalidVersion):
        return ""
    return f"{row.package} {have}" if within else ""
