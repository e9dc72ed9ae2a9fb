"""The worst of a benchmark's groups, with an interval that stays valid although it was picked as the worst."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from evenhand.core.records import NAN, WORST_GROUP, Record
from evenhand.interfaces import Array, Metric
from evenhand.statistics import Estimate
from evenhand.statistics.criteria import MIN_CLUSTERS, Criteria


def worst_groups(
    records: Sequence[Record], estimates: Mapping[str, Estimate], groups: Sequence[str], criteria: Criteria
) -> list[Record]:
    """Make a record per main metric of bias or capability: the worst group's value and a simultaneous interval.

    With intervals of level 1 - alpha / k for k groups (Bonferroni) all of them hold at once, and then the worst true
    value lies between the worst lower and the worst upper end. Groups of fewer than `MIN_CLUSTERS` clusters are left
    out, as nothing can be claimed about them.
    """
    made = []
    for record in records:
        estimate = estimates.get(record.metric)
        if estimate is None or record.group != "overall" or not _wanted(estimate.info):
            continue
        mine = [g for g, name in enumerate(groups) if name != "overall" and estimate.clusters[g] >= MIN_CLUSTERS]
        if len(mine) > 1:
            made.append(_worst(record, estimate, groups, mine, criteria))
    return made


def _wanted(info: Metric) -> bool:
    return info.main and info.kind in ("bias", "capability") and info.direction != "none"


def _worst(
    record: Record, estimate: Estimate, groups: Sequence[str], mine: Sequence[int], criteria: Criteria
) -> Record:
    low, high = (end[mine] for end in estimate.interval(criteria.alpha / len(mine)))
    values = estimate.value[mine]
    badness = _size(estimate.info, values)
    at = mine[int(np.nanargmax(badness))] if not np.isnan(badness).all() else mine[0]
    known = not (np.isnan(low) | np.isnan(high)).any()
    ends = _ends(estimate.info, low, high) if known else (NAN, NAN)
    value = estimate.value[at]
    distance = estimate.info.direction == "zero"
    return Record(
        model=record.model,
        method=record.method,
        benchmark=record.benchmark,
        metric=record.metric,
        group=WORST_GROUP,
        value=float(abs(value) if distance else value),
        low=ends[0],
        high=ends[1],
        n=float(estimate.n[at]),
        clusters=int(estimate.clusters[at]),
        degrees=record.degrees,
        direction=record.direction,
        kind=record.kind,
        main=record.main,
        status=record.status,
        note=f"{groups[at]}; the worst of {len(mine)} groups" + (", by its distance from 0" if distance else ""),
    )


def _size(info: Metric, values: Array) -> Array:
    """Turn values into sizes of which the larger is the worse."""
    return -values if info.direction == "higher" else np.abs(values) if info.direction == "zero" else values


def _ends(info: Metric, low: Array, high: Array) -> tuple[float, float]:
    if info.direction == "higher":
        return float(low.min()), float(high.min())
    if info.direction == "zero":
        low, high = np.maximum(np.maximum(low, -high), 0.0), np.maximum(np.abs(low), np.abs(high))
    return float(low.max()), float(high.max())
