"""Tables as they lie on a disk after a download: jsonl, JSON, csv, parquet and the arrow files of `save_to_disk`.

A folder may hold them directly, in `data/`, or in folders of configurations and splits, as the hub has them.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from evenhand.data.io import locate, rows
from evenhand.data.io.delimited import read_delimited
from evenhand.errors import DataError

TABLES = (".jsonl", ".parquet", ".arrow", ".json", ".csv", ".tsv")
"""Kinds of files that are read, the first one that a folder has before the others."""
DELIMITERS = ",;\t"
BATCH = 4096
"""Rows of parquet and arrow that are Python objects at a time."""
SHOWN = 5
"""Names of files that a message lists."""
_NO_ROWS = ("dataset_info.json", "dataset_dict.json", "dataset_infos.json", "state.json")
"""Files that `datasets` puts next to its tables."""


def kind_of(path: Path) -> str:
    """The ending of a table's name, without .gz."""
    return Path(path.name.removesuffix(".gz")).suffix.lower()


def tables(path: Path, kinds: Sequence[str] = TABLES) -> list[Path]:
    """The tables of a data set: `path` itself, or all those of one kind in the nearest folders that have any.

    Args:
        path: A file, or a folder of files or of configurations and splits (two levels deep).
        kinds: Endings that will do, the best one first.

    Returns:
        Sorted by path; none where there is no table.
    """
    if path.is_file():
        return [path] if kind_of(path) in kinds else []
    for places in ("*", "data/*", "*/*", "*/*/*"):
        there = sorted(f for f in path.glob(places) if f.is_file() and f.name not in _NO_ROWS and f.name[0] != ".")
        for kind in kinds:
            if found := [f for f in there if kind_of(f) == kind]:
                return found
    return []


def demanded_tables(path: Path, what: str, known: str, kinds: Sequence[str] = TABLES) -> list[Path]:
    """The tables of a data set, of which there must be one.

    Args:
        path: As in `tables`.
        what: Name of the data set.
        known: Its layouts, in a few words each.
        kinds: As in `tables`.

    Raises:
        DataError: There is none; the message says which layouts are known, and what lies there instead.
    """
    found = tables(path, kinds)
    if not found:
        raise DataError(f"{path} holds {what} in no known layout: no {known}; found: {found_in(path)}")
    return found


def read_table(
    path: Path, content: bytes, columns: Sequence[str], problems: locate.Problems
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of a table with their numbers; what cannot be read goes to `problems`.

    Args:
        path: For its kind and for messages.
        content: The file, unpacked.
        columns: Columns that a csv file must have.
        problems: Where rows are noted that cannot be read.

    Raises:
        DataError: The file as a whole is not what its name says, or lacks a column.
    """
    kind = kind_of(path)
    if kind in (".csv", ".tsv"):
        mark = delimiter_of(content, "\t" if kind == ".tsv" else ",")
        yield from read_delimited(path, content, columns, problems, delimiter=mark)
    elif kind in (".parquet", ".arrow"):
        yield from enumerate(_arrow_rows(path, content, kind), start=1)
    elif kind == ".json":
        yield from _json(path, content, problems)
    else:
        yield from locate.read_jsonl(path, content, problems)


def delimiter_of(content: bytes, usual: str = ",") -> str:
    """What parts the columns of a csv file: of comma, semicolon and tab the one that its first line has most of.

    Args:
        content: The file, unpacked.
        usual: Taken where the first line has as many of it as of another one, such as none of any.
    """
    head = content[:10_000].decode("utf-8", "replace").lstrip("\ufeff")
    found = {mark: len(next(csv.reader(io.StringIO(head), delimiter=mark), [])) for mark in usual + DELIMITERS}
    return max(found, key=lambda mark: found[mark])


def found_in(path: Path) -> str:
    """What lies at a place, in a few words."""
    if path.is_file():
        return f"one file {path.name}"
    names = sorted(str(f.relative_to(path)) for f in path.rglob("*") if f.is_file())
    kinds = Counter(kind_of(Path(name)) or "no ending" for name in names)
    counted = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(SHOWN))
    shown = ", ".join(names[:SHOWN]) + (" ..." if len(names) > SHOWN else "")
    return f"{counted} ({shown})" if names else "an empty folder"


def _arrow_rows(path: Path, content: bytes, kind: str) -> Iterator[dict[str, Any]]:
    """Rows of parquet or arrow, of which only a few thousand at a time are Python objects."""
    import pyarrow as pa

    try:
        for batch in _batches(content, kind):
            yield from batch.to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} is not {kind[1:]}: {str(error).splitlines()[0][:200]}") from error


def _batches(content: bytes, kind: str) -> Iterable[Any]:
    """Parts of a table; `save_to_disk` writes streams, and other tools files."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = pa.BufferReader(content)
    if kind == ".parquet":
        batches: Iterable[Any] = pq.ParquetFile(buffer).iter_batches(batch_size=BATCH)
        return batches
    opened = pa.ipc.open_file(buffer) if content.startswith(b"ARROW1") else pa.ipc.open_stream(buffer)
    parts: Iterable[Any] = opened.read_all().to_batches(max_chunksize=BATCH)
    return parts


def _json(path: Path, content: bytes, problems: locate.Problems) -> Iterator[tuple[int, dict[str, Any]]]:
    """A list of objects, or a single one; some sets name .json what are objects line by line."""
    try:
        value = rows.from_json(rows.decoded(content))
    except ValueError as error:
        if content.lstrip(b"\xef\xbb\xbf \r\n\t")[:1] == b"[":
            raise DataError(f"{path} is not JSON: {str(error)[:200]}") from error
        yield from locate.read_jsonl(path, content, problems)
        return
    for number, row in enumerate(value if isinstance(value, list) else [value], start=1):
        if isinstance(row, dict):
            yield number, row
        else:
            problems.add(path, number, f"a JSON object was expected, not {type(row).__name__}")
