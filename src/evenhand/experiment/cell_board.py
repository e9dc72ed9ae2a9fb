"""Board of a run with several workers: which cells are still to be asked, who may ask which, and what came back.

The process that owns the run keeps the board, and is the only one that writes to its folder. The board does not depend
on how workers are started. Which cell comes next follows three rules:

- Cells that ask the model the same thing, such as the baseline's question as a first turn, are asked in the order of
  one process: the second finds in the cache what it would find there. So batches, and with them the last digits, are
  the same. What a cell asks is known from the forecast, for some items; the baseline always comes first.
- What a method learns is learned once: until its first cell is done, no other worker starts on that method.
- A worker stays with a method that has learned something. Otherwise the cell at the head of the longest chain of cells
  that wait for one another, by estimated cost, comes first.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from evenhand.core import progress
from evenhand.core.answer_salvage import Row
from evenhand.core.artifact_packing import pack, unpack
from evenhand.core.artifacts import intact
from evenhand.core.records import is_baseline
from evenhand.errors import EvenhandError, RunError, SettingsError
from evenhand.experiment import contracts, no_effect
from evenhand.experiment.cell_worker import LISTS, Job, Outcome, Planned, Refusal, cell_of, filled
from evenhand.experiment.cells import Cell
from evenhand.experiment.comparison import Named, Session, WantedModel, label_of
from evenhand.experiment.forecast import CellForecast, ModelForecast
from evenhand.experiment.learning import learns_any
from evenhand.interfaces import Model

WRITTEN = 10.0
"""Approximate number of tokens that are read in the time in which one is written."""


class CellPlace(NamedTuple):
    """Place of a cell: index of its model, and of the cell among those of the model."""

    model: int
    cell: int


class _Model:
    """One model of the run: its cells and their progress."""

    def __init__(self, planned: Planned, cells: list[Cell], forecasts: Sequence[CellForecast]) -> None:
        self.planned, self.cells = planned, cells
        known = {(one.row, one.benchmark): one for one in forecasts}
        own = [known.get((name.row, name.benchmark)) for name in planned.cells]
        self.costs = [0.0 if one is None else one.cost.prompt_tokens + WRITTEN * one.cost.new_tokens for one in own]
        requests = [frozenset[int]() if one is None else one.requests for one in own]
        self.before = [self._before(n, requests) for n in range(len(cells))]
        """Cells that have to be done before each cell."""
        self.urgency = self._chains()
        """Cost of each cell plus that of the longest chain of cells waiting for it, which sets the duration."""
        self.pending = dict.fromkeys(range(len(cells)))
        self.running: set[int] = set()
        self.done: dict[int, Outcome] = {}

    def _before(self, number: int, requests: Sequence[frozenset[int]]) -> list[int]:
        names = self.planned.cells
        name = names[number]

        def comes_first(n: int) -> bool:
            other = names[n]
            if other.row == name.row and other.benchmark == name.benchmark:  # repetitions differ in what is drawn
                return False
            if is_baseline(other.row) and not is_baseline(name.row) and other.benchmark == name.benchmark:
                return True
            return (other.applied, n) < (name.applied, number) and not requests[n].isdisjoint(requests[number])

        return [n for n in range(len(names)) if comes_first(n)]

    def _chains(self) -> list[float]:
        chains = [0.0] * len(self.costs)
        # the last first: cells that wait for a cell are applied after it, so their chains are complete by then
        for number in sorted(range(len(chains)), key=lambda n: (self.method(n), n), reverse=True):
            chains[number] += self.costs[number]
            for first in self.before[number]:
                chains[first] = max(chains[first], chains[number])
        return chains

    def method(self, number: int) -> int:
        """Return the position of a cell's method among those applied."""
        return self.planned.cells[number].applied

    def learns(self, number: int) -> bool:
        """Whether a cell's method learns something before it is asked."""
        return learns_any(self.planned.cells[number].method)


