"""Reading csv rows without guessing: all cells are text, and an unusable row is reported and left out."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from evenhand.data.io.content import EMPTY
from evenhand.data.io.locate import Problems
from evenhand.errors import DataError

NOT_UTF8 = re.compile("[\udc80-\udcff]")
"""Characters that Python makes of bytes that are not UTF-8 under `surrogateescape`."""


def read_csv(path: Path, content: bytes, problems: Problems, delimiter: str = ",") -> Iterator[tuple[int, list[str]]]:
    """Yield rows with the number of their first line; quoted cells may contain line breaks, and "None" is a word.

    A row that is not UTF-8 goes to `problems` by line and column. A quote that is never closed swallows what follows,
    so reading ends there. Messages never contain the text of a cell, since some data sets may not be quoted.
    """
    if not content:
        problems.add(path, 1, EMPTY)
    text = content.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    begun = 1
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            problems.add(path, begun, f"not csv: {error}; this row and all after it are left out")
            return
        bad = next((c for c, cell in enumerate(row, start=1) if NOT_UTF8.search(cell)), 0)
        if bad:
            problems.add(path, begun, f"column {bad} is not UTF-8")
        elif row:
            yield begun, row
        begun = reader.line_num + 1


def refuse_twice(path: Path, header: Sequence[str], columns: Sequence[str]) -> None:
    """Refuse a file that has a required column twice, since it is unknown which of the two is meant.

    Raises:
        DataError: Names the column.
    """
    for name in columns:
        if header.count(name) > 1:
            raise DataError(f"{path}:1: column {name!r} occurs {header.count(name)} times; keep one of them")
