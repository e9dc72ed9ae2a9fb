"""The rows of a data set that is one table, as its reader converts them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from evenhand.core.hashing import bytes_hash
from evenhand.data.io import layouts, locate, rows
from evenhand.data.io.content import read_bytes
from evenhand.errors import DataError

T = TypeVar("T")


def read_one(
    file: Path, columns: Sequence[str], convert: Callable[[Mapping[str, Any]], T], *, what: str, how_to_get: str
) -> tuple[list[T], dict[str, Any]]:
    """Convert the rows of a table; those that cannot be converted are left out.

    Args:
        file: The table, in any form that `evenhand.data.io.layouts.read_table` reads.
        columns: Columns that a csv or tsv file must have.
        convert: From a row as it stands in the file. Raises `evenhand.data.io.rows.Refused` to leave a row out.
        what: What a row is, for messages, such as "pair of WinoQueer".
        how_to_get: Where the data is had, for messages.

    Returns:
        What the usable rows were converted to, in file order; and for the report `source`, `sha256` and `dropped`.

    Raises:
        DataError: The file is not what its name says, lacks a column, or has no usable row.
    """
    content = read_bytes(file)
    problems, found = locate.Problems(), list[T]()
    for number, row in layouts.read_table(file, content, columns, problems):
        try:
            found.append(convert(row))
        except rows.Refused as error:
            problems.add(file, number, str(error))
    if not found:
        raise DataError(f"{file} holds no usable {what}{problems.first}. {how_to_get}")
    return found, {"source": str(file), "sha256": bytes_hash(content), "dropped": problems.lines}
