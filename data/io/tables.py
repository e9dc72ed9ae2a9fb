"""Rows of a table as mappings, from any form: JSON lines, JSON, csv, tsv, parquet, or the hub."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from evenhand.data.io import hub, locate
from evenhand.data.io.content import read_bytes
from evenhand.data.io.layouts import kind_of, read_table
from evenhand.data.io.on_disk import COLUMNS, few, visible
from evenhand.errors import DataError

HUB = hub.PREFIX
KINDS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
Placed = tuple[str, dict[str, Any]]
"""Place of a row, "FILE:LINE", and its cells by column."""


def read(source: str, columns: Sequence[str] = (), problems: locate.Problems | None = None) -> Iterator[Placed]:
    """Yield the rows of a table.

    Args:
        source: A .jsonl, .json (a list of objects, one object, or objects line by line), .csv, .tsv or .parquet file,
            also gzipped (.gz), as `evenhand.data.io.layouts.read_table` reads it; a folder, of which every such file
            is read, by name; or "datasets:NAME[@CONFIGURATION][:SPLIT]" for a data set of the hub, which is streamed.
        columns: Required columns; the table is refused if its first row lacks one.
        problems: Collects lines that are not rows; None discards them.

    Raises:
        DataError: There is no such file, it cannot be read, or it lacks a column.
        SettingsError: The name of a data set of the hub cannot be read.
    """
    noted = locate.Problems() if problems is None else problems
    found = _of_hub(source) if source.startswith(HUB) else _of_path(Path(source).expanduser(), noted)
    for n, (place, row) in enumerate(found):
        if n == 0 and (missing := [c for c in columns if c not in row]):
            raise DataError(f"{place} has no column {', '.join(map(repr, missing))}; it has {few(row, COLUMNS)}")
        yield place, row


def files(path: Path) -> list[Path]:
    """Return the tables at a path: the file itself, or those in the folder and below it, by name.

    Raises:
        DataError: There is none.
    """
    if path.is_file():
        return [path]
    found = [f for f in visible(path, "**/*") if kind_of(f) in KINDS] if path.is_dir() else []
    if not found:
        raise DataError(f"no table at {str(path)!r}: give a file ({', '.join(KINDS)}) or a folder of them")
    return found


def _of_path(path: Path, problems: locate.Problems) -> Iterator[Placed]:
    for file in files(path):
        if kind_of(file) not in KINDS:
            raise DataError(f"{file} is none of {', '.join(KINDS)}")
        for line, row in read_table(file, read_bytes(file, empty=True), (), problems):
            yield f"{file}:{line}", row


def _of_hub(source: str) -> Iterator[Placed]:
    for n, row in enumerate(hub.stream(hub.hub_of(source)), start=1):
        yield f"{source}:{n}", row
