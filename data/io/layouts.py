"""Tables as they lie on a disk after a download: jsonl, JSON, csv, parquet and the arrow files of `save_to_disk`.

A folder may hold them directly, in `data/`, or in folders of configurations and splits, as the hub has them.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from evenhand.data.io import locate, rows
from evenhand.data.io.content import EMPTY
from evenhand.data.io.delimited import read_delimited
from evenhand.data.io.on_disk import ARCHIVES, SHOWN, few, listed, named, plain_name, short, visible
from evenhand.errors import DataError, reason

TABLES = (".jsonl", ".parquet", ".arrow", ".json", ".csv", ".tsv")
"""Kinds of files that are read, the first one that a folder has before the others."""
DELIMITERS = ",;\t"
BATCH = 4096
"""Rows of parquet and arrow that are Python objects at a time."""
PLACES = ("*", "data/*", "*/*", "*/*/*", "*/*/*/*", "*/*/*/*/*")
"""Where the tables of a folder lie, the nearest first: an unpacked archive of a repository is up to four deeper."""
_NO_ROWS = ("dataset_info.json", "dataset_dict.json", "dataset_infos.json", "state.json")
"""Files that `datasets` puts next to its tables."""


def kind_of(path: Path) -> str:
    """The ending of a table's name, without .gz."""
    return Path(path.name.removesuffix(".gz")).suffix.lower()


def tables(path: Path, kinds: Sequence[str] = TABLES) -> list[Path]:
    """The tables of a data set: `path` itself, or all those of one kind in the nearest folders that have any.

    Args:
        path: A file, or a folder of files or of configurations and splits, up to four folders deep (`PLACES`).
        kinds: Endings that will do, the best one first.

    Returns:
        Sorted by path; none where there is no table.
    """
    if path.is_file():
        return [path] if kind_of(path) in kinds else []
    for place in PLACES:
        there = [file for file in visible(path, place) if file.name not in _NO_ROWS]
        for kind in kinds:
            if found := [f for f in there if kind_of(f) == kind]:
                return found
    return []


def other_tables(path: Path, read: Collection[Path], kinds: Sequence[str] = TABLES) -> list[Path]:
    """The tables of a folder, wherever `tables` looks, that were not read; none where `path` is a file.

    Args:
        path: As in `tables`.
        read: Files that were read.
        kinds: Endings that count.
    """
    there = visible(path, *PLACES) if path.is_dir() else []
    return [f for f in there if kind_of(f) in kinds and f.name not in _NO_ROWS and f not in read]


def published_tables(path: Path, stems: Collection[str], kinds: Sequence[str] = TABLES) -> list[Path]:
    """The tables under a data set's published names, of one kind, in the nearest folders that have any.

    Args:
        path: A folder, as in `tables`.
        stems: The published names without their endings; a file called "NAME (1)" counts where there is no "NAME".
        kinds: As in `tables`.

    Raises:
        DataError: Several renamed copies of one file are there, and it is not; the message names them.
    """
    for place in PLACES:
        there = [file for file in visible(path, place) if published_stem(file) in stems]
        for kind in kinds:
            if found := [file for file in there if kind_of(file) == kind]:
                return _without_copies(path, found)
    return []


def published_stem(file: Path) -> str:
    """A table's published name without its ending, whatever was added to it; see `on_disk.plain_name`."""
    return plain_name(file.name).rpartition(".")[0]


def _without_copies(path: Path, found: Sequence[Path]) -> list[Path]:
    """Keep only the file among it and its renamed copies in a folder."""
    kept: list[Path] = []
    for place in dict.fromkeys((file.parent, published_stem(file)) for file in found):
        same = [file for file in found if (file.parent, published_stem(file)) == place]
        exact = [file for file in same if locate.stem(file) == place[1]]
        if not exact and len(same) > 1:
            raise DataError(f"{path} has {short(place[1])} in {listed(same, path)}; keep one of them, or name it")
        kept += exact or same
    return kept


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


