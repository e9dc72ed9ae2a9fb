"""The run folder: everything a comparison wrote, in files that stay whole whatever happens.

manifest.json      what was compared, with versions and fingerprints (latest session)
sessions.jsonl     one line per session that worked on this folder; only ever appended to
cache.sqlite       the leaf cache; with it a killed run resumes where it stopped
answers/*.parquet  one file per finished (model, method, benchmark), written once and never edited; one row per item
scores.parquet     the numbers, computed anew from the answers at the end of every session, and the costs
report.html, summary.md, intervals.png

The manifest, the answers, the scores and every row of the cache have a checksum, which is verified when they are read.
Damaged files are not used: they become NAME.damaged-1 in the run folder, and the next run makes them again.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from evenhand.core import file_io
from evenhand.core.answer_table import AnswerFacts, about_in, answer_table, answers_in, check_shown
from evenhand.core.arrow_columns import arrow_column
from evenhand.core.checksums import (
    CHANGED,
    LATER,
    FileDamage,
    Unsealed,
    damaged_file,
    seal_folder,
    sealed,
    unsealed,
)
from evenhand.core.hashing import stream_hash
from evenhand.core.records import Record
from evenhand.errors import RunError, reason

if TYPE_CHECKING:
    import pyarrow as pa

MANIFEST, SCORES = "manifest.json", "scores.parquet"
VIEWS, VIEWS_LIST = ("report.html", "summary.md", "intervals.png"), ".views.sha256"
SCORES_DIGEST = b"evenhand_sha256"
"""Metadata key of the scores: a digest of all columns."""
AGAIN = "run the command of this run again, which makes it anew"
"""What to do about a damaged file."""
DAMAGE = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    MemoryError,
    RecursionError,
    NotImplementedError,
)
"""What reading a truncated or altered file raises."""


class FinishedCell(NamedTuple):
    """What is stored of a finished cell."""

    answers: list[Any]
    """Answers, in the order that was asked for."""
    about: dict[str, Any]
    """Facts that were stored with them."""


class RunFolder:
    """Reads and writes one run folder."""

    def __init__(self, path: str | Path) -> None:
        """Take the path; nothing is touched yet."""
        self.path = Path(path)
        self._broken: set[Path] = set()
        """Files that could not be read; they are moved aside before others take their names."""

    @property
    def cache(self) -> Path:
        """The answer cache."""
        return self.path / "cache.sqlite"

    @property
    def artefacts(self) -> Path:
        """The folder of trained artefacts."""
        return self.path / "artefacts"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder for this process; another run on it is refused at once.

        A folder that was made here and has no manifest at the end is removed again: nothing was begun in it.

        Raises:
            RunError: Another run has locked it, or the folder cannot be made.
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
            for folder in (self.path, self.path / "answers"):
                file_io.remove_parts(folder)
        try:
            yield
        finally:
            if made and not (self.path / "manifest.json").exists():
                self._remove(made)
            lock.release()

    def _remove(self, made: Sequence[Path]) -> None:
        """Remove what `locked` and the answer cache made; a folder with anything else in it stays."""
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
            facts: What else is known of each answer; empty if nothing is.
        """
        import pyarrow.parquet as pq

        table = answer_table(answers, ids, about, facts)
        self._write(self._answers(key), lambda f: pq.write_table(table, f, write_page_checksum=True), table.nbytes)

    def finished_file(self, key: str) -> bytes | None:
        """Return the file of a finished cell as bytes, for `take_over` elsewhere; None if there is none."""
        file = self._answers(key)
        return file.read_bytes() if file.is_file() else None

    def take_over(self, key: str, content: bytes) -> None:
        """Write the file of a cell that was finished in another run folder; it appears whole or not at all.

        Args:
            key: Name of the file, without its ending.
            content: What `finished_file` returned there.
        """
        self._write(self._answers(key), lambda f: f.write_bytes(content), len(content))

    def finished_cells(self) -> list[str]:
        """Return the keys of all cells with a file, in the order of their names."""
        return sorted(file.stem for file in (self.path / "answers").glob("*.parquet"))

    def read_answers(self, key: str, ids: Sequence[str], answer_type: type) -> list[Any] | None:
        """Return the answers of a finished cell; see `read_cell`."""
        found = self.read_cell(key, ids, answer_type, stacklevel=3)
        return None if found is None else found.answers

    def read_cell(self, key: str, ids: Sequence[str], answer_type: type, *, stacklevel: int = 2) -> FinishedCell | None:
        """Return a finished cell with its answers in the order of `ids`; None if any is missing.

        A damaged file counts as missing, with a warning; `write_answers` moves it aside.

        Args:
            key: Name of the file, without its ending.
            ids: Ids of the items.
            answer_type: Class of the answers.
            stacklevel: Stack level of the warning.

        Raises:
            RunError: The system refuses to read the file, which says nothing about its content.
        """
        try:
            table = self._table(key)
            stored = {} if table is None else answers_in(table)
            if table is None or not stored or any(i not in stored for i in ids):
                return None
            return FinishedCell([from_plain(answer_type, stored[i]) for i in ids], about_in(table))
        except DAMAGE as error:
            self._refuse_for_now(key, error)
            if not file_io.may_pass(error):
                self._broken.add(self._answers(key))
            why = self._damaged(key, error)
        again = f"{why}; its answers are asked anew, or taken from the cache"
        warnings.warn(again, UserWarning, stacklevel=stacklevel)
        return None

    def stored(self, key: str) -> dict[str, dict[str, Any]]:
        """Return the answers of a finished cell by item, as `dataclasses.asdict` gives them; empty if there is no cell.

        Raises:
            RunError: The file is damaged.
        """
        with self._sound(key):
            table = self._table(key)
            return {} if table is None else answers_in(table)

    def table(self, key: str) -> pa.Table | None:
        """Return the answers of a finished cell as a table, all columns verified; None if there is no cell.

        Raises:
            RunError: The file is damaged.
        """
        with self._sound(key):
            table = self._table(key)
            if table is not None:
                check_shown(table)
            return table

    def read_about(self, key: str) -> dict[str, Any]:
        """Return the facts that were stored with the answers of a cell.

        Raises:
            RunError: The file is damaged.
        """
        with self._sound(key):
            table = self._table(key)
            return {} if table is None else about_in(table)

    def write_scores(self, records: Sequence[Record]) -> None:
        """Write all numbers."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        names = [f.name for f in dataclasses.fields(Record)]
        self._check_scores()
        table = pa.table({n: arrow_column([getattr(r, n) for r in records]) for n in names})
        table = table.replace_schema_metadata({SCORES_DIGEST: _digest(table)})
        self._write(self.path / SCORES, lambda f: pq.write_table(table, f, write_page_checksum=True), table.nbytes)

    def read_scores(self) -> list[Record]:
        """Return all numbers of the last session that ended.

        Raises:
            RunError: The file is damaged.
        """
        names = {f.name for f in dataclasses.fields(Record)}
        file = self.path / SCORES
        try:
            table = _read_parquet(file)
            stated = (table.schema.metadata or {}).get(SCORES_DIGEST)
            if stated is not None and stated != _digest(table):
                raise ValueError(CHANGED)
            rows = table.to_pylist()
            return [Record(**{k: v for k, v in row.items() if k in names}) for row in rows]
        # not a table, one without the columns of a record, or with values that Python does not have
        except DAMAGE as error:
            raise RunError(f"{file} cannot be read ({reason(error)}); {AGAIN}") from error

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        """Write the facts of this session."""
        text = sealed(manifest)
        self._write(self.path / MANIFEST, lambda f: f.write_text(text, encoding="utf-8"), len(text.encode()))

    def read_manifest(self) -> dict[str, Any]:
        """Return the facts of the last session; empty if there was none, or (with a warning) if its file is damaged.

        A damaged file is moved aside when the next one is written.

        Raises:
            RunError: The system refuses to read it, which says nothing about its content.
        """
        file = self.path / MANIFEST
        if not file.is_file():
            return {}
        try:
            return self.manifest().content
        except RunError as error:
            if file_io.may_pass(error.__cause__):
                raise
            self._broken.add(file)
            warnings.warn(f"{str(error).removesuffix(AGAIN)}it is made anew", UserWarning, stacklevel=2)
            return {}

    def manifest(self) -> Unsealed:
        """Return the facts of the last session, and whether they have a checksum.

        Raises:
            RunError: The file is damaged, or there is none.
        """
        file = self.path / MANIFEST
        try:
            text = file.read_text(encoding="utf-8")
            json.loads(text)
        except OSError as error:
            raise RunError(f"{file} cannot be read ({reason(error)}); {LATER}") from error
        except (ValueError, RecursionError) as error:
            raise RunError(f"{file} is not JSON ({reason(error)}); {AGAIN}") from error
        try:
            return unsealed(text)
        except ValueError as error:
            raise RunError(f"{file} holds no facts of a run: {error}; {AGAIN}") from error

    def seal_views(self) -> None:
        """Store the checksums of the report's views, once these are saved."""
        with _helpful(self.path):
            there = [name for name in VIEWS if (self.path / name).is_file()]
            if there:
                seal_folder(self.path, self.path / VIEWS_LIST, there)

    def unseal_views(self) -> bool:
        """Remove the checksums of the report's views, before others are saved; returns whether there were any."""
        listed = self.path / VIEWS_LIST
        there = listed.is_file()
        with _helpful(self.path):
            listed.unlink(missing_ok=True)
        return there

    def damaged_view(self) -> FileDamage | None:
        """Return the first damaged view of the report; None if they are as they were saved."""
        return damaged_file(self.path, self.path / VIEWS_LIST)

    @property
    def has_answers(self) -> bool:
        """Whether any cell was finished here before."""
        return any((self.path / "answers").glob("*.parquet"))

    def append_session(self, entry: dict[str, Any]) -> None:
        """Add one line to the log of sessions."""
        file = self.path / "sessions.jsonl"
        with _helpful(self.path):
            torn = file.is_file() and file.read_bytes()[-1:] not in (b"", b"\n")  # cut off by a full disk or a kill
            with open(file, "a", encoding="utf-8") as log:
                log.write("\n" * torn + json.dumps(entry, default=str) + "\n")

    def _check_scores(self) -> None:
        """Warn if the scores were damaged, before new ones take their place."""
        file = self.path / SCORES
        if not file.is_file():
            return
        try:
            self.read_scores()
        except RunError as error:
            if file_io.may_pass(error.__cause__):
                return
            self._broken.add(file)
            said = str(error).removesuffix(AGAIN)
            warnings.warn(f"{said}it is made anew from the answers", UserWarning, stacklevel=3)

    def _table(self, key: str) -> pa.Table | None:
        file = self._answers(key)
        return _read_parquet(file) if file.is_file() else None

    @contextmanager
    def _sound(self, key: str) -> Iterator[None]:
        """Turn errors from damaged answers into a `RunError` that says what to do."""
        try:
            yield
        except DAMAGE as error:
            self._refuse_for_now(key, error)
            remedy = "run the same command again: its answers are then asked anew, or taken from the cache"
            raise RunError(f"{self._damaged(key, error)}; {remedy}") from error

    def _refuse_for_now(self, key: str, error: Exception) -> None:
        """Raise an error if the system refuses to read answers now; lack of memory does not count: it may be damage."""
        if isinstance(error, OSError) and file_io.may_pass(error):
            raise RunError(f"{self._answers(key)} cannot be read ({reason(error)}); {LATER}") from error

    def _damaged(self, key: str, error: Exception) -> str:
        why = str(error).partition("\n")[0] or type(error).__name__
        is_so = "cannot be read" if file_io.may_pass(error) else "is damaged"
        return f"{self._answers(key)} {is_so}: {why}"

    def _answers(self, key: str) -> Path:
        return self.path / "answers" / f"{key}.parquet"

    def _write(self, target: Path, write: Callable[[Path], object], size: int) -> None:
        with _helpful(self.path, target, size):
            if target in self._broken:
                file_io.move_aside(target, self.path)  # so that reading all files in answers/ meets no damaged one
                self._broken.discard(target)
            file_io.write_with(target, write)


