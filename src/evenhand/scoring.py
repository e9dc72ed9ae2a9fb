"""From answers to records: values, intervals and the paired comparison with the untouched model. Asks no model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from evenhand import statistics
from evenhand.interfaces import Array, Benchmark, Choice, Method, Reply, Tally
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
    tally: Tally | None = None

    @property
    def label(self) -> str:
        """Readable name."""
        return f"{self.model} x {self.method.spec} x {self.benchmark.spec}"

    def finish(self, items: Sequence[Any], answers: Sequence[Any]) -> None:
        """Take the answers."""
        self.answers, self.tally = answers, self.benchmark.tally(items, answers)
        self.status = "ok"

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
    return _with_holm(records)


@dataclass(frozen=True)
class _Baseline:
    cell: Cell
    draws: dict[str, Array]


def _draws(cell: Cell, replicates: int, seed: int) -> dict[str, Array]:
    tally = _tally(cell)
    return statistics.bootstrap(tally, cell.benchmark.metrics, replicates=replicates, seed=seed)


def _records(cell: Cell, draws: dict[str, Array], base: _Baseline | None = None) -> list[Record]:
    tally = _tally(cell)
    values = cell.benchmark.metrics(tally.total)
    before = cell.benchmark.metrics(_tally(base.cell).total) if base else {}
    takes_part = np.abs(tally.sums).sum(axis=2) > 0
    clusters = takes_part.sum(axis=0)
    in_stratum = Counter(tally.strata)
    redrawn = np.array([in_stratum[s] > 1 for s in tally.strata])
    # A cluster that is alone in its stratum, resampled, is itself: no interval, rather than one of width 0.
    varies = (clusters > 1) & (takes_part & redrawn[:, None]).any(axis=0)
    same = base is not None and _same_answers(cell, base.cell)
    records = []
    for info in cell.benchmark.metrics_info:
        value, n = values[info.name]
        low, high = statistics.interval(draws[info.name])
        for g, group in enumerate(tally.groups):
            enough = bool(varies[g])
            record = Record(
                model=cell.model,
                method=cell.method.spec,
                benchmark=cell.benchmark.spec,
                metric=info.name,
                group=group,
                value=float(value[g]),
                low=float(low[g]) if enough else NAN,
                high=float(high[g]) if enough else NAN,
                n=float(n[g]),
                clusters=int(clusters[g]),
                direction=info.direction,
                kind=info.kind,
                main=info.main,
                status="no effect" if same else "ok",
            )
            if base is not None:
                pair = draws[info.name][:, g], base.draws[info.name][:, g]
                record = _compared(record, float(before[info.name].value[g]), *pair, enough=enough)
            records.append(record)
    return records


def _compared(record: Record, before: float, draws: Array, base_draws: Array, *, enough: bool) -> Record:
    """Add the paired difference, the gain in the metric's direction and the p-value."""
    after, was = np.array(record.value), np.array(before)
    gain = NAN if record.direction == "none" else float(statistics.gain(record.direction, was, after))
    record = replace(record, difference=record.value - before, gain=gain)
    if not enough:
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
    return answer.text if isinstance(answer, Reply) else answer


def _tally(cell: Cell) -> Tally:
    if cell.tally is None:
        raise ValueError(f"{cell.label} has no answers yet")
    return cell.tally
