"""The run folder: everything a comparison wrote, in files that stay whole whatever happens.

manifest.json      what was compared, with versions and fingerprints (latest session)
sessions.jsonl     one line per session that worked on this folder; only ever appended to
cache.sqlite       the leaf cache; with it a killed run takes up where it stopped
answers/*.parquet  one file per finished (model, method, benchmark), written once and never edited; one row per item
scores.parquet     the numbers, computed anew from the answers at the end of every session, and the costs
report.html, summary.md, intervals.png
"""

from __future__ import annotations

import dataclasses
import errno
import json
import types
import typing
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from evenhand.core import file_io
from evenhand.core.answer_table import ABOUT, AnswerFacts, answer_table, answers_in
from evenhand.core.records import Record
from evenhand.errors import RunError

DAMAGE = (OSError, ValueError, TypeError, LookupError, AttributeError, MemoryError)
"""What reading a file raises that was cut short or altered."""


class RunFolder:
    """Reads and writes one run folder."""

    def __init__(self, path: str | Path) -> None:
        """Take the path; nothing is touched yet."""
        self.path = Path(path)

    @property
    def cache(self) -> Path:
        """The answer cache."""
        return self.path / "cache.sqlite"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep the folder to this process; another run on it is refused at once.

        A folder that was made for this and has no manifest at the end is removed again: nothing was begun in it.

        Raises:
            RunError: Another run holds it, or the folder cannot be made.
        """
        from filelock import FileLock, Timeout

        made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        with _helpful(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / "answers").mkdir(exist_ok=True)
            lock = FileLock(self.path / ".lock")
            try:
                lock.acquire(timeout=0)
            except Timeout as error:
                raise RunError(
                    f"another run is working in {self.path}; wait for it, or choose another folder with --out"
                ) from error
        try:
            yield
        finally:
            if made and not (self.path / "manifest.json").exists():
                self._remove(made)
            lock.release()

    def _remove(self, made: Sequence[Path]) -> None:
        """Remove what `locked` and the answer cache have made; a folder with anything else in it stays."""
        with suppress(OSError):
            for name in (".lock", "cache.sqlite", "cache.sqlite-wal", "cache.sqlite-shm"):
                (self.path / name).unlink(missing_ok=True)
            for folder in (self.path / "answers", *made):
                folder.rmdir()

    def write_answers(
        self,
        key: str,
        answers: Sequence[Any],
        ids: Sequence[str],
        about: dict[str, Any],
        facts: Sequence[AnswerFacts] = (),
    ) -> None:
        """Write the answers of one finished cell; the file appears whole or not at all.

        Args:
            key: Name of the file, without its ending.
            answers: One per item.
            ids: Ids of the items.
            about: Facts of the cell.
            facts: What else is known of each answer; empty where nothing is.
        """
        import pyarrow.parquet as pq

        table = answer_table(answers, ids, about, facts)
        self._write(self._answers(key), lambda f: pq.write_table(table, f, write_page_checksum=True))

    def read_answers(self, key: str, ids: Sequence[str], answer_type: type) -> list[Any] | None:
        """The answers of a finished cell, in the order of `ids`; None where they are not all there.

        A file that is damaged counts as not there, with a warning.
        """
        try:
            stored = self._stored(key)
            if any(i not in stored for i in ids) or not stored:
                return None
            return [from_plain(answer_type, stored[i]) for i in ids]
        except DAMAGE as error:
            why = self._damaged(key, error)
        warnings.warn(f"{why}; its answers are asked anew, or taken from the cache", UserWarning, stacklevel=2)
        return None

    def stored(self, key: str) -> dict[str, dict[str, Any]]:
        """The answers of a finished cell as `dataclasses.asdict` gives them, by item; none where there is no cell.

        Raises:
            RunError: The file is damaged.
        """
        try:
            return self._stored(key)
        except DAMAGE as error:
            remedy = "run the same command again: its answers are then asked anew, or taken from the cache"
            raise RunError(f"{self._damaged(key, error)}; {remedy}") from error

    def read_about(self, key: str) -> dict[str, Any]:
        """What was written down with the answers of a cell."""
        import pyarrow.parquet as pq

        metadata = pq.read_schema(self._answers(key)).metadata or {}
        about: dict[str, Any] = json.loads(metadata.get(ABOUT, b"{}"))
        return about

    def write_scores(self, records: Sequence[Record]) -> None:
        """Write all numbers."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        names = [f.name for f in dataclasses.fields(Record)]
        table = pa.table({n: [getattr(r, n) for r in records] for n in names})
        self._write(self.path / "scores.parquet", lambda f: pq.write_table(table, f))

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        """Write the facts of this session."""
        text = json.dumps(manifest, indent=2, ensure_ascii=False, default=str)
        self._write(self.path / "manifest.json", lambda f: f.write_text(text, encoding="utf-8"))

    def read_manifest(self) -> dict[str, Any]:
        """The facts of the last session; none where there was none, or its file cannot be read."""
        try:
            facts = json.loads((self.path / "manifest.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return facts if isinstance(facts, dict) else {}

    @property
    def has_answers(self) -> bool:
        """Whether any cell was finished here before."""
        return any((self.path / "answers").glob("*.parquet"))

    def append_session(self, entry: dict[str, Any]) -> None:
        """Add one line to the log of sessions."""
        file = self.path / "sessions.jsonl"
        with _helpful(self.path):
            torn = file.is_file() and file.read_bytes()[-1:] not in (b"", b"\n")  # by a full disk or a kill
            with open(file, "a", encoding="utf-8") as log:
                log.write("\n" * torn + json.dumps(entry, default=str) + "\n")

    def _stored(self, key: str) -> dict[str, dict[str, Any]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        file = self._answers(key)
        if not file.is_file():
            return {}
        try:
            return answers_in(pq.read_table(file, page_checksum_verification=True))
        except pa.ArrowException as error:
            raise ValueError(str(error)) from error

    def _damaged(self, key: str, error: Exception) -> str:
        why = str(error).partition("\n")[0] or type(error).__name__
        return f"{self._answers(key)} is damaged: {why}"

    def _answers(self, key: str) -> Path:
        return self.path / "answers" / f"{key}.parquet"

    def _write(self, target: Path, write: Callable[[Path], object]) -> None:
        with _helpful(self.path):
            file_io.write_with(target, write)


@contextmanager
def _helpful(folder: Path) -> Iterator[None]:
    """Say what to do about a full disk or a folder that may not be written."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC or "No space left" in str(error):
            raise RunError(
                f"the disk of {folder} is full; free some space and run the same command again: "
                "what was answered is kept"
            ) from error
        raise RunError(f"cannot write to {folder}: {error.strerror or error}") from error


def from_plain(kind: Any, value: Any) -> Any:
    """Build an answer dataclass from the JSON that `dataclasses.asdict` made of it.

    Only the types that answers use: dataclasses, named tuples, tuples, optionals and plain values.
    """
    build = _builder(kind)
    return value if build is None or value is None else build(value)


@cache
def _builder(kind: Any) -> Callable[[Any], Any] | None:
    """What makes a value of a type from JSON; None where JSON has it as it is."""
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        inner = [a for a in typing.get_args(kind) if a is not type(None)]
        return _builder(inner[0]) if len(inner) == 1 else None
    if origin in (tuple, list):
        one = typing.get_args(kind)[0]
        return origin if _builder(one) is None else lambda values: origin(from_plain(one, v) for v in values)
    if not isinstance(kind, type):
        return None
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return lambda value: kind(**{k: from_plain(hints[k], v) for k, v in value.items() if k in hints})
    if issubclass(kind, tuple) and kind is not tuple:
        fields = list(typing.get_type_hints(kind).values())
        return lambda value: kind(*map(from_plain, fields, _of_length(len(fields), value)))
    return None


def _of_length(length: int, values: Sequence[Any]) -> Sequence[Any]:
    if len(values) != length:
        raise ValueError(f"{length} values are expected, {len(values)} are there")
    return values