def _read_parquet(file: Path) -> pa.Table:
    """Read a table, and verify that its pages are as they were written.

    Raises:
        OSError: It cannot be read.
        MemoryError: It does not fit into memory.
        ValueError: It is not a table.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # the file itself: given a folder of this name, or one in a folder "a=b", pyarrow would read something else
        with pq.ParquetFile(file, page_checksum_verification=True) as opened:
            return opened.read()
    except MemoryError:  # pyarrow's own, too
        raise
    except pa.ArrowException as error:
        raise ValueError(reason(error)) from error


def _digest(table: pa.Table) -> bytes:
    """Hash a table's columns as JSON, which does not depend on how a file is encoded."""
    columns = (json.dumps([name, table[name].to_pylist()]) for name in table.column_names)
    return stream_hash(map(str.encode, columns)).encode()


@contextmanager
def _helpful(folder: Path, file: Path | None = None, size: int = 0) -> Iterator[None]:
    """Turn errors from a full disk or an unwritable folder into a `RunError` that says what to do.

    Args:
        folder: Run folder.
        file: File that is written; None if there are several.
        size: Approximate number of bytes, if known.
    """
    try:
        yield
    except OSError as error:
        if file_io.lacks_space(error):
            raise RunError(
                f"the disk of {folder} is full; free some space and run the same command again: what was answered is "
                f"kept ({file or 'a file'} could not be written: {file_io.space(folder, size)})"
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
    """Return what makes a value of a type from JSON; None if the JSON value is used as it is."""
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
