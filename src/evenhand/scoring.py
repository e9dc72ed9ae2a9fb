"""From answers to records: values, intervals and the paired comparison with the untouched model. Asks no model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np

from evenhand import statistics
from evenhand.changes import change_metrics, change_tallies, described
from evenhand.errors import SettingsError
from evenhand.interfaces import Array, Benchmark, Choice, Mark, Measured, Method, Metric, Reply, Tally
from evenhand.records import NAN, Record


@dataclass
class Cell:
    """One (model, method, benchmark) on its way to numbers."""

    model: str
    method: Method
    benchmark: Benchmark
    status: Literal["running", "ok", "not applicable", "failed"] = "running"
    note: str = ""
    answers: Sequence[Any] = ()
    clusters: Sequence[str] = ()
    """Of the items."""
    tally: Tally | None = None
    marks: Sequence[Mark] | None = None
    """Which answers are right, where the benchmark knows."""

    @property
    def label(self) -> str:
        """Readable name."""
        return f"{self.model} x {self.method.spec} x {self.benchmark.spec}"

    def finish(self, items: Sequence[Any], answers: Sequence[Any]) -> None:
        """Take the answers.

        Raises:
            SettingsError: The benchmark's marks do not fit its items or its tally.
        """
        self.answers, self.clusters = answers, [item.cluster for item in items]
        tally, self.marks = self.benchmark.tally(items, answers), self.benchmark.marks(items, answers)
        if self.marks is not None:
            if len(self.marks) != len(items):
                raise SettingsError(f"{self.benchmark.name}: {len(self.marks)} marks for {len(items)} items")
            unknown = {group for mark in self.marks for group in mark.groups} - {*tally.groups}
            if unknown:
                raise SettingsError(f"{self.benchmark.name}: marks name {sorted(unknown)[0]!r}, which is no group")
        self.status, self.tally = "ok", tally

    def refuse(self, reason: str) -> None:
        """The method or benchmark does not fit the model."""
        self.status, self.note = "not applicable", reason

    def fail(self, reason: str) -> None:
        """Something went wrong; the other cells go on."""
        self.status, self.note = "failed", reason


def score(cells: Sequence[Cell], *, replicates: int = statistics.REPLICATES, seed: int = 0) -> list[Record]:
    """Numbers of all cells, each compared with the untouched model on the same items."""
    records: list[Record] = []
    sides: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        sides.setdefault((cell.model, cell.benchmark.spec), []).append(cell)
    for side in sides.values():
        base = next((c for c in side if c.method.name == "none" and c.tally is not None), None)
        base_draws = _draws(base, replicates, seed) if base else {}
        for cell in side:
            if cell.tally is None:
                records.append(_without_numbers(cell))
            elif cell is base or base is None:
                records += _records(cell, base_draws or _draws(cell, replicates, seed))
            else:
                against = _Baseline(base, base_draws)
                records += _records(cell, _draws(cell, replicates, seed), against)
                records += _changes(cell, base, replicates, seed)
    return _with_holm(records)


@dataclass(frozen=True)
class _Baseline:
    cell: Cell
    draws: dict[str, Array]


def _draws(cell: Cell, replicates: int, seed: int) -> dict[str, Array]:
    tally = _tally(cell)
    return statistics.bootstrap(tally, cell.benchmark.metrics, replicates=replicates, seed=seed)


def _records(cell: Cell, draws: dict[str, Array], base: _Baseline | None = None) -> list[Record]:
    tally, metrics = _tally(cell), cell.benchmark.metrics
    records = _values(cell, tally, cell.benchmark.metrics_info, metrics(tally.total), draws)
    if base is None:
        return records
    before = metrics(_tally(base.cell).total)
    status = _status(cell, base.cell)
    out = []
    for record in records:
        g, name = tally.groups.index(record.group), record.metric
        pair = draws[name][:, g], base.draws[name][:, g]
        out.append(_compared(replace(record, status=status), float(before[name].value[g]), *pair))
    return out


def _changes(cell: Cell, base: Cell, replicates: int, seed: int) -> list[Record]:
    """What went from wrong to right and the other way; a comparison in itself, so without a difference."""
    if cell.marks is None or base.marks is None:
        return []
    records = []
    for part, tally in change_tallies(base.marks, cell.marks, cell.clusters, _tally(cell)).items():
        metrics = partial(change_metrics, part=part)
        draws = statistics.bootstrap(tally, metrics, replicates=replicates, seed=seed)
        records += _values(cell, tally, described(part), metrics(tally.total), draws)
    status = _status(cell, base)
    return [replace(r, status=status) for r in records]


def _values(
    cell: Cell, tally: Tally, infos: Sequence[Metric], values: dict[str, Measured], draws: dict[str, Array]
) -> list[Record]:
    """A record per metric and group, with its interval."""
    takes_part = np.abs(tally.sums).sum(axis=2) > 0
    clusters = takes_part.sum(axis=0)
    in_stratum = Counter(tally.strata)
    redrawn = np.array([in_stratum[s] > 1 for s in tally.strata])
    # A cluster that is alone in its stratum, resampled, is itself: no interval, rather than one of width 0.
    varies = (clusters > 1) & (takes_part & redrawn[:, None]).any(axis=0)
    records = []
    for info in infos:
        value, n = values[info.name]
        low, high = statistics.interval(draws[info.name])
        for g, group in enumerate(tally.groups):
            record = Record(
                model=cell.model,
                method=cell.method.spec,
                benchmark=cell.benchmark.spec,
                metric=info.name,
                group=group,
                value=float(value[g]),
                low=float(low[g]) if varies[g] else NAN,
                high=float(high[g]) if varies[g] else NAN,
                n=float(n[g]),
                clusters=int(clusters[g]),
                direction=info.direction,
                kind=info.kind,
                main=info.main,
            )
            records.append(record)
    return records


def _status(cell: Cell, base: Cell) -> Literal["ok", "no effect"]:
    return "no effect" if _same_answers(cell, base) else "ok"


def _compared(record: Record, before: float, draws: Array, base_draws: Array) -> Record:
    """Add the paired difference, the gain in the metric's direction and the p-value."""
    after, was = np.array(record.value), np.array(before)
    gain = NAN if record.direction == "none" else float(statistics.gain(record.direction, was, after))
    record = replace(record, difference=record.value - before, gain=gain)
    if np.isnan(record.low):  # too few clusters
        return record
    low, high = statistics.interval(draws - base_draws)
    record = replace(record, difference_low=float(low), difference_high=float(high))
    record = replace(record, p=float(statistics.p_value(draws - base_draws)))
    if record.direction == "none":
        return record
    gain_low, gain_high = statistics.interval(statistics.gain(record.direction, base_draws, draws))
    return replace(record, gain_low=float(gain_low), gain_high=float(gain_high))


