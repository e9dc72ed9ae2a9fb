"""Bias rows of data sets whose files say by their names what their rows do not, such as the language."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from evenhand.data.bias_rows import BiasRow, BiasRows, check_counts, read_bias_rows
from evenhand.data.io import layouts
from evenhand.errors import SHOWN, DataError, short

Convert = Callable[[Mapping[str, Any]], BiasRow]


def read_each(
    name: str, path: Path, converters: Mapping[Path, Convert], published: Mapping[str, str] | None = None
) -> BiasRows:
    """Read files that are converted differently; one without a usable row costs no other file.

    Args:
        name: The data set.
        path: Where the files were looked for.
        converters: From a file's rows to ours, by file and in the order of the rows.
        published: SHA-256 of the official files' content by their stem; None where they are not known.

    Returns:
        The rows of all files; facts as those of `read_bias_rows`.

    Raises:
        DataError: Not one row of any file can be used, or two rows have the same id.
    """
    rows, files, dropped, notes, errors = list[BiasRow](), dict[str, Any](), list[str](), list[str](), list[str]()
    for file, convert in converters.items():
        try:
            found = read_bias_rows(name, path, [file], convert, published=published)
        except DataError as error:
            errors.append(str(error))
            continue
        rows += found.rows
        files |= found.facts["files"]
        dropped += found.facts["dropped"]
        notes += found.facts["notes"]
    if not rows:
        raise DataError(errors[0] if errors else f"{path} holds no file of {name}")
    _refuse_twice(name, path, rows)
    facts = {"source": str(path), "rows": len(rows), "files": files, "dropped": dropped, "notes": [*notes, *errors]}
    return BiasRows(rows, facts)


def count_notes(found: Mapping[str, int], published: Mapping[str, int], where: object) -> list[str]:
    """Compare the rows of each part of a data set with the published numbers.

    Args:
        found: Rows per part that is there, such as "Age, ambiguous".
        published: Rows per published part.
        where: The folder, for messages.

    Returns:
        A note per part with fewer rows; parts that are not there at all are not compared.

    Raises:
        DataError: A part has more rows than were published, so that the files are not the official ones.
    """
    for part, count in found.items():
        if count > (expected := published.get(part, 0)):
            raise DataError(
                f"{where} has {count:,} rows of {short(part, SHOWN)}, not the published {expected:,}. Leave out "
                "what is not official, or take the official files again"
            )
    return check_counts(found, published, where)


def files_of(path: Path, what: str, known: str) -> list[Path]:
    """The tables of a data set, without what spreadsheets leave next to them ("~$data.json").

    Args:
        path: A file or a folder.
        what: Name of the data set.
        known: Its layouts, in a few words.

    Raises:
        DataError: There is no table.
    """
    return [file for file in layouts.demanded_tables(path, what, known) if not file.name.startswith("~$")]


def _refuse_twice(name: str, path: Path, rows: list[BiasRow]) -> None:
    seen: set[str] = set()
    for row in rows:
        if row.id in seen:
            raise DataError(f"{path} holds the row {row.id!r} of {name} in two files; leave one of them out")
        seen.add(row.id)
