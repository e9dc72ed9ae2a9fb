"""Reading csv and tsv files: every line that cannot be used is named, and costs nothing else."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from evenhand.data.io.csv import NOT_UTF8, refuse_twice
from evenhand.data.io.locate import Problems
from evenhand.data.io.on_disk import COLUMNS, few
from evenhand.errors import DataError

_DOUBLED = re.compile(r'(?:^|\t)"(?:[^"\t]|"")*""(?:[^"\t]|"")*"(?=\t|\r|\n|$)', re.MULTILINE)
"""A quoted cell with quotes within."""


def read_delimited(
    path: Path,
    content: bytes,
    columns: Sequence[str],
    problems: Problems,
    *,
    delimiter: str = ",",
    encodings: Sequence[str] = ("utf-8-sig",),
) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows of a file with a header line, each with the number of the line that it ends on.

    Args:
        path: For messages.
        content: The file, unpacked.
        columns: Columns that must be there; every other one is kept too.
        problems: Where lines with too few or too many fields are noted.
        delimiter: Between fields.
        encodings: Tried in this order.

    Raises:
        DataError: The file is empty, in none of several encodings, or one of the columns is missing or there twice.
    """
    text = _decoded(path, content, encodings)
    lines = io.StringIO(text, newline="")
    if delimiter == "\t" and not _quotes_as_csv(text):  # else a quote in a tsv file is just a quote
        reader = csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE, strict=True)
    else:
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        first = next(reader, None)
    except csv.Error as error:  # such as a quote that is never closed
        raise DataError(f"{path}:1: not csv: {error}") from error
    header = _header(path, first, columns)
    while True:
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:  # an open quote has swallowed all that follows
            problems.add(path, reader.line_num, f"broken, and everything after it is left out: {error}")
            return
        if not fields:
            continue
        if len(fields) != len(header):
            problems.add(path, reader.line_num, f"{len(fields)} fields, but the header has {len(header)}")
            continue
        bad = next((c for c, cell in zip(header, fields, strict=True) if NOT_UTF8.search(cell)), None)
        if bad is not None:
            problems.add(path, reader.line_num, f"column {bad!r} is not UTF-8")
            continue
        row: dict[str, str] = {}
        for name, cell in zip(header, fields, strict=True):
            row.setdefault(name, cell)  # of another column that is there twice, the first
        yield reader.line_num, row


def _quotes_as_csv(text: str) -> bool:
    """Whether a tsv file was written by the rules of csv, as Excel and pandas do: quotes double within a quoted cell.

    A cell with such quotes is the sign; then the whole text must be readable by these rules.
    """
    if not _DOUBLED.search(text):
        return False
    try:
        return (
            len({len(row) for row in csv.reader(io.StringIO(text, newline=""), "excel-tab", strict=True) if row}) == 1
        )
    except csv.Error:
        return False


def blank(row: dict[str, str], columns: Sequence[str]) -> str:
    """Which of the columns of a row holds nothing, said as a reason to leave the row out; "" where all are filled."""
    return next((f"column {c!r} is empty" for c in columns if not row[c].strip()), "")


def _header(path: Path, header: list[str] | None, columns: Sequence[str]) -> list[str]:
    """The names of the columns, without blanks around them."""
    if header is None:
        wanted = f" with {', '.join(columns)}" if columns else " line"
        raise DataError(f"{path} is empty; a header{wanted} was expected")
    names = [name.strip() for name in header]
    missing = [c for c in columns if c not in names]
    if missing:
        raise DataError(f"{path} has no column {', '.join(map(repr, missing))}; it has {few(names, COLUMNS)}")
    refuse_twice(path, names, columns)
    return names


def _decoded(path: Path, content: bytes, encodings: Sequence[str]) -> str:
    if len(encodings) == 1:  # a cell that cannot be read costs its row alone
        return content.decode(encodings[0], "surrogateescape")
    for encoding in encodings:
        try:
            return content.decode(encoding)
        except UnicodeDecodeError as error:
            reason = f"{error.reason} at byte {error.start}"
    raise DataError(f"{path} is in none of the encodings {', '.join(encodings)}: {reason}")
