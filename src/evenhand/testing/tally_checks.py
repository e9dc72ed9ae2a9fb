"""The contract of a benchmark's pure functions: sums that add up, and numbers that are functions of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from evenhand.evaluation.base import RowBenchmark
from evenhand.experiment.contracts import NonconformingError, demand
from evenhand.interfaces import Array, Benchmark, Measured, Metric, Tally


def check_tally(benchmark: Benchmark, items: Sequence[Any], answers: Sequence[Any]) -> None:
    """Check `tally` and `compute` on the answers of one model.

    Raises:
        NonconformingError: One of them breaks the contract; the message says how.
    """
    tally = benchmark.tally(items, answers)
    _check_names(tally, items)
    _check_sums(benchmark, tally, items, answers)
    values = _check_vectorised(benchmark, tally)
    clusters = benchmark.compute(tally.sums)
    for info in benchmark.metrics:
        _check_form(info, values[info.name], clusters[info.name])


def _check_names(tally: Tally, items: Sequence[Any]) -> None:
    shape = (len(tally.clusters), len(tally.groups))
    demand(tally.sums.shape[:2] == shape, f"tally sums are {tally.sums.shape}, clusters and groups {shape}")
    demand(
        len(tally.strata) == len(tally.clusters),
        f"the tally has {len(tally.strata)} strata for {len(tally.clusters)} clusters; name one per cluster, "
        'or "" if there are none',
    )
    wanted, found = {i.cluster for i in items}, set(tally.clusters)
    wrong = [f"{name!r} is missing" for name in sorted(wanted - found)]
    wrong += [f"no item has {name!r}" for name in sorted(found - wanted)]
    demand(not wrong, f"the tally's clusters are not those of the items: {', '.join(wrong[:3])}")
    demand(
        "overall" in tally.groups, f"groups must have 'overall', in which every item is; they are {list(tally.groups)}"
    )
    for what, names in (("clusters", tally.clusters), ("groups", tally.groups)):
        twice = [name for name in names if names.count(name) > 1]
        demand(not twice, f"the tally's {what} have {twice[0] if twice else ''!r} twice; add the sums of a name up")


def _check_sums(benchmark: Benchmark, tally: Tally, items: Sequence[Any], answers: Sequence[Any]) -> None:
    """Check that the sums of halves add up to the whole, and do not depend on the order of the items."""
    parts = [benchmark.tally(*part) for part in _halves(benchmark, items, answers)]
    overall = tally.total[tally.groups.index("overall")]
    added = sum(p.total[p.groups.index("overall")] for p in parts)
    demand(np.allclose(overall, added), "the tally is not additive: halves do not sum to the whole")
    turned = _by_name(benchmark.tally(items[::-1], answers[::-1]))
    straight = _by_name(tally)
    demand(
        turned.keys() == straight.keys(),
        "the tally depends on the order of the items: in reverse it has other clusters or groups; take names from the "
        "items themselves",
    )
    for (cluster, group), sums in straight.items():
        demand(
            np.allclose(sums, turned[cluster, group]),
            f"the tally depends on the order of the items: in reverse the sums of cluster {cluster!r} in group "
            f"{group!r} differ; add up what each item and answer give by themselves",
        )


def _halves(
    benchmark: Benchmark, items: Sequence[Any], answers: Sequence[Any]
) -> list[tuple[Sequence[Any], Sequence[Any]]]:
    """Divide the items into halves, by whole clusters if a benchmark has rows of several answers."""
    half = len(items) // 2
    if not (isinstance(benchmark, RowBenchmark) and type(benchmark).joint_rows is not RowBenchmark.joint_rows):
        return [(items[:half], answers[:half]), (items[half:], answers[half:])]
    clusters = list(dict.fromkeys(item.cluster for item in items))
    first = set(clusters[: len(clusters) // 2])
    asked = list(zip(items, answers, strict=True))
    sides = ([one for one in asked if (one[0].cluster in first) == side] for side in (True, False))
    return [([item for item, _ in side], [answer for _, answer in side]) for side in sides]


def _by_name(tally: Tally) -> dict[tuple[str, str], Array]:
    return {
        (cluster, group): tally.sums[c, g]
        for c, cluster in enumerate(tally.clusters)
        for g, group in enumerate(tally.groups)
    }


def _check_vectorised(benchmark: Benchmark, tally: Tally) -> dict[str, Measured]:
    """Check that every metric has one value per leading place, which depends on the sums of that place alone."""
    values = _computed(benchmark, tally.total)
    described = [m.name for m in benchmark.metrics]
    demand(sorted(values) == sorted(described), f"metrics {sorted(values)} but described {sorted(described)}")
    stacked = _computed(benchmark, np.stack([tally.total, 2 * tally.total]))
    twice, alone = benchmark.compute(2 * tally.total), _computed(benchmark, tally.total[:1])
    for name, measured in values.items():
        demand(np.shape(measured.value) == (len(tally.groups),), f"{name} is not one value per group")
        for part in ("value", "n"):
            whole = [_part(found[name], part) for found in (values, twice)]
            both, first = _part(stacked[name], part), _part(alone[name], part)
            demand(
                _same(both, np.stack(whole)) and _same(first, whole[0][:1]),
                f"{name} is not vectorised over leading dimensions: its {part} depends on sums of other places. "
                "Take statistics as sums[..., k], and neither add up nor select along another axis than the last",
            )
    return values


def _computed(benchmark: Benchmark, sums: Array) -> dict[str, Measured]:
    try:
        return benchmark.compute(sums)
    except (ValueError, TypeError, IndexError, ZeroDivisionError) as error:
        raise NonconformingError(
            f"compute() is not vectorised over leading dimensions: with sums of shape {sums.shape} it raised "
            f"{type(error).__name__}: {error}. Take statistics as sums[..., k], and decide with np.where, not with if"
        ) from error


def _part(measured: Measured, part: str) -> Array:
    return np.asarray(measured.value if part == "value" else measured.n, dtype=float)


def _same(one: Array, other: Array) -> bool:
    return one.shape == other.shape and np.allclose(one, other, equal_nan=True)


def _check_form(info: Metric, whole: Measured, clusters: Measured) -> None:
    """Check that values are in the metric's range, and that a proportion is a count over n that clusters add up to."""
    for value in (*np.ravel(whole.value), *np.ravel(clusters.value)):
        inside = np.isnan(value) or info.range[0] - 1e-9 <= value <= info.range[1] + 1e-9
        demand(bool(inside), f"{info.name} is {value:g}, outside its range {info.range}")
    if info.form == "proportion":
        counts = np.where(clusters.n > 0, clusters.value, 0.0) * clusters.n
        total = np.where(whole.n > 0, whole.value, 0.0) * whole.n
        adds = np.allclose(counts.sum(axis=0), total) and np.allclose(clusters.n.sum(axis=0), whole.n)
        demand(
            bool(adds), f"{info.name} is not a proportion: value * n of the clusters do not add up; use form='smooth'"
        )
