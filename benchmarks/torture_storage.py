"""Check that damage to a run folder is never taken for results, and never ends in another library's error.

python benchmarks/torture_storage.py [--flips 5000] [--cuts 300] [--show 50] [--rounds 12] [--batch 40] [--seed 0]

Makes a run folder with something trained, and the checkpoint of a training that was killed. Then, for every bit that is
flipped, and every file that is cut off, overwritten with zeros in part, or deleted, one at a time:

- what `compare` reads when it resumes (the answers of a cell, the answer cache, what was trained, the checkpoint) is
  what was written, or counts as not there;
- `Report.load` gives the numbers and facts of the undamaged run, or an error of evenhand's own, whenever the damage is
  in a file that it reads, and for every fiftieth of the others;
- `evenhand show --check`, for every fiftieth, prints what it did before, or reports the damage.

Then `compare` resumes the run in the requested number of rounds, each with a batch of damage: its numbers must
be those of an undamaged run that is resumed, with no cell failed. Ends with status 1 unless all of that holds.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import sqlite3
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from tables import markdown
from torch import nn
from typer.testing import CliRunner

import evenhand
from evenhand.cli.app import app
from evenhand.core.answer_cache import AnswerCache
from evenhand.core.artifacts import damage_of_artefact
from evenhand.core.run_folder import RunFolder
from evenhand.errors import EvenhandError
from evenhand.training.checkpoints import Checkpoints

TRAINED, KILLED = "task_vector(epochs=2)", "task_vector(epochs=2,seed=1)"
TRAIN = "demo:pairs:Age:80"
TOLERANCE = 1e-6
"""Tolerance of values: what is asked again shares its batch with others, so that sums have another order."""
DERIVED_TOLERANCE = 1e-4
"""Tolerance of p and interval ends, which divide by a standard error or count resamples that depend on values."""
READ = "what is resumed from"
REPORTED = ("manifest.json", "scores.parquet")
WRONG = ("silent", "foreign")
KINDS = ("flip", "cut", "zeros", "delete")


class Damage(NamedTuple):
    """Damage to one file."""

    file: str
    kind: str
    place: float
    """Position, as a fraction of the file."""
    bit: int

    def of(self, whole: bytes) -> bytes | None:
        """Return the damaged content; None if the file is deleted."""
        where = int(self.place * len(whole))
        if self.kind == "flip":
            return whole[:where] + bytes([whole[where] ^ 1 << self.bit]) + whole[where + 1 :]
        if self.kind == "zeros":
            many = min(512 << self.bit % 4, len(whole) - where)
            return whole[:where] + bytes(many) + whole[where + many :]
        return whole[:where] if self.kind == "cut" else None


class Seen(NamedTuple):
    """Records and facts of a run."""

    records: list[dict[str, Any]]
    facts: dict[str, Any]


class Found(NamedTuple):
    """Outcome of one damage, or of a batch."""

    where: str
    outcome: str
    """Outcome: same, told, or one that is not allowed: silent, foreign."""
    detail: str = ""


# ------------------------------------------------------------------------------------------------------ the folder


class Run:
    """A comparison that can be resumed."""

    def __init__(self, model: Any, limit: int) -> None:
        """Make a run of a loaded model.

        Args:
            model: Model to compare.
            limit: Number of questions it is asked.
        """
        self.model, self.limit = model, limit

    def compare(self, folder: Path, *more: str) -> evenhand.Report:
        """Run or resume the comparison, without warnings.

        Args:
            folder: Folder of the run.
            *more: Additional methods.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return evenhand.compare(
                self.model,
                ["instruction", TRAINED, *more],
                "bbq(source=demo)",
                out=folder,
                train=TRAIN,
                limit=self.limit,
                replicates=200,
                show_progress=False,
            )

    def make(self, folder: Path) -> None:
        """Make a finished run, and the checkpoint of a second training that was killed after its first epoch."""
        keep = Checkpoints.keep

        def killed(self: Checkpoints, *args: Any) -> None:
            keep(self, *args)
            if any(folder.glob("artefacts/[!.]*")):  # the first training has finished
                raise KeyboardInterrupt

        Checkpoints.keep = killed  # type: ignore[method-assign]
        try:
            self.compare(folder, KILLED)
        except KeyboardInterrupt:
            pass
        finally:
            Checkpoints.keep = keep  # type: ignore[method-assign]
        if not list(folder.glob("artefacts/.*.part/checkpoint-*")):
            raise SystemExit("no training was killed: there is no checkpoint")


def tiny() -> Any:
    """Make a model that learns and answers within a second."""
    from evenhand.models.tiny import tiny_model

    return tiny_model()


# ------------------------------------------------------------------------------------------------------- reading it


