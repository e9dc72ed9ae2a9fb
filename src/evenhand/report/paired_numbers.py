"""Records of two rows on the items that both answered, by the same statistics as a comparison's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from evenhand import statistics
from evenhand.core.records import Record
from evenhand.evaluation.metrics.answer_changes import change_metrics, change_tallies, described, turned
from evenhand.interfaces import Array, Grade, Tally
from evenhand.report.matched import Matched, Variant
from evenhand.statistics import Design, Estimate, Flips
from evenhand.statistics.criteria import Criteria
from evenhand.statistics.design import takes_part
from evenhand.statistics.scored import compared, valued


@dataclass(frozen=True)
class _Row:
    """One side by variant."""

    tallies: Mapping[Variant, Tally]
    grades: Mapping[Variant, Sequence[Grade] | None]

    @classmethod
    def of(cls, found: Matched, answers: Mapping[Variant, Sequence[Any]]) -> _Row:
        bench = found.benchmark
        return cls(
            {v: bench.tally(found.items, own) for v, own in answers.items()},
            {v: bench.grades(found.items, own) for v, own in answers.items()},
        )


class Bootstrap(NamedTuple):
    """How metrics that take a bootstrap are resampled."""

    replicates: int = statistics.REPLICATES
    seed: int = 0

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> Bootstrap:
        """As a run had it, so that the same comparison has the same numbers."""
        replicates = manifest.get("statistics", {}).get("replicates", statistics.REPLICATES)
        return cls(int(replicates), int(manifest.get("seed", 0)))


BOOTSTRAP = Bootstrap()


def paired_records(
    found: Matched, baseline: str, like: Record, criteria: Criteria, bootstrap: Bootstrap = BOOTSTRAP
) -> list[Record]:
    """Every metric by group with its paired difference, then what turned right and wrong; p is not adjusted yet.

    Args:
        found: The common items and both rows' answers.
        baseline: Name of the row that the differences are taken from.
        like: Model, method and benchmark of the records.
        criteria: Level and margin of the tests.
        bootstrap: For metrics that take one.
    """
    before, after = _Row.of(found, found.before), _Row.of(found, found.after)
    tallies = [*before.tallies.values(), *after.tallies.values()]
    first = tallies[0]
    design = Design.of(first.clusters, first.strata, takes_part([t.sums for t in tallies]))
    old, new = (_estimates(found, row, design, bootstrap) for row in (before, after))
    flips = _flips(found, design, before, after)
    records: list[Record] = []
    for metric, estimate in new.items():
        part = estimate.info.part
        pair = statistics.paired(design, old[metric], estimate, None if part is None else flips.get(part))
        values = list(valued(like, first.groups, estimate, criteria))
        records += compared(values, baseline, old[metric], pair, criteria)
    return records + _changes(found, before, after, baseline, like, criteria)


def _estimates(found: Matched, row: _Row, design: Design, bootstrap: Bootstrap) -> dict[str, Estimate]:
    bench = found.benchmark
    return statistics.estimates(row.tallies, design, bench.compute, bench.metrics, **bootstrap._asdict())


def _graded(before: _Row, after: _Row) -> list[tuple[Variant, Sequence[Grade], Sequence[Grade]]]:
    """Grades of each variant with those of the same seed on the other side, else with its first."""
    by_seed = {variant[0]: grades for variant, grades in before.grades.items()}
    first = next(iter(before.grades.values()))
    pairs = [(v, by_seed.get(v[0], first), grades) for v, grades in after.grades.items()]
    known = [(v, was, now) for v, was, now in pairs if was is not None and now is not None]
    return known if len(known) == len(pairs) else []


def _flips(found: Matched, design: Design, before: _Row, after: _Row) -> dict[str, Flips]:
    clusters = [item.cluster for item in found.items]
    sums: dict[str, list[Array]] = {}
    for variant, was, now in _graded(before, after):
        for part, counts in turned(was, now, clusters, after.tallies[variant]).items():
            sums.setdefault(part, []).append(design.pick(counts))
    return {part: Flips(*np.mean(counts, axis=0).T) for part, counts in sums.items()}


def _changes(
    found: Matched, before: _Row, after: _Row, baseline: str, like: Record, criteria: Criteria
) -> list[Record]:
    """What went from wrong to right and the other way."""
    clusters = [item.cluster for item in found.items]
    by_part: dict[str, dict[Variant, Tally]] = {}
    for variant, was, now in _graded(before, after):
        for part, tally in change_tallies(was, now, clusters, after.tallies[variant]).items():
            by_part.setdefault(part, {})[variant] = tally
    records: list[Record] = []
    for part, tallies in by_part.items():
        first = next(iter(tallies.values()))
        design = Design.of(first.clusters, first.strata, takes_part([t.sums for t in tallies.values()]))
        made = statistics.estimates(tallies, design, partial(change_metrics, part=part), described(part))
        for estimate in made.values():
            records += [replace(r, baseline=baseline) for r in valued(like, first.groups, estimate, criteria)]
    return records
