"""The part of a comparison that runs in a worker: one model, loaded once, and the cells that it is given to ask.

A worker has a scratch run folder of its own, so that asking, caching, training and resuming work as in any run. What
is finished elsewhere (answers, cached answers, trained artefacts) is put into it before a cell is asked, and what the
cell has added is returned with its numbers. Nothing here depends on how or where workers are started.
"""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from evenhand.core import registry
from evenhand.core.answer_cache import answer_cache
from evenhand.core.answer_salvage import Row
from evenhand.core.artifact_packing import pack, unpack
from evenhand.core.artifacts import artefacts, finished
from evenhand.core.run_folder import RunFolder
from evenhand.errors import EvenhandError
from evenhand.experiment.cells import Cell, Variant
from evenhand.experiment.comparison import Base, Named, Session, WantedModel
from evenhand.experiment.plan import Asked, Task, Wishes
from evenhand.experiment.training_data import Kept
from evenhand.interfaces import Method
from evenhand.models.endpoint import first_look

PREFIX = "evenhand-worker-"
"""Prefix of the scratch folders of workers."""


@dataclass(frozen=True)
class Job:
    """Facts that all workers of a run have to know."""

    wanted: tuple[WantedModel, ...]
    methods: tuple[Method, ...]
    asked: tuple[Asked, ...]
    kept: Kept | None
    wishes: Wishes
    repeats: Mapping[str, Any]
    named: Named | None
    """What to refuse if the model does not support it."""


class CellName(NamedTuple):
    """Identity of a cell of one model, the same in all processes."""

    method: Method
    benchmark: str
    row: str
    baseline: str
    variant: Variant
    applied: int
    """Position of the method in the order in which methods are applied."""


class Planned(NamedTuple):
    """What a worker reports about its model."""

    model: str
    cells: tuple[CellName, ...]
    facts: dict[str, Any]
    """Facts for the manifest."""
    baselines: dict[str, str]
    draws: bool
    generates: bool
    said: tuple[tuple[str, type[Warning]], ...] = ()
    """Warnings, each with its text and category."""


class Refusal(NamedTuple):
    """An error that ends the run, as text, since exceptions may not survive the transfer between processes."""

    kind: str
    said: str


@dataclass(frozen=True)
class Outcome:
    """Result of a cell that was asked, and all that this has added."""

    fields: dict[str, Any]
    """Fields of the `Cell` that have been filled in."""
    manifest: dict[str, list[dict[str, Any]]]
    """Entries to append to lists of the manifest."""
    preflight: Any
    files: dict[str, bytes] = field(repr=False)
    """Files of finished cells, by key."""
    rows: list[Row] = field(repr=False)
    """Answers that are new in the cache."""
    artefacts: dict[str, bytes] = field(repr=False)
    """Trained artefacts, packed, by key."""
    said: tuple[tuple[str, type[Warning]], ...] = ()
    """Warnings, each with its text and category."""


FILLED = ("status", "note", "remark", "no_effect", "answers", "clusters", "tally", "grades", "gap")
LISTS = ("usage", "applied", "unanswered")