def seen(report: evenhand.Report) -> Seen:
    """Return the numbers of a report, without times, and its facts."""
    rows = [asdict(r) for r in report.records if "seconds" not in r.metric]
    return Seen(rows, report.manifest)


def difference(one: Sequence[dict[str, Any]], other: Sequence[dict[str, Any]]) -> str:
    """Return the first difference between two lists of records, beyond rounding; "" if there is none."""
    if len(one) != len(other):
        return f"{len(one)} records instead of {len(other)}"
    for now, before in zip(one, other, strict=True):
        for name, value in before.items():
            if not _same_value(now[name], value, TOLERANCE if name == "value" else DERIVED_TOLERANCE):
                whose = f"{now['method']}, {now['metric']}, {now['group']}"
                return f"{name} of {whose}: {now[name]!r} instead of {value!r}; {now['note']}"
    return ""


def _same_value(one: Any, other: Any, apart: float) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return (one != one and other != other) or math.isclose(one, other, rel_tol=0, abs_tol=apart)
    return bool(one == other)


def loaded(folder: Path, whole: Seen) -> Found:
    """Load a folder with `Report.load`."""
    now = seen(evenhand.Report.load(folder))
    known = {name: now.facts.get(name) for name in whole.facts}  # an entry that is never read changes nothing
    right = repr((now.records, known)) == repr((whole.records, whole.facts))
    return Found("Report.load", "same" if right else "silent", "" if right else "other numbers or facts")


