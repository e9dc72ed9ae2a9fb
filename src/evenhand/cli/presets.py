"""Settings of the methods' presets, and where their sources give them: the table of docs/methods.md.

For a method that trains, every setting that enters the training is shown, including those at their defaults.

`python -m evenhand.cli.presets docs/methods.md` rewrites the table in that file, between its two marks.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from evenhand.cli import marked_tables
from evenhand.core import registry
from evenhand.interfaces import Method

BEGIN, END = "<!-- presets: written by python -m evenhand.cli.presets -->", "<!-- end of presets -->"
HEAD = ("method", "preset", "setting", "value", "source")


@dataclass(frozen=True)
class Row:
    """One setting of one preset."""

    method: str
    preset: str
    setting: str
    value: str
    source: str
    """Where the source gives the value, or a note that it is ours; "" if the class does not say."""
    default: bool = False
    """Whether the preset leaves the setting at its default (which enters the training all the same)."""


def rows(only: str | None = None) -> Iterator[Row]:
    """Yield every setting of every preset, in the order of the registry.

    Args:
        only: Name of a method; None for all built-in methods.

    Raises:
        UnknownNameError: There is no such method.
    """
    for name in registry.BUILT_IN["methods"] if only is None else [only]:
        method = registry.methods.get(name)
        for preset, values in method.presets.items():
            sources = method.preset_sources.get(preset, {})
            for setting, value in values.items():
                yield Row(name, preset, setting, _shown(value), sources.get(setting, sources.get("", "")))
            yield from _defaults(name, method, preset)


def _defaults(name: str, method: type[Method], preset: str) -> Iterator[Row]:
    """Yield what a preset leaves at its defaults, if the method trains; nothing for other methods."""
    from evenhand.training.preset_values import UNSTATED, at_defaults
    from evenhand.training.trained_method import TrainedMethod

    if not (isinstance(method, type) and issubclass(method, TrainedMethod)):
        return
    general = method.preset_sources.get(preset, {}).get("", "")
    source = general if general.startswith("ours") else UNSTATED
    for setting, value in at_defaults(method, preset).items():
        yield Row(name, preset, setting, _shown(value), source, default=True)


def table(only: str | None = None) -> str:
    """Render the rows as a Markdown table; the names of a method and a preset are only in their first rows.

    The settings that a preset leaves at their defaults share one row, "others".
    """
    lines: list[tuple[str, ...]] = []
    before = ("", "")
    for of, some in groupby(rows(only), key=lambda row: (row.method, row.preset)):
        for setting, value, source in _cells(list(some)):
            method = f"`{of[0]}`" if of[0] != before[0] else ""
            preset = f"`{of[1]}`" if of != before else ""
            lines.append((method, preset, setting, value, source))
            before = of
    return marked_tables.table(HEAD, lines)


def _cells(some: list[Row]) -> Iterator[tuple[str, str, str]]:
    """Yield setting, value and source of each line of a preset."""
    for row in some:
        if not row.default:
            yield f"`{row.setting}`", f"`{row.value}`", row.source
    if left := [row for row in some if row.default]:
        yield "others, at their defaults", ", ".join(f"`{row.setting}={row.value}`" for row in left), left[0].source


def put(text: str) -> str:
    """Rewrite the table between the marks of a document.

    Raises:
        SettingsError: The document lacks one of the marks.
    """
    return marked_tables.put(text, BEGIN, END, table(), "presets")


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


if __name__ == "__main__":
    file = Path(sys.argv[1])
    file.write_text(put(file.read_text(encoding="utf-8")), encoding="utf-8")
