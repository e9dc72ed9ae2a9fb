"""Scoring of answers: values, intervals and the paired comparison with the baseline. Asks no model.

The cells of one model and benchmark form a side. Cells that repeat one another (seeds, samples, wordings) form a row,
whose numbers are means over them. Every row is compared with its baseline on the same clusters.
"""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np

from evenhand import statistics
from evenhand.core.records import Record
from evenhand.core.withheld import Withheld
from evenhand.evaluation.metrics.change_estimates import Repetition, change_estimates, flips
from evenhand.experiment.cells import Cell
from evenhand.experiment.rivals import between_methods, pairs_of
from evenhand.experiment.worst_group import worst_groups
from evenhand.interfaces import Choice, Reply, Tally
from evenhand.report.rivals import Rival
from evenhand.statistics.criteria import CRITERIA, Criteria
from evenhand.statistics.design import takes_part
from evenhand.statistics.scored import compared, valued

SAME_ANSWERS = "the answers are the baseline's"


@dataclass(frozen=True)
class Row:
    """Cells that differ only in seed, sample or wording."""

    cells: tuple[Cell, ...]

    @property
    def first(self) -> Cell:
        """The first cell; model, benchmark and labels are the same in all."""
        return self.cells[0]

    @property
    def tallies(self) -> dict[tuple[int, int], Tally]:
        """Tallies by seed and wording."""
        return {c.variant: _tally(c) for c in self.cells}


@dataclass(frozen=True)
class _Side:
    """What all rows of one model and benchmark share."""

    design: statistics.Design
    rows: Mapping[str, Row]
    estimates: Mapping[str, dict[str, statistics.Estimate]]


class Scored(NamedTuple):
    """Results of the answers of a comparison."""

    records: list[Record]
    rivals: list[Rival]
    """Methods compared with one another, pair by pair."""


def score(
    cells: Sequence[Cell], *, replicates: int = statistics.REPLICATES, seed: int = 0, criteria: Criteria = CRITERIA
) -> list[Record]:
    """Compute the numbers of all cells, each row compared with its baseline on the same items.

    Args:
        cells: All cells, in any order.
        replicates: Replicates of the bootstrap, for metrics that take one.
        seed: Seed of the bootstrap.
        criteria: Level, margin and family of the tests.
    """
    return scored(cells, replicates=replicates, seed=seed, criteria=criteria, rivals=False).records


def scored(
    cells: Sequence[Cell],
    *,
    replicates: int = statistics.REPLICATES,
    seed: int = 0,
    criteria: Criteria = CRITERIA,
    rivals: bool = True,
) -> Scored:
    """Compute the numbers as `score` does, and compare every pair of methods with each other.

    Args:
        cells: All cells, in any order.
        replicates: Replicates of the bootstrap, for metrics that take one.
        seed: Seed of the bootstrap.
        criteria: Level, margin and family of the tests.
        rivals: Whether to compare methods with one another.
    """
    records: list[Record] = []
    found: list[Rival] = []
    sides: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        sides.setdefault((cell.model, cell.benchmark.spec), []).append(cell)
    for mine in sides.values():
        try:
            made, side = _side(mine, replicates, seed, criteria)
            records += made
            found += _rivals(side, criteria) if rivals else ()
        except Exception as error:  # an error of one benchmark must not cost others their numbers
            records += _lost(mine, error)
    return Scored(criteria.adjusted(records), found)


def _rivals(side: _Side, criteria: Criteria) -> Iterator[Rival]:
    names = [name for name, row in side.rows.items() if not row.first.is_baseline]
    partners = {(a, b): _partners(side.rows[b], side.rows[a]) for a, b in pairs_of(names)}
    return between_methods(side.design, partners, side.estimates, criteria.alpha)


def _lost(cells: Sequence[Cell], error: Exception) -> Iterator[Record]:
    """Yield every row of a model and benchmark without numbers, since some of these could not be computed."""
    first = cells[0]
    label = f"{first.model} x {first.benchmark.spec}"
    shown = first.benchmark.quotable
    trace = traceback.format_exc() if shown else Withheld().trace(error)
    warnings.warn(f"{label} has no numbers:\n{trace}", RuntimeWarning, stacklevel=4)
    said = f"{type(error).__name__}: {error}" if shown else Withheld().error(error)
    why = f"its numbers cannot be computed: {said}"
    for row in dict.fromkeys(c.row for c in cells):
        mine = [c for c in cells if c.row == row]
        if any(c.tally is not None for c in mine):
            yield Record(model=first.model, method=row, benchmark=first.benchmark.spec, status="failed", note=why)
        else:
            yield from (r for c in mine for r in _without_numbers(c))


def _side(cells: Sequence[Cell], replicates: int, seed: int, criteria: Criteria) -> tuple[list[Record], _Side]:
    rows: dict[str, list[Cell]] = {}
    for cell in cells:
        if cell.tally is not None:
            rows.setdefault(cell.row, []).append(cell)
    side = _estimated({name: Row(tuple(mine)) for name, mine in rows.items()}, replicates, seed)
    records: list[Record] = []
    told = set[str]()
    for cell in cells:  # in the order of the run
        if cell.tally is None:
            records += _without_numbers(cell)
        elif cell.row not in told:
            told.add(cell.row)
            records += _records(side, cell.row, replicates, seed, criteria)
    return records, side