def shown(folder: Path, whole: str) -> Found:
    """Check a folder with `evenhand show --check`."""
    result = CliRunner().invoke(app, ["show", str(folder), "--check"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    told = "warning: " in result.stderr
    return Found("show", "told" if told else "same" if result.stdout == whole else "silent", result.stdout[:200])


def resumed(run: Run, folder: Path, whole: Seen) -> Found:
    """Resume a folder with `compare`."""
    now = seen(run.compare(folder, KILLED))
    found = difference(now.records, whole.records)
    return Found("compare", "silent" if found else "same", found)


class Stored:
    """What `compare` reads from a folder when it resumes, as it was written; each part has its own reader."""

    def __init__(self, folder: Path, spare: Path) -> None:
        """Read everything once.

        Args:
            folder: Folder of the undamaged run.
            spare: An empty folder, where readers that move files aside read copies.
        """
        self.folder, self.spare = folder, spare
        self.cells = {file.stem: self._cell(file.stem) for file in (folder / "answers").iterdir()}
        with sqlite3.connect(folder / "cache.sqlite") as db:
            self.keys = [key for (key,) in db.execute("SELECT key FROM answers")]
        db.close()
        self.cached = self._cached()
        (self.checkpoint,) = folder.glob("artefacts/.*.part/checkpoint-*")
        self.settings = json.loads((self.checkpoint / "progress.json").read_text())["settings"]
        self.progress = repr(self._resumed())

    def found(self, damage: Damage) -> Found:
        """Return the outcome of one damage, by the kind of file."""
        first = Path(damage.file).parts[0]
        if first == "answers":
            key = Path(damage.file).stem
            return self._judged(self._cell(key), self.cells[key])
        if damage.file == "cache.sqlite":
            now = self._cached()
            silent = any(self.cached[key] != value for key, value in now.items())
            return Found(READ, "silent" if silent else "same" if now.keys() == self.cached.keys() else "told")
        if "checkpoint-" in damage.file:
            resumed = self._resumed()
            return self._judged(None if resumed == ([], {}) else repr(resumed), self.progress)
        key = Path(damage.file).parts[1] if first == "artefacts" else ""
        if key and not key.startswith("."):
            told = bool(damage_of_artefact(self.folder / "artefacts", key))
            return Found(READ, "told" if told else "silent")
        return Found(READ, "same")

    def _judged(self, now: Any, whole: Any) -> Found:
        return Found(READ, "told" if now is None else "same" if now == whole else "silent")

    def _cell(self, key: str) -> str | None:
        folder = RunFolder(self.folder)
        try:
            ids = list(folder.stored(key))
        except EvenhandError:
            return None
        found = folder.read_cell(key, ids, evenhand.Choice)
        return None if found is None else repr(found)

    def _cached(self) -> dict[str, Any]:
        with suppress(FileNotFoundError):  # then a new one is created
            shutil.copyfile(self.folder / "cache.sqlite", self.spare / "cache.sqlite")
        cache = AnswerCache(self.spare / "cache.sqlite")
        found = {key: repr(value) for key, value in cache.get(self.keys).items()}
        if len(found) == len(self.keys):
            found["seconds"] = repr(cache.saved)
        cache.close()
        for file in self.spare.iterdir():
            file.unlink()
        return found

    def _resumed(self) -> tuple[Any, ...]:
        """Return the curve and the best weights of the checkpoint."""
        place = self.spare / "training"
        shutil.copytree(self.checkpoint, place / self.checkpoint.name)
        try:
            curve, best = Checkpoints(place, self.settings).resume(nn.Identity())
        finally:
            shutil.rmtree(place)
        return curve, {name: value.tolist() for name, value in best.items()}


def judged(where: str, read: Callable[[], Found]) -> Found:
    """Return the outcome of reading; evenhand's own errors count as reports of the damage."""
    try:
        return read()
    except EvenhandError as error:
        return Found(where, "told", str(error))
    except Exception as error:
        return Found(where, "foreign", f"{type(error).__name__}: {error}")


# ------------------------------------------------------------------------------------------------------ damaging it


def damages(folder: Path, flips: int, cuts: int, seed: int) -> list[Damage]:
    """Draw random damage: every file is equally likely, and in it every bit."""
    draw = random.Random(seed)
    files = sorted(str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file() and f.stat().st_size)
    kinds = ["flip"] * flips + [KINDS[1 + n % 3] for n in range(cuts)]
    draw.shuffle(kinds)
    return [Damage(draw.choice(files), kind, draw.random(), draw.randrange(8)) for kind in kinds]


@contextmanager
def damaged(folder: Path, damage: Damage) -> Iterator[None]:
    """Apply one damage to the folder, and undo it afterwards."""
    file = folder / damage.file
    whole = file.read_bytes()
    before = set(folder.rglob("*"))
    content = damage.of(whole)
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    try:
        yield
    finally:
        file.write_bytes(whole)
        for left in set(folder.rglob("*")) - before:  # SQLite's own files next to the cache
            left.unlink()


def one_by_one(folder: Path, wanted: Sequence[Damage], every: int) -> Iterator[tuple[Damage, Found]]:
    """Report the outcomes of single damages for code that only reads."""
    whole, text = seen(evenhand.Report.load(folder)), CliRunner().invoke(app, ["show", str(folder)]).stdout
    with tempfile.TemporaryDirectory() as spare, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stored = Stored(folder, Path(spare))
        for n, damage in enumerate(wanted):
            with damaged(folder, damage):
                yield damage, judged(READ, partial(stored.found, damage))
                if damage.file in REPORTED or n % every == 0:
                    yield damage, judged("Report.load", lambda: loaded(folder, whole))
                if n % every == 0:
                    yield damage, judged("show", lambda: shown(folder, text))


def in_batches(
    run: Run, folder: Path, wanted: Sequence[Damage], batch: int, rounds: int
) -> Iterator[tuple[list[Damage], Found]]:
    """Report the outcomes of batches of damage for a run that is resumed."""
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / "run"
        shutil.copytree(folder, copy)
        whole = seen(run.compare(copy, KILLED))
        for start in range(0, min(len(wanted), rounds * batch), batch):
            part = list(wanted[start : start + batch])
            shutil.rmtree(copy)
            shutil.copytree(folder, copy)
            for damage in part:
                file = copy / damage.file
                content = damage.of(file.read_bytes()) if file.is_file() and file.stat().st_size else None
                file.unlink(missing_ok=True)
                if content is not None:
                    file.write_bytes(content)
            yield part, judged("compare", lambda: resumed(run, copy, whole))


def main() -> None:
    """Damage a run folder and read it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flips", type=int, default=5000, help="bits to flip")
    parser.add_argument("--cuts", type=int, default=300, help="files to cut off, overwrite in part or delete")
    parser.add_argument("--show", type=int, default=50, help="`evenhand show` is run for every n-th damage")
    parser.add_argument("--rounds", type=int, default=12, help="number of times a run is resumed")
    parser.add_argument("--batch", type=int, default=40, help="number of damages at once when resuming")
    parser.add_argument("--limit", type=int, default=24, help="number of questions of the run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", choices=("demo", "tiny"), default="demo")
    given = parser.parse_args()
    run = Run(tiny() if given.model == "tiny" else evenhand.load("demo"), given.limit)
    counts: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "run"
        run.make(folder)
        wanted = damages(folder, given.flips, given.cuts, given.seed)
        single = one_by_one(folder, wanted, given.show)
        for what, found in chain(single, in_batches(run, folder, wanted, given.batch, given.rounds)):
            counts[found.where, found.outcome] += 1
            if found.outcome in WRONG:
                print(f"{found.where}: {found.outcome}: {found.detail}\n  {what}", flush=True)
    wrong = sum(many for (_, outcome), many in counts.items() if outcome in WRONG)
    rows: list[dict[str, object]] = [
        {"read by": place, **{outcome: f"{counts[place, outcome]:,}" for outcome in ("same", "told", *WRONG)}}
        for place in (READ, "Report.load", "show", "compare")
    ]
    print(f"{given.flips:,} flipped bits, {given.cuts:,} files cut, zeroed or deleted; seed {given.seed}\n")
    print(markdown(rows))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
