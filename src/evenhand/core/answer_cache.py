"""The leaf cache: every answer of a loaded model, stored by content and never asked for twice.

A key is a hash of (model fingerprint, verb, request, sampling, draw); a value is JSON. SQLite in WAL mode, no pickle.
Every answer is stored with the seconds that it took, so that its cost is known when it is taken from here too, and with
a checksum of key, value and seconds. An answer that does not match it counts as missing, with a warning; a file that
SQLite can no longer read is made anew from the answers whose checksum matches (`evenhand.core.answer_salvage`).
The cache is active within `with answer_cache(path):`, wherever the models are, and however deeply they are wrapped.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
import warnings
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from evenhand.core import answer_salvage, file_io, rechecks
from evenhand.core.answer_salvage import CREATE, INSERT, Row, holds, lenient, sealed_row
from evenhand.core.hashing import stream_hash, text_hash, utf8
from evenhand.errors import RunError, reason

WAIT_SECONDS = 60
"""How long to wait for another process that has locked the file."""

MERGE = INSERT.replace("OR REPLACE", "OR IGNORE")
T = TypeVar("T")

_active: ContextVar[AnswerCache | None] = ContextVar("evenhand_cache", default=None)


def key(*parts: Any) -> str:
    """SHA-256 over the JSON of `parts`; floats are written exactly."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return text_hash(text)


def contents(items: Iterable[Any]) -> str:
    """SHA-256 over the ids, clusters and fields of items: equal in every process for equal items.

    Args:
        items: A benchmark's items; dataclasses as a rule.
    """
    lines = (
        json.dumps([item.id, item.cluster, _spelled(item)], ensure_ascii=False, separators=(",", ":")) for item in items
    )
    return stream_hash(utf8(line) + b"\n" for line in lines)


def _spelled(value: Any) -> Any:
    """Convert a value for JSON. `repr` would not do: sets have no fixed order, and objects show their address."""
    kind = type(value)
    if value is None or kind in (str, int, float, bool):
        return value
    if isinstance(value, tuple | list):
        return [_spelled(v) for v in value]
    if is_dataclass(value) and not isinstance(value, type):
        return [_spelled(getattr(value, f.name)) for f in fields(value)]
    if isinstance(value, Mapping):
        return sorted(([_spelled(k), _spelled(v)] for k, v in value.items()), key=json.dumps)
    if isinstance(value, set | frozenset):
        return sorted((_spelled(v) for v in value), key=json.dumps)
    if isinstance(value, str | Path):
        return str(value)
    if hasattr(value, "tolist"):  # numpy
        return [str(getattr(value, "dtype", "")), value.tolist()]
    if isinstance(value, type) or callable(value):
        return getattr(value, "__qualname__", kind.__qualname__)
    if hasattr(value, "__dict__"):
        return _spelled(vars(value))
    shown = repr(value)
    return kind.__qualname__ if " at 0x" in shown else shown