def _estimated(rows: Mapping[str, Row], replicates: int, seed: int) -> _Side:
    tallies = [t for row in rows.values() for t in row.tallies.values()]
    if not tallies:
        return _Side(statistics.Design.of((), (), np.zeros((0, 0), dtype=bool)), {}, {})
    like = tallies[0]
    if any((t.clusters, t.strata, t.groups) != (like.clusters, like.strata, like.groups) for t in tallies):
        raise ValueError(
            "cells of one benchmark have different clusters, strata or groups: its tally must take these "
            "from the items, never from the answers"
        )
    design = statistics.Design.of(like.clusters, like.strata, takes_part([t.sums for t in tallies]))
    found = {}
    for name, row in rows.items():
        benchmark = row.first.benchmark
        found[name] = statistics.estimates(
            row.tallies, design, benchmark.compute, benchmark.metrics, replicates=replicates, seed=seed
        )
    return _Side(design, rows, found)


def _records(side: _Side, name: str, replicates: int, seed: int, criteria: Criteria) -> list[Record]:
    row = side.rows[name]
    base = None if row.first.is_baseline else side.rows.get(row.first.baseline)
    groups = _tally(row.first).groups
    graded = [] if base is None else _graded(row, base)
    turned = flips(side.design, graded)
    records = []
    for metric, estimate in side.estimates[name].items():
        found = list(values(row.first, groups, estimate, criteria))
        if base is not None:
            before = side.estimates[row.first.baseline][metric]
            part = estimate.info.part
            pair = statistics.paired(side.design, before, estimate, None if part is None else turned.get(part))
            found = compared(found, row.first.baseline, before, pair, criteria)
        records += found
    if base is not None:
        records = _with_status(records, row, base)
        records += _changes(row, base, graded, replicates, seed, criteria)
    return records + worst_groups(records, side.estimates[name], groups, criteria)


def values(cell: Cell, groups: Sequence[str], estimate: statistics.Estimate, criteria: Criteria) -> Iterator[Record]:
    """Yield a record per group, with its interval."""
    like = Record(model=cell.model, method=cell.row, benchmark=cell.benchmark.spec)
    return valued(like, groups, estimate, criteria, cell.remark)


def _partners(row: Row, base: Row) -> list[tuple[Cell, Cell]]:
    """Pair each cell with the baseline's cell of the same seed if there is one, else with its first."""
    by_seed = {c.variant.seed: c for c in base.cells}
    return [(c, by_seed.get(c.variant.seed, base.first)) for c in row.cells]


def _graded(row: Row, base: Row) -> list[Repetition]:
    """Pair each cell's grades with those of its partner; empty if any of them has none."""
    pairs = _partners(row, base)
    known = [
        Repetition(cell.variant, other.grades, cell.grades, cell.clusters, _tally(cell))
        for cell, other in pairs
        if cell.grades is not None and other.grades is not None
    ]
    return known if len(known) == len(pairs) else []


def _changes(
    row: Row, base: Row, graded: Sequence[Repetition], replicates: int, seed: int, criteria: Criteria
) -> list[Record]:
    """Make records of what went from wrong to right and back; being comparisons themselves, they have no difference."""
    records: list[Record] = []
    for groups, estimate in change_estimates(graded, replicates=replicates, seed=seed):
        records += [replace(r, baseline=base.first.row) for r in values(row.first, groups, estimate, criteria)]
    return _with_status(records, row, base)


def _with_status(records: Sequence[Record], row: Row, base: Row) -> list[Record]:
    """Mark a row that left every answer as it was, with the reason."""
    if not all(_same_answers(cell, other) for cell, other in _partners(row, base)):
        return list(records)
    why = row.first.no_effect or SAME_ANSWERS
    return [replace(r, status="no effect", note="; ".join(filter(None, (why, r.note)))) for r in records]


def _without_numbers(cell: Cell) -> Iterator[Record]:
    """Yield one record that says why or, if nothing was answered, one per main metric without a value."""
    status: Literal["not applicable", "failed"] = "failed" if cell.status == "failed" else "not applicable"
    record = Record(model=cell.model, method=cell.row, benchmark=cell.benchmark.spec, status=status, note=cell.note)
    main = [m for m in cell.benchmark.metrics if m.main] if cell.gap is not None and cell.gap.total else []
    for m in main:
        yield replace(record, metric=m.name, direction=m.direction, kind=m.kind, main=True)
    if not main:
        yield record


def _same_answers(cell: Cell, base: Cell) -> bool:
    """Whether a method left every answer as it was, that is, did nothing here."""
    if len(cell.answers) != len(base.answers):
        return False
    return all(_essence(a) == _essence(b) for a, b in zip(cell.answers, base.answers, strict=True))


def _essence(answer: Any) -> Any:
    """Return an answer without its cost and history."""
    if isinstance(answer, Choice):
        return answer.decision, answer.probabilities, answer.status
    if isinstance(answer, Reply):
        return answer.text
    if isinstance(answer, tuple | list):
        return tuple(map(_essence, answer))
    if is_dataclass(answer):  # a benchmark's own kind of answer may hold several
        return tuple(_essence(getattr(answer, f.name)) for f in fields(answer) if f.name != "usage")
    return answer


def _tally(cell: Cell) -> Tally:
    if cell.tally is None:
        raise ValueError(f"{cell.label} has no answers yet")
    return cell.tally