class CellBoard:
    """Board of the cells of a run with several workers; the module docstring has its rules."""

    def __init__(
        self,
        session: Session,
        wanted: Sequence[WantedModel],
        named: Named | None,
        forecasts: Sequence[ModelForecast] = (),
    ) -> None:
        """Set up the board for what is to be compared.

        Args:
            session: Session of the run; its cells and manifest are filled.
            wanted: The models, by name or folder.
            named: What to refuse if the model does not support it.
            forecasts: Forecasts of the models, in order: which cells take long, and which ask the same.

        Raises:
            SettingsError: A model is an object, which cannot be sent to workers.
        """
        for spec, _, _ in wanted:
            if isinstance(spec, Model):
                raise SettingsError(f"{spec.name} is an object, which workers cannot load: give its folder or name")
        s = self._session = session
        self.job = Job(tuple(wanted), tuple(s.methods), tuple(s.asked), s.train, s.wishes, dict(s.repeats), named)
        self._benchmarks = {benchmark.spec: benchmark for benchmark, _ in s.asked}
        self._models: dict[int, _Model] = {}
        self._forecasts = {n: forecast.cells for n, forecast in enumerate(forecasts)}
        self._stored = self._stored_cells()
        self._bars = ExitStack()
        self._steps: dict[int, progress.Step] = {}

    # ------------------------------------------------------------------------------------------------------ models

    @property
    def unplanned(self) -> list[int]:
        """Indices of the models whose cells are not known yet."""
        return [n for n in range(len(self.job.wanted)) if n not in self._models]

    def planned(self, number: int, found: Planned | Refusal) -> None:
        """Take the cells of a model from the first worker that has loaded it; those of later workers must be the same.

        Args:
            number: Index of the model.
            found: What the worker reports.

        Raises:
            EvenhandError: The worker refused, or has another model under this name than the first one.
        """
        if isinstance(found, Refusal):
            raise {"SettingsError": SettingsError, "RunError": RunError}.get(found.kind, EvenhandError)(found.said)
        if number in self._models:
            self._refuse_another(self._models[number].planned, found)
            return
        known: dict[str, Any] = self._session.manifest["models"]
        if found.model in known:
            raise SettingsError(f"two models are both called {found.model!r}; tell them apart: 'folder(name=other)'")
        _give_again(found)
        self._session.refuse_idle(found.draws, found.generates, len(self.unplanned) == 1)
        self._session.begin()
        self._session.manifest["demo"] |= bool(found.facts.get("demo"))
        known[found.model] = found.facts
        self._session.manifest["baselines"][found.model] = found.baselines
        if self._session.folder:
            self._session.folder.append_session({"event": "model", "name": found.model, **found.facts})
        cells = [cell_of(name, found.model, self._benchmarks) for name in found.cells]
        self._models[number] = _Model(found, cells, self._forecasts.get(number, ()))
        self._session.cells = [cell for n in sorted(self._models) for cell in self._models[n].cells]
        self._session.manifest["models_left"] = [label_of(self.job.wanted[n][:2]) for n in self.unplanned]
        self._steps[number] = self._bars.enter_context(progress.track(len(cells), f"{found.model}: cells"))

    @staticmethod
    def _refuse_another(first: Planned, other: Planned) -> None:
        if first.facts.get("fingerprint") != other.facts.get("fingerprint") or len(first.cells) != len(other.cells):
            raise RunError(
                f"{first.model} is not the same on all hosts: its fingerprint is {first.facts.get('fingerprint')} on "
                f"one and {other.facts.get('fingerprint')} on another; put the same files on all of them"
            )

    # ------------------------------------------------------------------------------------------------------- cells

    @property
    def left(self) -> int:
        """Number of cells that are not done, of the models whose cells are known."""
        return sum(len(model.pending) + len(model.running) for model in self._models.values())

    def pending(self, number: int) -> int:
        """Return the number of a model's cells that nobody asks yet; 0 if they are not known."""
        return len(self._models[number].pending) if number in self._models else 0

    def take(self, number: int, at: int | None = None) -> int | None:
        """Return the next cell of a model for a worker; None if there is none that it may ask now.

        Args:
            number: Index of the model.
            at: The cell that the worker asked last.
        """
        model = self._models[number]
        open_ = [n for n in model.pending if self._may_begin(model, n)]
        if not open_:
            return None
        stay = [n for n in open_ if at is not None and model.method(n) == model.method(at) and model.learns(n)]
        best = max(stay or open_, key=lambda n: (model.urgency[n], -n))
        del model.pending[best]
        model.running.add(best)
        return best

    @staticmethod
    def _may_begin(model: _Model, number: int) -> bool:
        name = model.planned.cells[number]
        if not all(n in model.done for n in model.before[number]):
            return False
        if not model.learns(number):
            return True
        same = [n for n in (*model.running, *model.done) if model.method(n) == name.applied]
        return not same or any(n in model.done for n in same)

    def files(self, place: CellPlace) -> dict[str, bytes]:
        """Return finished cells of the run folder that may be this cell, by key: a resumed run asks nothing twice."""
        model = self._models[place.model]
        name = model.planned.cells[place.cell]
        folder, keys = self._session.folder, self._stored[model.planned.model, name.row, name.benchmark]
        found = {} if folder is None else {key: folder.finished_file(key) for key in keys}
        return {key: content for key, content in found.items() if content is not None}

    def rows(self) -> list[Row]:
        """Return the answers that the cache has from before."""
        return [] if self._session.cache is None else self._session.cache.rows()

    def trained(self) -> dict[str, Path]:
        """Return the artefacts in the run folder, by key; damaged ones are moved aside, and are made again."""
        place = self._artefacts
        return {key: place / key for key in intact(place)} if place is not None and place.is_dir() else {}

    def packed(self, key: str) -> bytes:
        """Pack an artefact of the run folder."""
        assert self._artefacts is not None
        return pack(self._artefacts, key)

    def needs_trained(self, place: CellPlace) -> bool:
        """Whether the method of a cell learns something."""
        return self._models[place.model].learns(place.cell)

    def done(self, place: CellPlace, found: Outcome | Refusal) -> None:
        """Take what a worker reports about a cell, and store it.

        Raises:
            RunError: The worker could not continue, or the run folder cannot be written.
        """
        if isinstance(found, Refusal):
            raise RunError(found.said)
        _give_again(found)
        session, model = self._session, self._models[place.model]
        for key, packed in found.artefacts.items():
            if self._artefacts is not None:
                unpack(packed, self._artefacts, key)
        if session.cache is not None:
            session.cache.merge(found.rows)
        for key, content in found.files.items():
            if session.folder is not None:
                session.folder.take_over(key, content)
        if found.preflight:
            session.manifest["models"][model.planned.model]["preflight"] = found.preflight
        self._finish(place, model, filled(model.cells[place.cell], found), found)

    def lost(self, place: CellPlace, why: str) -> None:
        """Mark a cell that no worker could finish as failed; the others continue.

        Args:
            place: The cell.
            why: What happened to the workers.
        """
        model = self._models[place.model]
        model.cells[place.cell].fail(why)
        self._finish(place, model, model.cells[place.cell], None)

    def _finish(self, place: CellPlace, model: _Model, cell: Cell, found: Outcome | None) -> None:
        model.cells[place.cell] = cell
        model.running.discard(place.cell)
        model.done[place.cell] = found or Outcome({}, {name: [] for name in LISTS}, None, {}, [], {})
        self._session.cells = [cell for n in sorted(self._models) for cell in self._models[n].cells]
        self._steps[place.model](1)
        for name in LISTS:  # in the order of the cells, as one process has it
            self._session.manifest[name] = self._listed(name)

    def _listed(self, name: str) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = []
        for number in sorted(self._models):
            model = self._models[number]
            order = sorted(model.done, key=lambda n: (model.method(n), n))
            own = [entry for n in order for entry in model.done[n].manifest[name]]
            entries += _once(own) if name == "applied" else own
        return entries

    def close(self) -> None:
        """Determine what needs all cells together, once nobody asks any more, and remove the progress bars."""
        self._bars.close()
        order = [self._models[n].planned.model for n in sorted(self._models)]
        for name in ("models", "baselines"):
            self._session.manifest[name] = {key: self._session.manifest[name][key] for key in order}
        for model in self._models.values():
            self._same_prompts(model)
            self._changed(model)

    @staticmethod
    def _same_prompts(model: _Model) -> None:
        """Note the methods that asked just what the baseline was asked, possibly by another worker."""
        prompts: dict[tuple[str, str], str] = {}
        for number, outcome in sorted(model.done.items()):
            cell = model.cells[number]
            asked = next((str(usage.get("prompts", "")) for usage in outcome.manifest["usage"]), "")
            if cell.is_baseline:
                prompts.setdefault((cell.row, cell.benchmark.spec), asked)
            elif cell.tally is not None and not cell.no_effect and asked:
                same = asked == prompts.get((cell.baseline, cell.benchmark.spec))
                cell.no_effect = no_effect.SAME_PROMPTS if same else ""

    @staticmethod
    def _changed(model: _Model) -> None:
        """Fail all cells of a method that changed the model in one of them."""
        wrong = {model.method(n) for n in model.done if contracts.CHANGED in model.cells[n].note}
        for number in model.done:
            cell = model.cells[number]
            if model.method(number) in wrong and cell.status == "ok":
                cell.fail(contracts.CHANGED)

    # -------------------------------------------------------------------------------------------------- what is there

    @property
    def _artefacts(self) -> Path | None:
        return None if self._session.folder is None else self._session.folder.artefacts

    def _stored_cells(self) -> dict[tuple[str, str, str], list[str]]:
        """Return keys of finished cells in the run folder by model, row and benchmark; damaged ones are asked again."""
        found: dict[tuple[str, str, str], list[str]] = defaultdict(list)
        folder = self._session.folder
        for key in folder.finished_cells() if folder is not None else ():
            assert folder is not None
            try:
                about = folder.read_about(key)
            except RunError as error:
                warnings.warn(f"{error}", UserWarning, stacklevel=4)
                continue
            found[str(about.get("model")), str(about.get("method")), str(about.get("benchmark"))].append(key)
        return found


def _give_again(found: Planned | Outcome) -> None:
    """Give the warnings of a worker again."""
    for text, kind in found.said:
        warnings.warn(text, kind, stacklevel=4)


def _once(applied: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Keep the longest application of each method: that of the worker which fitted it."""
    longest: dict[tuple[str, str], dict[str, Any]] = {}
    for entry in applied:
        key = (entry["model"], entry["method"])
        if key not in longest or entry["seconds"] > longest[key]["seconds"]:
            longest[key] = entry
    return list(longest.values())
