"""Reading csv and tsv files: every unusable line is reported and does not affect the others."""

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

_QUOTED = re.compile(r'(?:^|\t)"((?:[^"\t]|"")*+)"(?=\t|\r|\n|$)', re.MULTILINE)
"""Pattern of a quoted cell and its content."""


class _Plain(csv.excel):
    """Dialect of tables in which quotes have no special meaning."""

    quoting = csv.QUOTE_NONE


def read_delimited(
    path: Path,
    content: bytes,
    columns: Sequence[str],
    problems: Problems,
    *,
    delimiter: str = ",",
    encodings: Sequence[str] = ("utf-8-sig",),
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the rows of a file with a header line, each with the number of its last line.

    Args:
        path: For messages.
        content: The file, unpacked.
        columns: Required columns; all others are kept too.
        problems: Where lines with too few or too many fields are noted.
        delimiter: Delimiter between fields.
        encodings: Encodings to try, in this order.

    Raises:
        DataError: The file is empty, in none of several encodings, or one of the columns is missing or there twice.
    """
    text = _decoded(path, content, encodings)
    dialect = csv.excel if _quotes_as_csv(text, delimiter) else _Plain
    reader = csv.reader(io.StringIO(text, newline=""), dialect, delimiter=delimiter, strict=True)
    header = _header(path, reader, columns)
    while True:
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:  # an open quote has swallowed all that follows
            problems.add(path, reader.line_num, f"broken, and everything after it is left out: {error}")
            return
        if reason := _wrong(header, fields):
            problems.add(path, reader.line_num, reason)
        elif fields:
            yield reader.line_num, _row(header, fields)


def _row(header: Sequence[str], fields: Sequence[str]) -> dict[str, str]:
    """Return cells by column; of a column that occurs twice, the first."""
    row: dict[str, str] = {}
    for name, cell in zip(header, fields, strict=True):
        row.setdefault(name, cell)
    return row


def _wrong(header: Sequence[str], fields: Sequence[str]) -> str:
    """Return why a line cannot be used; "" if it can, or is empty."""
    if not fields:
        return ""
    if len(fields) != len(header):
        return f"{len(fields)} fields, but the header has {len(header)}"
    bad = next((c for c, cell in zip(header, fields, strict=True) if NOT_UTF8.search(cell)), None)
    return "" if bad is None else f"column {bad!r} is not UTF-8"


def _quotes_as_csv(text: str, delimiter: str) -> bool:
    """Whether quotes go by the rules of csv, by which they double within a quoted cell; see `_Plain`.

    In a tsv file they are where Excel or pandas wrote it: a cell with such quotes is the sign, and then the whole text
    must be readable by these rules.
    """
    if delimiter != "\t":
        return True
    if not any('""' in found[1] for found in _QUOTED.finditer(text)):
        return False
    try:
        return (
            len({len(row) for row in csv.reader(io.StringIO(text, newline=""), "excel-tab", strict=True) if row}) == 1
        )
    except csv.Error:
        return False


def blank(row: dict[str, str], columns: Sequence[str]) -> str:
    """Return, as a reason to leave the row out, which column is empty; "" if all are filled."""
    return next((f"column {c!r} is empty" for c in columns if not row[c].strip()), "")


def _header(path: Path, reader: Iterator[list[str]], columns: Sequence[str]) -> list[str]:
    """Read the names of the columns in the first line, stripped."""
    try:
        header = next(reader, None)
    except csv.Error as error:  # such as a quote that is never closed
        raise DataError(f"{path}:1: not csv: {error}") from error
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
