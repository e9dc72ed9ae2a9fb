"""GPQA's files and rows in the forms that people have: csv as published, with semicolons, or parquet and the like.

Messages name files, lines and columns, and never hold the text of a cell; see `evenhand.data.gpqa`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isnan
from pathlib import Path
from typing import Any

from evenhand.data.io import layouts, locate, on_disk
from evenhand.data.io.csv import read_csv, refuse_twice
from evenhand.data.io.rows import Refused, kind
from evenhand.errors import DataError

KINDS = (".csv", ".tsv", ".parquet", ".arrow", ".jsonl", ".json")
"""Endings of tables, the published one first."""
_PREFIX = "gpqa_"


def subset_of(file: Path) -> str:
    """The subset that a file's name or that of its folder gives, such as "main"; "" where neither does."""
    for name in (layouts.published_stem(file), file.parent.name, file.parent.parent.name):
        if name.startswith(_PREFIX):
            return name.removeprefix(_PREFIX)
    return ""


def find(path: Path, subset: str) -> list[Path]:
    """The file of a subset, or its parts where a table is in several.

    Args:
        path: A file, or a folder of files called gpqa_<subset>, or of folders of that name with a table each.
        subset: Which one.

    Returns:
        The files; none where there is none.

    Raises:
        DataError: Several files could be meant; the message names them.
    """
    if path.is_file():
        return [path]
    found = layouts.published_tables(path, (f"{_PREFIX}{subset}",), KINDS)
    if not found:
        there = [file for file in layouts.other_tables(path, (), KINDS) if subset_of(file) == subset]
        first = next((k for k in KINDS if any(layouts.kind_of(file) == k for file in there)), "")
        found = [file for file in there if layouts.kind_of(file) == first]
    parts = len({file.parent for file in found}) == 1 and all("-of-" in file.name for file in found)
    if len(found) > 1 and not parts:
        raise DataError(
            f"{path} has {_PREFIX}{subset} in {on_disk.listed(found, path)}; name one of them as the source"
        )
    return found


def unread(path: Path, read: Sequence[Path], subset: str) -> list[str]:
    """A note on other files of the same subset."""
    others = [file for file in layouts.other_tables(path, read, KINDS) if subset_of(file) == subset]
    return on_disk.unread(others, path, f"{on_disk.short(read[0].name)} is read")


def read(
    file: Path, content: bytes, needed: Sequence[str], optional: Sequence[str], problems: locate.Problems
) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a file with their lines; missing cells are empty texts.

    Args:
        file: For its kind and for messages.
        content: The file, unpacked.
        needed: Columns that it must have.
        optional: Columns that are read where they are there.
        problems: Where rows are noted that cannot be read.

    Raises:
        DataError: A needed column is missing, or one is there twice.
    """
    if layouts.kind_of(file) in (".csv", ".tsv"):
        yield from _delimited(file, content, needed, optional, problems)
        return
    for number, row in layouts.read_table(file, content, (), problems):
        if number == 1:
            _demand(file, list(row), needed)
        try:
            yield number, {name: _text(row.get(name), name) for name in (*needed, *optional)}
        except Refused as error:
            problems.add(file, number, str(error))


def _delimited(
    file: Path, content: bytes, needed: Sequence[str], optional: Sequence[str], problems: locate.Problems
) -> Iterator[tuple[int, dict[str, str]]]:
    lines = read_csv(file, content, problems, layouts.delimiter_of(content))
    _, head = next(lines, (1, []))
    if not head:
        return
    head = [name.strip() for name in head]
    _demand(file, head, needed)
    refuse_twice(file, head, (*needed, *optional))
    for line, cells in lines:
        if len(cells) != len(head):
            problems.add(file, line, f"{len(cells)} columns; the first line has {len(head)}")
        else:
            yield line, dict(zip(head, cells, strict=True))


def _demand(file: Path, columns: Sequence[str], needed: Sequence[str]) -> None:
    missing = [name for name in needed if name not in columns]
    if missing:
        raise DataError(f"{file}:1: column {missing[0]!r} is missing; GPQA's files have {', '.join(needed)}")


def _text(value: Any, name: str) -> str:
    """A cell as text; "" for one that is missing.

    Raises:
        Refused: It is something else than a text or a whole number; the message does not hold it.
    """
    if value is None or (isinstance(value, float) and isnan(value)):
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise Refused(f"column {name!r} is {kind(value)}, not a text")
    return str(value)