def only_table(path: Path, name: str, what: str, columns: Sequence[str], kinds: Sequence[str] = TABLES) -> Path:
    """The published file of a data set that is one table where it is there, else the only table.

    Args:
        path: As in `tables`.
        name: Name of the published file.
        what: Name of the data set.
        columns: What a table must have, for messages.
        kinds: As in `tables`.

    Raises:
        DataError: There is no table, or several could be meant; the message names them.
    """
    if path.is_file():
        return path
    if published := named(path, name):
        return published
    known = f"{name}, or a csv, tsv, jsonl, parquet or arrow file with {', '.join(columns)}"
    found = demanded_tables(path, what, known, kinds)
    if len(found) > 1:
        raise DataError(
            f"{path} holds several tables, {listed(found, path)}, and none is called {name}; name one of them"
        )
    return found[0]


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
    if not content:
        problems.add(path, 1, EMPTY)
    elif kind in (".csv", ".tsv"):
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
    found = {mark: _columns(head, mark) for mark in usual + DELIMITERS}
    return max(found, key=lambda mark: found[mark])


def _columns(head: str, mark: str) -> int:
    """Cells of the first line."""
    try:
        return len(next(csv.reader(io.StringIO(head, newline=""), delimiter=mark), []))
    except csv.Error:  # the reader of the whole file says what is wrong
        return 0


def found_in(path: Path) -> str:
    """What lies at a place, in a few words."""
    if path.is_file():
        return f"one file {short(path.name)}"
    names = [str(file.relative_to(path)) for file in visible(path, "**/*")]
    kinds = Counter(kind_of(Path(name)) or "no ending" for name in names)
    counted = ", ".join(f"{count} {short(kind, 12)}" for kind, count in kinds.most_common(SHOWN))
    return f"{counted} ({few(names)}){_remedy(names)}" if names else "an empty folder"


def _remedy(names: Sequence[str]) -> str:
    """What to do about files that only look like no tables: packed ones, and those that Windows named .txt."""
    if packed := [name for name in names if name.lower().endswith(ARCHIVES) and kind_of(Path(name)) not in TABLES]:
        return f"; unpack {short(packed[0])} first"
    renamed = [name for name in names if name.endswith(".txt") and kind_of(Path(name.removesuffix(".txt"))) in TABLES]
    return f"; rename {short(renamed[0])} so that it ends in {kind_of(Path(renamed[0][:-4]))}" if renamed else ""


def _arrow_rows(path: Path, content: bytes, kind: str) -> Iterator[dict[str, Any]]:
    """Rows of parquet or arrow, of which only a few thousand at a time are Python objects."""
    import pyarrow as pa

    try:
        for batch in _batches(content, kind):
            yield from batch.to_pylist()
    except (OSError, pa.ArrowException, ValueError, OverflowError) as error:  # the last two of dates that Python lacks
        raise DataError(f"{path} is not {kind[1:]} that can be read: {reason(error)}") from error


def _batches(content: bytes, kind: str) -> Iterable[Any]:
    """Parts of a table; `save_to_disk` writes streams, and other tools files."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = pa.BufferReader(content)
    if kind == ".parquet":
        batches: Iterable[Any] = pq.ParquetFile(buffer).iter_batches(batch_size=BATCH)
        return batches
    opened = pa.ipc.open_file(buffer) if content.startswith(b"ARROW1") else pa.ipc.open_stream(buffer)
    table = opened.read_all()
    table.validate(full=True)  # the offsets of a damaged file would be followed out of memory
    parts: Iterable[Any] = table.to_batches(max_chunksize=BATCH)
    return parts


def _json(path: Path, content: bytes, problems: locate.Problems) -> Iterator[tuple[int, dict[str, Any]]]:
    """A list of objects, or a single one; some sets name .json what are objects line by line."""
    try:
        value = rows.from_json(rows.decoded(content))
    except ValueError as error:
        if content.lstrip(b"\xef\xbb\xbf \r\n\t")[:1] == b"[":
            raise DataError(f"{path} is not JSON: {reason(error)}") from error
        yield from locate.read_jsonl(path, content, problems)
        return
    for number, row in enumerate(value if isinstance(value, list) else [value], start=1):
        if isinstance(row, dict):
            yield number, row
        else:
            problems.add(path, number, f"a JSON object was expected, not {type(row).__name__}")
