"""The run folder: everything a comparison wrote, in files that stay whole whatever happens.

manifest.json      what was compared, with versions and fingerprints (latest session)
sessions.jsonl     one line per session that worked on this folder; only ever appended to
cache.sqlite       the leaf cache; with it a killed run takes up where it stopped
answers/*.parquet  one file per finished (model, method, benchmark), written once and never edited
scores.parquet     the numbers, computed anew from the answers at the end of every session
report.html, summary.md, intervals.png
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from evenhand.core.records import Record
from evenhand.errors import RunError


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

        Raises:
            RunError: Another run holds it, or the folder cannot be made.
        """
        from filelock import FileLock, Timeout

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
            lock.release()

    def write_answers(self, key: str, answers: Sequence[Any], ids: Sequence[str], about: dict[str, Any]) -> None:
        """Write the answers of one finished cell; the file appears whole or not at all."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = [json.dumps(dataclasses.asdict(a)) for a in answers]
        table = pa.table({"item": list(ids), "answer": rows})
        table = table.replace_schema_metadata({"evenhand": json.dumps(about, default=str)})
        self._write(self.path / "answers" / f"{key}.parquet", lambda f: pq.write_table(table, f))

    def read_answers(self, key: str, ids: Sequence[str], answer_type: type) -> list[Any] | None:
        """The answers of a finished cell, in the order of `ids`; None where they are not all there."""
        stored = self.stored(key)
        if any(i not in stored for i in ids) or not stored:
            return None
        return [from_plain(answer_type, json.loads(stored[i])) for i in ids]

    def stored(self, key: str) -> dict[str, str]:
        """The answers of a finished cell as JSON, by item; none where there is no such cell."""
        import pyarrow.parquet as pq

        file = self.path / "answers" / f"{key}.parquet"
        if not file.is_file():
            return {}
        columns = pq.read_table(file).to_pydict()
        return dict(zip(columns["item"], columns["answer"], strict=True))

    def read_about(self, key: str) -> dict[str, Any]:
        """What was written down with the answers of a cell."""
        import pyarrow.parquet as pq

        metadata = pq.read_schema(self.path / "answers" / f"{key}.parquet").metadata or {}
        about: dict[str, Any] = json.loads(metadata.get(b"evenhand", b"{}"))
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

    def _write(self, target: Path, write: Callable[[Path], object]) -> None:
        with _helpful(self.path):
            part = target.with_name(f".{target.name}.{os.getpid()}")  # no mkstemp: others may read a run
            try:
                write(part)
                os.replace(part, target)
            except BaseException:
                part.unlink(missing_ok=True)
                raise


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
    origin = typing.get_origin(kind)
    if value is None or kind in (str, int, float, bool, Any) or origin is typing.Literal:
        return value
    if origin in (types.UnionType, typing.Union):
        inner = [a for a in typing.get_args(kind) if a is not type(None)]
        return from_plain(inner[0], value) if len(inner) == 1 else value
    if origin in (tuple, list):
        inner_kind = typing.get_args(kind)[0]
        return origin(from_plain(inner_kind, v) for v in value)
    if dataclasses.is_dataclass(kind):
        hints = _hints(kind)  # type: ignore[arg-type]
        return kind(**{k: from_plain(hints[k], v) for k, v in value.items() if k in hints})  # type: ignore[operator]
    if isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields"):
        hints = _hints(kind)
        return kind(*(from_plain(hints[n], v) for n, v in zip(kind._fields, value, strict=True)))
    return value


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)
