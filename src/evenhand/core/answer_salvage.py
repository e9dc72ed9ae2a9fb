"""Rows of an answer cache with their checksums, and recovery of the intact rows of a damaged one.

SQLite notices some damage, in its own pages, and then refuses the whole file. Rows that it still reads, from both ends
up to the damaged page, are taken over if their checksum matches. If the file's first page is damaged, which has the
header and the names of the columns, the first page of a new cache replaces it for reading: it is the same in all
caches.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from evenhand.core import file_io
from evenhand.core.hashing import checksum
from evenhand.errors import reason

Row = tuple[Any, Any, Any, Any]
"""Key, value, seconds and checksum."""
CREATE = (
    "CREATE TABLE IF NOT EXISTS answers "
    "(key TEXT PRIMARY KEY, value TEXT, seconds REAL, checksum TEXT NOT NULL) WITHOUT ROWID"
)
COLUMNS = ("key", "value", "seconds", "checksum")
EARLIER_ENDS = (b"value TEXT) WITHOUT ROWID", b"seconds REAL) WITHOUT ROWID", b"checksum TEXT) WITHOUT ROWID")
"""Ends of the statement that made the table, in caches of earlier versions."""
INSERT = "INSERT OR REPLACE INTO answers (key, value, seconds, checksum) VALUES (?, ?, ?, ?)"
PAGE = 4096
"""Bytes of a page, SQLite's default."""
MAGIC = b"SQLite format 3\0"
PARTS = (b"TABLE answers", b"key TEXT PRIMARY KEY", b"value TEXT", b"WITHOUT ROWID")
"""Texts in the first page of every answer cache; two of them are enough to recognize a damaged one."""
DAMAGE = (
    sqlite3.SQLITE_ERROR,  # such as a column whose name has changed
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_FORMAT,
    sqlite3.SQLITE_SCHEMA,
    sqlite3.SQLITE_TOOBIG,
    sqlite3.SQLITE_MISMATCH,
    sqlite3.SQLITE_CONSTRAINT,
)
"""Kinds of errors that an intact cache on an intact disk does not raise."""
EXACT_DAMAGE = (
    sqlite3.SQLITE_READONLY,  # such as a header that says so; most of its kinds are about locks and folders
    sqlite3.SQLITE_READONLY_DBMOVED,
    sqlite3.SQLITE_IOERR_SHORT_READ,
)
"""Errors of other kinds that mean damage, too."""


def sealed_row(key: str, value: str, seconds: float | None) -> Row:
    """Make a row with its checksum."""
    return key, value, seconds, checksum(f"{key}\0{value}\0{seconds}")


def holds(row: Row, *, unsealed: bool = False) -> bool:
    """Whether a row is as it was written.

    Args:
        row: A row from SQLite.
        unsealed: Whether rows without a checksum are accepted, as in files of earlier versions.
    """
    key, value, seconds, stated = row
    if stated is None and unsealed:
        # the replacement character stands for bytes that are not UTF-8; JSON is written in ASCII
        return isinstance(key, str) and isinstance(seconds, float | None) and _is_json(value) and "\ufffd" not in value
    return bool(stated == checksum(f"{key}\0{value}\0{seconds}"))


def means_damage(error: sqlite3.Error, path: Path) -> bool:
    """Whether an error means that an answer cache is damaged, not locked, elsewhere, or another kind of file."""
    code = _code(error)
    if not _is_of_the_file(error, code):
        return False
    if not path.is_file() or not os.access(path, os.W_OK) or not os.access(path.parent, os.W_OK):
        return False
    with open(path, "rb") as file:
        first = file.read(PAGE)
    if sum(part in first for part in PARTS) >= 2:
        return True
    # a valid database of another program, or a file of another kind, is an error and stays where it is
    like = sum(a == b for a, b in zip(first, MAGIC, strict=False)) >= len(MAGIC) - 4 or not any(first[: len(MAGIC)])
    return like and (code is None or code & 0xFF not in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT))


def _is_of_the_file(error: sqlite3.Error, code: int | None) -> bool:
    """Whether an error can come from the file's content, rather than from how it is used."""
    if isinstance(error, sqlite3.ProgrammingError | sqlite3.InterfaceError):  # such as a closed connection
        return False
    if code is None:
        return "decode" in str(error)
    return code & 0xFF in DAMAGE or code in EXACT_DAMAGE


def _code(error: sqlite3.Error) -> int | None:
    try:
        return error.sqlite_errorcode
    except AttributeError:  # where Python itself raises it, as for a text that is not UTF-8
        return None


