"""Records of two rows on the items that both answered, with the statistics of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from evenhand import statistics
from evenhand.core.records import Record
from evenhand.evaluation.metrics.change_estimates import Repetition, change_estimates, flips
from evenhand.interfaces import Benchmark, Grade, Tally
from evenhand.report.matched import Matched, Variant
from evenhand.statistics import Design, Estimate
from evenhand.statistics.criteria import Criteria
from evenhand.statistics.design import takes_part
from evenhand.statistics.scored import compared, valued


@dataclass(frozen=True)
class _Row:
    """Tallies and grades of one side by variant."""

    tallies: Mapping[Variant, Tally]
    grades: Mapping[Variant, Sequence[Grade] | None]

    @classmethod
    def of(cls, bench: Benchmark, items: Sequence[Any], answers: Mapping[Variant, Sequence[Any]]) -> _Row:
        return cls(
            {v: bench.tally(items, own) for v, own in answers.items()},
            {v: bench.grades(items, own) for v, own in answers.items()},
        )


class Bootstrap(NamedTuple):
    """Resampling of the metrics that need a bootstrap."""

    replicates: int = statistics.REPLICATES
    seed: int = 0

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> Bootstrap:
        """Return the bootstrap that a run used, so that the same comparison gives the same numbers."""
        replicates = manifest.get("statistics", {}).get("replicates", statistics.REPLICATES)
        return cls(int(replicates), int(manifest.get("seed", 0)))


BOOTSTRAP = Bootstrap()


def paired_records(
    found: Matched, baseline: str, like: Record, criteria: Criteria, bootstrap: Bootstrap = BOOTSTRAP
) -> list[Record]:
    """Compute every metric by group with its paired difference, and the answer changes; p is not yet adjusted.

    Args:
        found: The common items and both rows' answers.
        baseline: Name of the row that is subtracted.
        like: Model, method and benchmark of the records.
        criteria: Level and margin of the tests.
        bootstrap: Bootstrap of the metrics that need one.
    """
    before = _Row.of(found.benchmark_before, found.items_before, found.before)
    after = _Row.of(found.benchmark, found.items, found.after)
    tallies = [*before.tallies.values(), *after.tallies.values()]
    first = tallies[0]
    design = Design.of(first.clusters, first.strata, takes_part([t.sums for t in tallies]))
    old, new = (_estimates(found, row, design, bootstrap) for row in (before, after))
    graded = _graded(found, before, after)
    turned = flips(design, graded)
    records: list[Record] = []
    for metric, estimate in new.items():
        part = estimate.info.part
        pair = statistics.paired(design, old[metric], estimate, None if part is None else turned.get(part))
        values = list(valued(like, first.groups, estimate, criteria))
        records += compared(values, baseline, old[metric], pair, criteria)
    for groups, estimate in change_estimates(graded):
        records += [replace(r, baseline=baseline) for r in valued(like, groups, estimate, criteria)]
    return records


def _estimates(found: Matched, row: _Row, design: Design, bootstrap: Bootstrap) -> dict[str, Estimate]:
    bench = found.benchmark
    return statistics.estimates(row.tallies, design, bench.compute, bench.metrics, **bootstrap._asdict())


def _graded(found: Matched, before: _Row, after: _Row) -> list[Repetition]:
    """Pair the grades of each variant with those of the same seed on the other side, else with that side's first."""
    by_seed = {variant[0]: grades for variant, grades in before.grades.items()}
    first = next(iter(before.grades.values()))
    pairs = [(v, by_seed.get(v[0], first), grades) for v, grades in after.grades.items()]
    clusters = [item.cluster for item in found.items]
    known = [
        Repetition(v, was, now, clusters, after.tallies[v])
        for v, was, now in pairs
        if was is not None and now is not None
    ]
    return known if len(known) == len(pairs) else []
