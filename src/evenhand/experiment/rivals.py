"""Which of two methods is better: every pair of them on the same items, by the main metrics of a benchmark.

The tests against the baseline cannot answer this. `evenhand.report.pareto` reads the result.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from evenhand import statistics
from evenhand.experiment.cells import Cell
from evenhand.interfaces import Array, Grade, Metric
from evenhand.report.rivals import Rival
from evenhand.statistics import Design, Estimate, Flips, Paired

OVERALL = "overall"
Partners = Sequence[tuple[Cell, Cell]]
"""Cells of one row with those of another that they are compared with."""


def between_methods(
    design: Design,
    partners: Mapping[tuple[str, str], Partners],
    estimates: Mapping[str, Mapping[str, Estimate]],
    alpha: float,
) -> Iterator[Rival]:
    """The paired differences of all pairs of rows of one model and benchmark.

    Args:
        design: Of the items.
        partners: By (row, other row) their cells; the differences are of the other row minus the first.
        estimates: By row and metric.
        alpha: 1 - level of the intervals.
    """
    turns: _Turns | None = None
    for (name, other), cells in partners.items():
        after = cells[0][0]
        turns = turns or _Turns(after)
        groups = after.tally.groups if after.tally is not None else ()
        if OVERALL not in groups:
            continue
        at = groups.index(OVERALL)
        for metric, estimate in estimates[other].items():
            if not _wanted(estimate.info):
                continue
            flips = turns.flips(design, estimate.info.part, cells)
            pair = statistics.paired(design, estimates[name][metric], estimate, flips)
            yield _rival(after, (other, name), pair, at, alpha)


def _rival(cell: Cell, names: tuple[str, str], pair: Paired, at: int, alpha: float) -> Rival:
    """The difference in group number `at`."""
    (low, high), (gain_low, gain_high) = pair.interval(alpha), pair.gain_interval(alpha)
    return Rival(
        model=cell.model,
        benchmark=cell.benchmark.spec,
        metric=pair.info.name,
        method=names[0],
        against=names[1],
        difference=float(pair.value[at]),
        difference_low=float(low[at]),
        difference_high=float(high[at]),
        gain=float(pair.gain[at]),
        gain_low=float(gain_low[at]),
        gain_high=float(gain_high[at]),
        p=float(pair.p[at]),
        clusters=int(pair.clusters[at]),
    )


def pairs_of(rows: Sequence[str]) -> list[tuple[str, str]]:
    """Each pair of rows once, in their order."""
    return list(combinations(rows, 2))


def _wanted(info: Metric) -> bool:
    return info.main and info.kind in ("bias", "capability") and info.direction != "none"


class _Turns:
    """Counts the items that turned right, or ceased to be, for many pairs of rows of the same items."""

    def __init__(self, like: Cell) -> None:
        self._like, self._rights = like, dict[int, tuple[NDArray[np.bool_], NDArray[np.bool_]]]()
        self._places = {} if like.grades is None else _places(like, like.grades)

    def flips(self, design: Design, part: str | None, cells: Partners) -> Flips | None:
        """What `statistics.paired` takes; None where the metric is not a share of right answers."""
        if part is None or part not in self._places or any(c.grades is None for pair in cells for c in pair):
            return None
        found = [np.stack(self._counts(part, after, before), axis=-1) for after, before in cells]
        return Flips(*np.mean([design.pick(sums) for sums in found], axis=0).T)

    def _counts(self, part: str, after: Cell, before: Cell) -> list[Array]:
        items, place, shape = self._places[part]
        (now, counted), (was, counted_before) = self._right(after), self._right(before)
        both = counted & counted_before
        kinds = (both & now & ~was, both & was & ~now, both)
        found = []
        for kind in kinds:
            counts = np.bincount(place, weights=kind[items].astype(float), minlength=shape[0] * shape[1])
            found.append(counts.astype(np.float64).reshape(shape))
        return found

    def _right(self, cell: Cell) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        if id(cell) not in self._rights:
            grades = cell.grades or ()
            right = np.array([g.decision is not None and g.right for g in grades], dtype=bool)
            self._rights[id(cell)] = right, np.array([g.counted for g in grades], dtype=bool)
        return self._rights[id(cell)]


Place = tuple[NDArray[np.intp], NDArray[np.intp], tuple[int, int]]
"""Numbers of items, the place of each among clusters and groups, and how many of these there are."""


def _places(cell: Cell, grades: Sequence[Grade]) -> dict[str, Place]:
    """By part of the grades, where each item counts."""
    if cell.tally is None:
        return {}
    cluster, group = ({name: n for n, name in enumerate(names)} for names in (cell.tally.clusters, cell.tally.groups))
    found: dict[str, list[tuple[int, int]]] = {}
    for number, (grade, where) in enumerate(zip(grades, cell.clusters, strict=True)):
        for name in grade.groups:
            found.setdefault(grade.part, []).append((number, cluster[where] * len(group) + group[name]))
    shape = len(cluster), len(group)
    places = {}
    for part, at in found.items():
        numbers, where_to = (np.array(n, dtype=np.intp) for n in zip(*at, strict=True))
        places[part] = numbers, where_to, shape
    return places
