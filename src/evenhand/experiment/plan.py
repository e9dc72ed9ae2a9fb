"""What a comparison asks of a model: its cells, with how the answers of each are read and which sample they are.

Like is compared with like: for every way in which some method's answers are read, the baseline is read in the same way
and gets a row of its own. Repetitions (seeds, wordings, samples) are cells of one row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import isfinite
from typing import Any

from evenhand.core.records import BASELINE
from evenhand.core.repeats import checked_count, variants_of
from evenhand.errors import SettingsError
from evenhand.experiment.cells import Cell, Variant
from evenhand.interfaces import (
    OPEN,
    AnswerBy,
    Benchmark,
    Choice,
    Dialogue,
    Method,
    Model,
    Question,
    Reading,
    Reply,
    Sampling,
    TrainData,
)
from evenhand.methods.none import Untouched
from evenhand.models.asking import check_asking
from evenhand.models.mitigated import Mitigated
from evenhand.models.readings import Side, filled, fixed_by, is_sampled, labels, none_settings, unwrapped

DRAWS = 10**6
"""Draws reserved for one sample; a method or benchmark that takes several per question stays below."""
Asked = tuple[Benchmark, Sequence[Any]]
"""A benchmark and the items that are asked of it."""


@dataclass(frozen=True)
class Wishes:
    """How a run wants answers read, unless benchmark or method says otherwise."""

    answer_by: AnswerBy | None = None
    temperature: float | None = None
    samples: int = 1

    def checked(self) -> Wishes:
        """Check that the wishes can be followed, and return them.

        Raises:
            SettingsError: The way to answer is unknown, or the temperature or the number of samples cannot be used.
        """
        check_asking({} if self.answer_by is None else {"answer_by": self.answer_by})
        checked_count(self.samples, "samples", "3 asks every sampled answer three times, as independent draws")
        t = self.temperature
        if t is not None and (isinstance(t, bool) or not isinstance(t, int | float) or t < 0 or not isfinite(t)):
            raise SettingsError(f"temperature={t!r} must be a number of at least 0; at 0 nothing is drawn")
        return self

    def reading(self, own: Reading) -> Reading:
        """Return the wishes as a reading, for a model with a given reading of its own."""
        if self.temperature is None:
            return Reading(self.answer_by)
        return Reading(self.answer_by, replace(own.sampling or Sampling(), temperature=float(self.temperature)))


@dataclass
class Task:
    """A cell, and how it is asked."""

    cell: Cell
    items: Sequence[Any]
    reading: Reading | None = None
    """How its answers are read; None if nothing is chosen."""
    put: Reading = OPEN
    """Reading to put on its questions for that."""
    sample: int = 0
    """Number of the independent sample."""

    def posed(self, model: Model) -> Model:
        """Return the model with what questions leave open filled in, and with the draws of this sample."""
        if self.put == OPEN and not self.sample:
            return model
        first = self.sample * DRAWS

        def choose(questions: Sequence[Question]) -> list[Choice]:
            return model.choose([_drawn(filled(q, self.put), first) for q in questions])

        def generate(dialogues: Sequence[Dialogue], sampling: Sampling) -> list[Reply]:
            shift = first if sampling.temperature > 0 else 0
            return model.generate([replace(d, draw=d.draw + shift) for d in dialogues], sampling)

        can = model.abilities
        return Mitigated(
            model,
            Untouched(),
            choose=choose if "choose" in can else None,
            generate=generate if "generate" in can else None,
            abilities=can,
        )


def _drawn(question: Question, shift: int) -> Question:
    ready = question.dialogue
    moved = ready if ready is None else replace(ready, draw=ready.draw + shift)
    return replace(question, draw=question.draw + shift, dialogue=moved)


class Plan:
    """All tasks of one model."""

    def __init__(
        self,
        model: Model,
        methods: Sequence[Method],
        asked: Sequence[Asked],
        wishes: Wishes = Wishes(),
        data: TrainData | None = None,
    ) -> None:
        """Work out the cells; nothing is asked.

        Args:
            model: The baseline.
            methods: Methods that it is compared under; some may be `Repeated`, and some `none` with settings.
            asked: Benchmarks with their items.
            wishes: Wishes of the run.
            data: What methods may fit on. One that cannot be applied needs no baseline.
        """
        self.model, self.methods, self.asked, self.wishes, self.data = model, methods, asked, wishes, data
        self._untouched: dict[str, Method] = {}

    @cached_property
    def tasks(self) -> list[Task]:
        """Tasks per benchmark: the baselines, then the methods."""
        return [t for b, items in self.asked for t in (*self._baseline_tasks(b, items), *self._method_tasks(b, items))]

    @property
    def applied(self) -> list[Method]:
        """The methods of the tasks, each once, those of the baselines first."""
        methods = [t.cell.method for t in sorted(self.tasks, key=lambda t: not t.cell.is_baseline)]
        return list({id(method): method for method in methods}.values())

    @property
    def generates(self) -> bool:
        """Whether the answer to any question is generated."""
        return any(t.reading is not None and t.reading.answer_by == "generation" for t in self.tasks)

    @property
    def reads_letters(self) -> bool:
        """Whether the answer to any question is read from letters."""
        return any(t.reading is not None and t.reading.answer_by == "letters" for t in self.tasks)

    @property
    def draws(self) -> bool:
        """Whether any answer is drawn."""
        return any(_is_drawn(t.cell.benchmark, t.reading) for t in self.tasks)

    @property
    def baselines(self) -> dict[str, str]:
        """Specifications of the baselines that are not read in the model's own way, by row."""
        cells = [t.cell for t in self.tasks if t.cell.is_baseline and t.cell.row != BASELINE]
        return {c.row: c.method.spec for c in reversed(cells)}  # reversed, so that the first of each row stays

    # ------------------------------------------------------------------------------------------------- tasks

    def _baseline_tasks(self, benchmark: Benchmark, items: Sequence[Any]) -> Iterator[Task]:
        side = self._sides.get(benchmark.spec)
        if side is None:
            yield from self._sampled(Cell(self.model.name, self._none({}), benchmark, BASELINE), 0, items, None)
            return
        for first, by_seed in self._baselines[benchmark.spec].items():
            for seed, reading in by_seed.items():
                own = reading == side.read(None)
                none = self._none({} if own else none_settings(reading, side.own))
                yield from self._sampled(
                    Cell(self.model.name, none, benchmark, self._row(side, first)), seed, items, side
                )

    def _method_tasks(self, benchmark: Benchmark, items: Sequence[Any]) -> Iterator[Task]:
        side = self._sides.get(benchmark.spec)
        for entry in self.methods:
            variants = variants_of(entry)
            if isinstance(variants[0, 0], Untouched):
                continue
            base = BASELINE if side is None else self._row(side, self._read(side, variants[0, 0]))
            for (seed, wording), method in variants.items():
                cell = Cell(self.model.name, method, benchmark, entry.spec, base, Variant(0, wording))
                yield from self._sampled(cell, seed, items, side)

    def _sampled(self, cell: Cell, seed: int, items: Sequence[Any], side: Side | None) -> Iterator[Task]:
        """Yield the cell, or one for each sample if its answers are drawn."""
        declared = self._declared(cell.method)
        reading, put = (None, OPEN) if side is None else (side.read(declared), side.put(declared))
        count = self.wishes.samples if _is_drawn(cell.benchmark, reading) else 1
        for sample in range(count):
            variant = cell.variant._replace(seed=seed * count + sample)
            yield Task(replace(cell, variant=variant), items, reading, put, sample)

    # --------------------------------------------------------------------------------------------- baselines

    @cached_property
    def _sides(self) -> dict[str, Side]:
        """Who decides how questions are read, for each benchmark that asks questions."""
        own, inside = unwrapped(self.model)
        run = self.wishes.reading(own)
        return {
            benchmark.spec: Side(own, inside, run, fixed_by(benchmark, items))
            for benchmark, items in self.asked
            if "choose" in benchmark.needs
        }

    @cached_property
    def _baselines(self) -> dict[str, dict[Reading, dict[int, Reading]]]:
        """Readings that need a baseline, by benchmark, each with those of further seeds; the model's own is first."""
        return {name: self._readings(side) for name, side in self._sides.items()}

    def _readings(self, side: Side) -> dict[Reading, dict[int, Reading]]:
        own = side.read(None)
        found: dict[Reading, dict[int, Reading]] = {own: {0: own}}
        for entry in self.methods:
            if not self._usable(entry):
                continue
            read = {key: self._read(side, method) for key, method in variants_of(entry).items()}
            first = read[0, 0]
            row = found.setdefault(first, {0: first})
            row |= {seed: r for (seed, _), r in read.items() if seed not in row and r != first}
        return found

    def _usable(self, method: Method) -> bool:
        try:
            return not method.unsupported_reason(self.model, self.data)
        except Exception:  # an error of a plugin, which is reported when the method is applied
            return False

    def _declared(self, method: Method) -> Reading | None:
        """Return the reading that a method declares.

        Raises:
            SettingsError: `reading` failed: an error of a plugin, by which all that follows would be wrong.
        """
        try:
            return method.reading(self.model)
        except Exception as error:
            raise SettingsError(f"{method.spec}: reading(model) failed with {type(error).__name__}: {error}") from error

    def _read(self, side: Side, method: Method) -> Reading:
        return side.read(self._declared(method))

    @cached_property
    def _labels(self) -> dict[Reading, str]:
        return labels(reading for readings in self._baselines.values() for reading in readings)

    def _row(self, side: Side, reading: Reading) -> str:
        known = reading in self._labels and reading != side.read(None)
        return f"{BASELINE} ({self._labels[reading]})" if known else BASELINE

    def _none(self, given: dict[str, Any]) -> Method:
        """Return the baseline, read so; the same object for the same settings, so that it is applied once."""
        made = Untouched.build(**given)
        return self._untouched.setdefault(made.spec, made)


def _is_drawn(benchmark: Benchmark, reading: Reading | None) -> bool:
    """Whether answers are drawn: by the reading of questions or, without one, by the benchmark's own sampling."""
    if reading is not None:
        return is_sampled(reading)
    own = benchmark.sampling
    return "generate" in benchmark.needs and own is not None and own.temperature > 0