class AnswerCache:
    """A key-value table on disk; safe for several processes and threads at once."""

    def __init__(self, path: str | Path) -> None:
        """Open or create the table; a damaged one is made anew, with a warning.

        Raises:
            RunError: The file cannot be opened or is not an answer cache.
        """
        self.path = Path(path)
        self._lock = threading.Lock()  # one connection has one transaction at a time
        self.hits = 0
        self.misses = 0
        self.saved = 0.0
        """Seconds that the answers found here took when they were computed."""
        self.untimed = 0
        """Number of answers found here without recorded seconds."""
        self.damaged = 0
        """Number of answers that did not match their checksum, and were not used."""
        self._since = time.monotonic()
        self._opened = answer_salvage.identity(self.path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._open()
            except sqlite3.Error as error:
                if not self._made_anew(error):
                    raise
        except (sqlite3.Error, OSError) as error:
            full = file_io.lacks_space(error) or "disk I/O error" in str(error)
            remedy = "; free some space and run again: what was answered is kept" if full else ""
            raise RunError(f"cannot use {self.path} as answer cache: {reason(error)}{remedy}") from error

    def get(self, keys: Sequence[str], *, counted: bool = True) -> dict[str, Any]:
        """Return the stored values of those keys that are there.

        Args:
            keys: Names under which values were stored.
            counted: Whether they are answers, which count as found or missing; False for facts about a model.

        Raises:
            RunError: The file cannot be read.
        """
        found: dict[str, Any] = {}
        wanted = list(dict.fromkeys(keys))
        for start in range(0, len(wanted), 500):
            part = wanted[start : start + 500]
            rows = self._run(partial(_selected, keys=part))
            read = self._read(rows)
            found.update((k, v) for k, v, _ in read)
            if counted:
                self.saved += sum(s for _, _, s in read if s is not None)
                self.untimed += sum(s is None for _, _, s in read)
        if counted:
            self.hits += len(found)
            self.misses += len(wanted) - len(found)
        self._since = time.monotonic()
        return found

    def put(self, values: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> None:
        """Store values; all of them are safe on disk, or none is.

        Each is stored with its share of the seconds since the last `get` or `put`: callers look here first, and return
        after each batch.

        Raises:
            RunError: The disk is full; what was stored before is kept.
        """
        pairs = values.items() if isinstance(values, Mapping) else values
        # Escaped: a reply may contain half a surrogate pair, which SQLite does not take.
        texts = [(k, json.dumps(v)) for k, v in pairs]
        now = time.monotonic()
        each = (now - self._since) / max(1, len(texts))
        self._since = now
        rows = [sealed_row(k, v, each) for k, v in texts]
        if (ledger := rechecks.active()) is not None:
            ledger.store(k for k, _ in texts)
        try:
            self._write(INSERT, rows)
        except sqlite3.Error as error:
            room = file_io.space(self.path.parent, sum(len(value) for _, value, *_ in rows))
            raise RunError(
                f"cannot write to {self.path} ({error}; {room}); free some space and run again: what was answered is "
                "kept"
            ) from error

    def remove(self, keys: Iterable[str]) -> None:
        """Remove answers, such as those stored under a hash that the weights no longer had."""
        self._write("DELETE FROM answers WHERE key = ?", [(k,) for k in keys])

    def rows(self, but: Container[str] = ()) -> list[Row]:
        """Return answers as they are stored, to be merged into another cache.

        Args:
            but: Keys of those to leave out.
        """
        keys = [k for (k,) in self._run(lambda db: db.execute("SELECT key FROM answers").fetchall()) if k not in but]
        parts = [keys[start : start + 500] for start in range(0, len(keys), 500)]
        return [row for part in parts for row in self._run(partial(_selected, keys=part))]

    def merge(self, rows: Iterable[Row]) -> None:
        """Store answers of another cache; existing ones stay, and damaged ones are not taken.

        Raises:
            RunError: The disk is full; what was stored before is kept.
        """
        try:
            self._write(MERGE, [row for row in rows if holds(row, unsealed=False)])
        except sqlite3.Error as error:
            raise RunError(f"cannot write to {self.path} ({error}); free some space and run again") from error

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __len__(self) -> int:
        """Number of stored answers."""
        return self._run(lambda db: int(db.execute("SELECT count(*) FROM answers").fetchone()[0]))

    def _open(self) -> None:
        self._db = sqlite3.connect(self.path, timeout=WAIT_SECONDS, check_same_thread=False)
        self._use_wal()
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.execute(CREATE)
        self._take_over_earlier()
        self._opened = answer_salvage.identity(self.path)

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return what a read gives; a damaged file is made anew first, once."""
        try:
            with self._lock:
                try:
                    return work(self._db)
                except sqlite3.Error as error:
                    if not self._made_anew(error):
                        raise
                return work(self._db)
        except sqlite3.Error as error:
            raise RunError(
                f"the answer cache {self.path} cannot be read ({reason(error)}); remove it, and its answers are asked "
                "again"
            ) from error

    def _write(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        """Write all rows or none; into a new file if this one is damaged."""
        with self._lock:
            try:
                with self._db:
                    self._db.executemany(statement, rows)
                return
            except sqlite3.Error as error:
                if not self._made_anew(error):
                    raise
            with self._db:
                self._db.executemany(statement, rows)

    def _read(self, rows: Sequence[Row]) -> list[tuple[str, Any, float | None]]:
        """Return keys, values and seconds of the rows that are as they were written."""
        sound = [row for row in rows if holds(row, unsealed=self._unsealed)]
        read = [(k, json.loads(v), s) for k, v, s, _ in sound]
        if len(sound) < len(rows):
            if not self.damaged:
                warnings.warn(
                    f"{self.path}: an answer does not match its checksum; it is asked again, and so is any other that "
                    "does not",
                    UserWarning,
                    stacklevel=3,
                )
            self.damaged += len(rows) - len(sound)
        return read

    def _made_anew(self, error: sqlite3.Error) -> bool:
        """Replace a damaged file with a new one that has its intact answers, and open it.

        Returns:
            Whether the error means damage, so that there is a new file.

        Raises:
            RunError: The new file cannot be written.
        """
        if not answer_salvage.means_damage(error, self.path):
            return False
        with suppress(sqlite3.Error, AttributeError):  # no connection, if there never was one
            self._db.close()
        try:
            if told := answer_salvage.make_anew(self.path, self._opened, error):
                warnings.warn(told, UserWarning, stacklevel=4)
        except (OSError, sqlite3.Error) as trouble:
            raise RunError(
                f"the answer cache {self.path} is damaged ({reason(error)}), and cannot be made anew "
                f"({reason(trouble)}); free some space and run again"
            ) from trouble
        self._open()
        return True

    def _take_over_earlier(self) -> None:
        """Add columns that files of an earlier version lack: their answers stay usable, untimed or unverified."""
        columns = {row[1]: row[3] for row in self._db.execute("PRAGMA table_info(answers)")}
        for name, kind in (("seconds", "REAL"), ("checksum", "TEXT")):
            if name not in columns:
                with suppress(sqlite3.OperationalError):  # another process was faster
                    self._db.execute(f"ALTER TABLE answers ADD COLUMN {name} {kind}")
        self._unsealed = not columns.get("checksum")
        """Whether there may be answers without a checksum."""

    def _use_wal(self) -> None:
        """Switch the journal to WAL; SQLite itself does not wait when two processes do so on a new file."""
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                self._db.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)


def _selected(db: sqlite3.Connection, keys: Sequence[str]) -> list[Row]:
    """Return the rows of some keys."""
    statement = f"SELECT key, value, seconds, checksum FROM answers WHERE key IN ({','.join('?' * len(keys))})"
    try:
        return db.execute(statement, keys).fetchall()
    except sqlite3.OperationalError as error:
        if "decode" not in str(error):
            raise
    with lenient(db):  # a damaged text is not UTF-8; its checksum will not hold
        return db.execute(statement, keys).fetchall()


@contextmanager
def answer_cache(path: str | Path | None) -> Iterator[AnswerCache | None]:
    """Use the cache at `path` for everything asked within the block; None uses none.

    At the end, weights whose cached hash was used are hashed in full. If a hash was no longer right, what was stored
    since is removed, with a warning.
    """
    cache = None if path is None else AnswerCache(path)
    token = _active.set(cache)
    try:
        with rechecks.collected() as used:
            yield cache
    finally:
        _active.reset(token)
        if cache is not None:
            _settle(cache, used)
            cache.close()


def _settle(cache: AnswerCache, used: rechecks.Rechecks) -> None:
    if wrong := used.wrong():
        cache.remove(used.stored)
        warnings.warn(
            f"the weights of {', '.join(wrong)} were changed in a way that was not noticed at once; the "
            f"{len(used.stored)} answers stored meanwhile were removed from {cache.path}. Change weights within "
            "`with model.editing() as weights:`",
            RuntimeWarning,
            stacklevel=4,
        )


def active() -> AnswerCache | None:
    """Return the cache in use, or None."""
    return _active.get()