def identity(path: Path) -> tuple[int, int] | None:
    """Return what distinguishes a file from another one of its name; None if there is no file."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


def make_anew(path: Path, opened: tuple[int, int] | None, error: sqlite3.Error) -> str:
    """Replace a damaged cache with a new one that has its intact rows.

    Args:
        path: Path of the damaged cache, which nobody in this process has open.
        opened: Its `identity`. If the file has another one by now, another process has replaced it.
        error: SQLite's error about it.

    Returns:
        A line that says what was done; "" if another process did it.

    Raises:
        OSError: The new file cannot be written; the damaged one is where it was.
        sqlite3.Error: Likewise.
    """
    from filelock import FileLock

    with FileLock(path.with_name(f".{path.name}.lock")):
        if identity(path) != opened:
            return ""
        aside, kept = [path], [0]

        def write(part: Path) -> None:
            kept[0] = _take_over(path, part)
            aside[0] = _set_aside(path)

        file_io.write_with(path, write)
    return (
        f"the answer cache {path} was damaged ({reason(error)}): it is now {aside[0].name}, and {kept[0]:,} answers "
        "whose checksum holds were taken over; others are asked again"
    )


@contextmanager
def lenient(db: sqlite3.Connection) -> Iterator[None]:
    """Read texts that are not UTF-8 with replacement characters."""
    db.text_factory = lambda raw: raw.decode("utf-8", "replace")
    try:
        yield
    finally:
        db.text_factory = str


def scan(path: Path, unsealed: bool | None = None) -> Iterator[Row]:
    """Yield the intact rows of a cache: from the first on, and then from the last back to any damage.

    Rows of an earlier version, which lack seconds or a checksum, count as intact if they are JSON; they get a checksum.

    Args:
        path: A file that may be written to, as SQLite does when it opens one.
        unsealed: Whether the file is of an earlier version; None finds out from its columns.

    Raises:
        sqlite3.Error: Not all rows could be read; raised after the last one that could.
    """
    with closing(sqlite3.connect(path)) as db, lenient(db):
        try:
            if unsealed is None:
                unsealed = _may_be_unsealed(db)
            yield from _sound(db.execute("SELECT * FROM answers ORDER BY key"), unsealed)
        except (sqlite3.Error, ValueError, MemoryError) as error:
            with suppress(sqlite3.Error, ValueError, MemoryError):
                yield from _sound(db.execute("SELECT * FROM answers ORDER BY key DESC"), bool(unsealed))
            raise sqlite3.DatabaseError(str(error)) from error


def _may_be_unsealed(db: sqlite3.Connection) -> bool:
    """Whether the file is of an earlier version, so that its rows, or some of them, may lack a checksum."""
    columns = db.execute("PRAGMA table_info(answers)").fetchall()
    return len(columns) < len(COLUMNS) or not columns[len(COLUMNS) - 1][3]


def _sound(rows: Iterable[tuple[Any, ...]], unsealed: bool) -> Iterator[Row]:
    """Yield the intact rows, all with a checksum; columns by place, as their names may be damaged."""
    for row in rows:
        key, value, seconds, stated = (*row, *[None] * len(COLUMNS))[: len(COLUMNS)]
        if holds((key, value, seconds, stated), unsealed=unsealed):
            yield sealed_row(key, value, seconds)


def _take_over(damaged: Path, target: Path) -> int:
    """Write a new cache with the intact rows; returns how many there are."""
    with closing(sqlite3.connect(target)) as db, TemporaryDirectory(prefix=".", dir=damaged.parent) as folder:
        db.execute("PRAGMA journal_mode=OFF")  # no journal for a new file, which gets its name once it is whole
        db.execute(CREATE)
        for repaired in (False, True):
            copy = _copied(damaged, Path(folder), repaired)
            try:
                with db:
                    _insert(db, scan(copy, _was_unsealed(damaged) if repaired else None))
            except _CannotRead:
                continue
            break
        if not _count(db):  # no row has a checksum, which is the only sign of an earlier version that is left
            with suppress(_CannotRead):
                _insert(db, scan(copy, unsealed=True))
        return _count(db)


def _count(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT count(*) FROM answers").fetchone()[0])


def _was_unsealed(damaged: Path) -> bool:
    """Whether the first page, which SQLite cannot read, still shows that the file is of an earlier version.

    The statement that made the table ends with its last column; ALTER TABLE appends further ones.
    """
    with open(damaged, "rb") as file:
        first = file.read(PAGE)
    return any(end in first for end in EARLIER_ENDS)


class _CannotRead(Exception):
    """Not all rows of the damaged file could be read."""


def _insert(db: sqlite3.Connection, rows: Iterator[Row]) -> None:
    unread: list[sqlite3.Error] = []

    def readable() -> Iterator[Row]:
        try:
            yield from rows
        except sqlite3.Error as error:
            unread.append(error)

    db.executemany(INSERT, readable())
    db.commit()
    if unread:
        raise _CannotRead


def _copied(damaged: Path, folder: Path, repaired: bool) -> Path:
    """Copy a damaged cache and its write-ahead log for reading; `repaired` with the first page of a new cache."""
    copy = folder / f"copy-{repaired}"
    shutil.copyfile(damaged, copy)
    log = _log_of(damaged)
    if log.is_file():
        shutil.copyfile(log, _log_of(copy))
    if repaired:
        with open(copy, "r+b") as file:
            pages = -(-max(file.seek(0, os.SEEK_END), 2 * PAGE) // PAGE)
            file.truncate(pages * PAGE)
            file.seek(0)
            file.write(_first_page(folder, pages))
    return copy


def _first_page(folder: Path, pages: int) -> bytes:
    """Return the first page of a new cache with a number of pages."""
    file = folder / "new"
    with closing(sqlite3.connect(file)) as db:
        db.execute(f"PRAGMA page_size={PAGE}")
        db.execute("PRAGMA journal_mode=WAL")
        db.execute(CREATE)
    page = file.read_bytes()[:PAGE]
    return page[:28] + pages.to_bytes(4, "big") + page[32:]


def _set_aside(path: Path) -> Path:
    aside = file_io.move_aside(path)
    if _log_of(path).is_file():
        file_io.move_aside(_log_of(path))
    path.with_name(f"{path.name}-shm").unlink(missing_ok=True)
    return aside


def _log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def _is_json(value: Any) -> bool:
    try:
        json.loads(value)
    except (ValueError, TypeError, RecursionError):
        return False
    return True
