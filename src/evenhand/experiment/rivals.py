"""Which of two methods is better: every pair of them on the same items, by the main metrics of a benchmark.

The tests against the baseline cannot answer this. `evenhand.report.pareto` reads the result.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np

from evenhand import statistics
from evenhand.evaluation.metrics.turned_items import TurnedItems
from evenhand.experiment.cells import Cell
from evenhand.interfaces import Metric
from evenhand.report.rivals import Rival
from evenhand.statistics import Design, Estimate, Flips, Paired

OVERALL = "overall"
Partners = Sequence[tuple[Cell, Cell]]
"""Pairs of cells: one of a row, and one of the other row that it is compared with."""


def between_methods(
    design: Design,
    partners: Mapping[tuple[str, str], Partners],
    estimates: Mapping[str, Mapping[str, Estimate]],
    alpha: float,
) -> Iterator[Rival]:
    """Yield the paired differences of all pairs of rows of one model and benchmark.

    Args:
        design: Design of the items.
        partners: Their cells by (row, other row); the differences are the other row minus the first.
        estimates: Estimates by row and metric.
        alpha: 1 - level of the intervals.
    """
    items: TurnedItems | None = None
    for (name, other), cells in partners.items():
        after = cells[0][0]
        if items is None and after.tally is not None and after.grades is not None:
            items = TurnedItems(after.grades, after.clusters, after.tally)
        groups = after.tally.groups if after.tally is not None else ()
        if OVERALL not in groups:
            continue
        at = groups.index(OVERALL)
        for metric, estimate in estimates[other].items():
            if not _wanted(estimate.info):
                continue
            flips = _flips(design, items, estimate.info.part, cells)
            pair = statistics.paired(design, estimates[name][metric], estimate, flips)
            yield _rival(after, (other, name), pair, at, alpha)


def _rival(cell: Cell, names: tuple[str, str], pair: Paired, at: int, alpha: float) -> Rival:
    """Make the record of the difference in group number `at`."""
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
    """Return each pair of rows once, in their order."""
    return list(combinations(rows, 2))


def _wanted(info: Metric) -> bool:
    return info.main and info.kind in ("bias", "capability") and info.direction != "none"


def _flips(design: Design, items: TurnedItems | None, part: str | None, cells: Partners) -> Flips | None:
    """Return the flips for `statistics.paired`; None without grades, or if the metric is not a share of right ones."""
    if items is None or part is None or not items.has(part):
        return None
    graded = [(b.grades, a.grades) for a, b in cells if a.grades is not None and b.grades is not None]
    if len(graded) < len(cells):
        return None
    counts = [design.pick(items.counts(part, before, after)) for before, after in graded]
    return Flips(*np.mean(counts, axis=0).T)