class CellWorker:
    """Worker that asks cells of one model."""

    def __init__(self, plugins: Sequence[str] = ()) -> None:
        """Load plugins, so that what comes from them can be read, and make the scratch folder.

        Args:
            plugins: Python files with methods or benchmarks, at the same places as in the process that owns the run.
        """
        for file in plugins:
            registry.load_plugin(file)
        remove_abandoned()
        fresh = Path(tempfile.mkdtemp(prefix=f".{PREFIX}"))
        self._lock = FileLock(fresh / "alive.lock")
        self._lock.acquire()
        # only now under its name: a worker that starts at the same time would remove it while it is not locked
        self._scratch = fresh.rename(fresh.with_name(fresh.name.removeprefix(".")))
        self._planned: Planned | None = None
        self._known: set[str] = set()
        """Keys of cached answers that other processes have already."""
        self._method: Method | None = None
        """Method of the cell that was asked last."""

    def begin(self, job: Job, number: int) -> Planned | Refusal:
        """Load a model, and work out its cells; later calls return the same.

        Args:
            job: The run.
            number: Index of the model.
        """
        if self._planned is not None:
            return self._planned
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("default")
            try:
                self._planned = self._begun(job, number)
            except EvenhandError as error:
                return Refusal(type(error).__name__, str(error))
        self._planned = self._planned._replace(said=_told(said))
        return self._planned

    def _begun(self, job: Job, number: int) -> Planned:
        spec, options, own = job.wanted[number]
        folder = RunFolder(self._scratch)
        (self._scratch / "answers").mkdir(exist_ok=True)
        session = Session(folder, None, job.methods, list(job.asked), job.kept, job.wishes, dict(job.repeats), False)
        session.start(None, 0, None)
        base = Base(spec, options)
        if job.named is not None:
            job.named.refuse_unsupported(base.model)
        self._tasks, applied = session.planned(base, own, last=False)
        self._session, self._base, self._folder = session, base, folder
        places = {id(method): place for place, method in enumerate(applied)}
        cells = tuple(
            CellName(c.method, c.benchmark.spec, c.row, c.baseline, c.variant, places[id(c.method)])
            for c in (task.cell for task in self._tasks)
        )
        name = base.model.name
        return Planned(
            name,
            cells,
            session.manifest["models"][name],
            session.manifest["baselines"][name],
            session.drawn,
            session.generated,
        )

    def ask(
        self,
        number: int,
        files: Mapping[str, bytes],
        lots: Sequence[Sequence[Row]],
        trained: Mapping[str, bytes],
    ) -> Outcome:
        """Ask one cell; `begin` comes first.

        Args:
            number: Index of the cell.
            files: Files of finished cells that may already answer it, by key.
            lots: Cached answers of other workers that were not yet given to this one.
            trained: Packed artefacts of other workers that were not yet given to this one, by key.

        Raises:
            RunError: The scratch folder cannot be written.
        """
        for key, content in files.items():
            self._folder.take_over(key, content)
        place = self._folder.artefacts
        for key, packed in trained.items():
            unpack(packed, place, key)
        there = set(finished(place)) if place.is_dir() else set()
        task = self._tasks[number]
        with (
            warnings.catch_warnings(record=True) as said,
            answer_cache(self._folder.cache) as cache,
            artefacts(place),
        ):
            warnings.simplefilter("default")
            assert cache is not None
            for lot in lots:
                cache.merge(lot)
                self._known.update(row[0] for row in lot)
            self._session.cache = cache
            self._fill(task)
            rows = cache.rows(but=self._known)
        self._known.update(row[0] for row in rows)
        made = set(finished(place)) - there if place.is_dir() else set()
        return self._handed_over(task.cell, files, rows, {key: pack(place, key) for key in made}, _told(said))

    def _fill(self, task: Task) -> None:
        session, method = self._session, task.cell.method
        if self._method is not method:
            session.forget_method()  # freed before the next one is made
            self._method = method
        task.cell.status, before = "running", self._base.model
        session.ask_cell(task, self._base)
        session.verify(self._base, method, [task.cell])
        if self._base.model is not before:  # it was changed, and has been loaded again
            session.forget_method()

    def _handed_over(
        self,
        cell: Cell,
        known: Mapping[str, bytes],
        rows: list[Row],
        made: dict[str, bytes],
        said: tuple[tuple[str, type[Warning]], ...],
    ) -> Outcome:
        manifest = self._session.manifest
        lists = {name: manifest[name] for name in LISTS}
        manifest |= {name: [] for name in LISTS}
        keys = [str(usage["answers"]) for usage in lists["usage"]]
        files = {key: self._folder.finished_file(key) for key in keys if key not in known}
        filled = {name: getattr(cell, name) for name in FILLED}
        cell.answers, cell.tally, cell.grades, cell.clusters = (), None, None, ()  # kept where the run is
        preflight = first_look(self._base.model)[0]
        return Outcome(filled, lists, preflight, {k: v for k, v in files.items() if v is not None}, rows, made, said)


def _told(said: Sequence[warnings.WarningMessage]) -> tuple[tuple[str, type[Warning]], ...]:
    """Return warnings in a form that can be given again, without classes that only this process may know."""
    usual = (RuntimeWarning, UserWarning)
    return tuple((str(w.message), next((k for k in usual if issubclass(w.category, k)), UserWarning)) for w in said)


def remove_abandoned() -> None:
    """Remove scratch folders of workers that were killed: nobody holds their locks any more."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(Timeout, OSError):
            with FileLock(folder / "alive.lock", timeout=0):
                pass
            shutil.rmtree(folder)


def cell_of(name: CellName, model: str, benchmarks: Mapping[str, Any]) -> Cell:
    """Make the cell in the process that owns the run.

    Args:
        name: Identity of the cell, from a worker.
        model: Name of the worker's model.
        benchmarks: Benchmarks by specification.
    """
    return Cell(model, name.method, benchmarks[name.benchmark], name.row, name.baseline, name.variant)


def filled(cell: Cell, outcome: Outcome) -> Cell:
    """Return the cell with the fields that a worker has filled in."""
    return replace(cell, **outcome.fields)
