"""Damage in a run folder and what the next run does about it, as `evenhand show` prints it. Nothing is changed."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from evenhand.core import answer_salvage
from evenhand.core.artifacts import damage_of_artefact, finished
from evenhand.core.checksums import LIST, FileDamage, damage_of_folder
from evenhand.core.file_io import DAMAGED
from evenhand.core.run_folder import AGAIN, MANIFEST, SCORES, VIEWS, RunFolder
from evenhand.errors import RunError, reason

UNREAD = "ends with an error as long as it cannot be read"


class Damage(NamedTuple):
    """A damaged file or folder."""

    place: Path
    why: str
    then: str
    """What the next run with the same command does."""

    def __str__(self) -> str:
        """Describe the damage in one line."""
        return f"{self.place} is damaged: {self.why}; the next run with the same command {self.then}"


def damages(folder: Path, *, thorough: bool = False) -> list[Damage]:
    """List what is damaged in a run folder.

    Args:
        folder: Run folder.
        thorough: Whether to read the answer cache, trained artefacts and checkpoints too, which may be large.
    """
    run = RunFolder(folder)
    found = [*_facts(run), *_answers(run), *_views(run)]
    return [*found, *_cache(run), *_artefacts(run.artefacts)] if thorough else found


def command_of(manifest: dict[str, Any]) -> str:
    """Say how to continue a run: with the command that it was started with, if that is known."""
    command = manifest.get("command")
    return f"run it again: {command}" if isinstance(command, str) and command else AGAIN


def _facts(run: RunFolder) -> Iterator[Damage]:
    for name, read in ((MANIFEST, run.manifest), (SCORES, run.read_scores)):
        place = run.path / name
        if not place.is_file():
            continue
        try:
            read()
        except RunError as error:
            yield Damage(place, _short(error, place), "makes it anew")


def _answers(run: RunFolder) -> Iterator[Damage]:
    known = _listed(run)
    there = {file.stem for file in (run.path / "answers").glob("*.parquet")}
    for key in sorted(known | there):
        place = run.path / "answers" / f"{key}.parquet"
        try:
            if run.table(key) is None:
                yield Damage(place, "it is missing", "asks its answers anew, or takes them from the cache")
        except RunError as error:
            yield Damage(place, _short(error, place), "asks its answers anew, or takes them from the cache")


def _listed(run: RunFolder) -> set[str]:
    """Return the keys of the cells that a verified manifest lists."""
    try:
        content, verified = run.manifest()
    except RunError:
        return set()
    return {str(usage["answers"]) for usage in content.get("usage", [])} if verified else set()


def _views(run: RunFolder) -> Iterator[Damage]:
    try:
        found = run.damaged_view()
    except RunError as error:
        found = FileDamage(VIEWS[0], reason(error))
    if found:
        yield Damage(run.path / found.name, found.why, "writes all of them anew")


def _cache(run: RunFolder) -> Iterator[Damage]:
    if not run.cache.is_file():
        return
    try:
        wrong = _wrong_rows(run.cache)
    except sqlite3.Error as error:
        yield Damage(run.cache, reason(error), "takes over the answers whose checksum holds, and asks the others again")
        return
    if wrong:
        yield Damage(run.cache, f"{wrong:,} answers do not match their checksums", "asks them again")


def _wrong_rows(file: Path) -> int:
    """Count the damaged answers. The file is opened read-only; SQLite may still need its log's index for that."""
    with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as db, answer_salvage.lenient(db):
        sealed = {row[1]: row[3] for row in db.execute("PRAGMA table_info(answers)")}
        if "checksum" not in sealed:
            return 0
        rows = db.execute("SELECT key, value, seconds, checksum FROM answers")
        return sum(not answer_salvage.holds(row, unsealed=not sealed["checksum"]) for row in rows)


def _artefacts(root: Path) -> Iterator[Damage]:
    for key in finished(root):
        yield from _folder(root / key, partial(damage_of_artefact, root, key), "trains it again")
    for listed in sorted(root.glob(f".*.part/**/{LIST}")):
        if DAMAGED not in listed.relative_to(root).as_posix():  # else it was moved aside, with a warning
            folder = listed.parent
            yield from _folder(folder, partial(damage_of_folder, folder, listed), "begins that training anew")


def _folder(place: Path, damage: Callable[[], str], then: str) -> Iterator[Damage]:
    try:
        why = damage()
    except RunError as error:
        why, then = reason(error), UNREAD
    if why:
        yield Damage(place, why, then)


def _short(error: RunError, place: Path) -> str:
    """Return what is wrong, without the name of the file and the remedy, which the line has anyway."""
    text = str(error).removeprefix(f"{place} ").removesuffix(f"; {AGAIN}").partition("; run the same command")[0]
    return text.removeprefix("is damaged: ")
