"""What the presets of the methods set, and where it stands in their sources: the table of docs/methods.md.

`python -m evenhand.cli.presets docs/methods.md` writes the table into that file anew, between its two marks.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from evenhand.cli import marked_tables
from evenhand.core import registry

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
    """Where the value stands, or that it is ours; "" where the class does not say."""


def rows(only: str | None = None) -> Iterator[Row]:
    """Every setting of every preset, in the order of the registry.

    Args:
        only: Name of a method; None is every one that comes with evenhand.

    Raises:
        UnknownNameError: There is no such method.
    """
    for name in registry.BUILT_IN["methods"] if only is None else [only]:
        method = registry.methods.get(name)
        for preset, values in method.presets.items():
            sources = method.preset_sources.get(preset, {})
            for setting, value in values.items():
                yield Row(name, preset, setting, _shown(value), sources.get(setting, sources.get("", "")))


def table(only: str | None = None) -> str:
    """The rows as a table in Markdown; of a method and of a preset, only the first row has the name."""
    lines = ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
    before = ("", "")
    for row in rows(only):
        of = (row.method, row.preset)
        method = f"`{row.method}`" if row.method != before[0] else ""
        preset = f"`{row.preset}`" if of != before else ""
        lines.append(f"| {method} | {preset} | `{row.setting}` | `{row.value}` | {row.source} |")
        before = of
    return "\n".join(lines)


def put(text: str) -> str:
    """A document with the table between its marks written anew.

    Raises:
        SettingsError: It has no such marks.
    """
    return marked_tables.put(text, BEGIN, END, table(), "presets")


def _shown(value: object) -> str:
    return value if isinstance(value, str) else repr(value)


if __name__ == "__main__":
    file = Path(sys.argv[1])
    file.write_text(put(file.read_text(encoding="utf-8")), encoding="utf-8")