def _with_holm(records: list[Record]) -> list[Record]:
    """Adjust p across the methods that are compared on one model, benchmark, metric and group."""
    families: dict[tuple[str, str, str, str], list[int]] = {}
    for i, r in enumerate(records):
        if not np.isnan(r.p):
            families.setdefault((r.model, r.benchmark, r.metric, r.group), []).append(i)
    out = list(records)
    for rows in families.values():
        for i, p in zip(rows, statistics.holm([records[i].p for i in rows]), strict=True):
            out[i] = replace(records[i], p_holm=p)
    return out


def _without_numbers(cell: Cell) -> Record:
    status: Literal["not applicable", "failed"] = "failed" if cell.status == "failed" else "not applicable"
    return Record(
        model=cell.model, method=cell.method.spec, benchmark=cell.benchmark.spec, status=status, note=cell.note
    )


def _same_answers(cell: Cell, base: Cell) -> bool:
    """Whether a method left every answer as it was, which is to say that it did nothing here."""
    if len(cell.answers) != len(base.answers):
        return False
    return all(_essence(a) == _essence(b) for a, b in zip(cell.answers, base.answers, strict=True))


def _essence(answer: Any) -> Any:
    """An answer without its cost and history."""
    if isinstance(answer, Choice):
        return answer.decision, answer.probabilities, answer.status
    if isinstance(answer, Reply):
        return answer.text
    if isinstance(answer, tuple | list):
        return tuple(map(_essence, answer))
    if is_dataclass(answer):  # a benchmark's own kind of answer may hold several
        return tuple(_essence(getattr(answer, f.name)) for f in fields(answer))
    return answer


def _tally(cell: Cell) -> Tally:
    if cell.tally is None:
        raise ValueError(f"{cell.label} has no answers yet")
    return cell.tally
