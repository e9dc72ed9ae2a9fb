"""Make records from estimates: a value with its interval per group, and the paired comparison with another row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from evenhand.core.records import NAN, Record
from evenhand.statistics.criteria import Criteria
from evenhand.statistics.estimate import Estimate
from evenhand.statistics.paired import Paired


def valued(
    like: Record, groups: Sequence[str], estimate: Estimate, criteria: Criteria, remark: str = ""
) -> Iterator[Record]:
    """Yield a record per group, with its interval.

    Args:
        like: Fields that all of them share: model, method and benchmark.
        groups: Names of the groups, in the estimate's order.
        estimate: Estimate of one metric.
        criteria: Gives the level of the intervals.
        remark: Doubt about the numbers, which is added to the notes.
    """
    info = estimate.info
    low, high = estimate.interval(criteria.alpha)
    error = estimate.standard_error
    for g, group in enumerate(groups):
        yield replace(
            like,
            metric=info.name,
            group=group,
            value=float(estimate.value[g]),
            low=float(low[g]),
            high=float(high[g]),
            standard_error=NAN if np.isnan(low[g]) else float(error[g]),
            n=float(estimate.n[g]),
            clusters=int(estimate.clusters[g]),
            degrees=float(estimate.degrees[g]),
            between_seeds=float(estimate.sampled.between_seeds[g]),
            between_wordings=float(estimate.sampled.between_wordings[g]),
            direction=info.direction,
            kind=info.kind,
            main=info.main,
            note="; ".join(filter(None, (estimate.note(g), remark))),
        )


def compared(
    records: Sequence[Record], baseline: str, before: Estimate, pair: Paired, criteria: Criteria
) -> list[Record]:
    """Add the paired difference, the gain in the metric's direction, p and what non-inferiority needs."""
    alpha = criteria.alpha
    numbers = {
        "difference": pair.value,
        "difference_error": np.where(pair.known, pair.error_shown, np.nan),
        "gain": pair.gain,
        "p": pair.p,
        "loss_high": pair.loss_high(alpha),
        "clusters_needed": pair.clusters_needed(criteria.margin, alpha),
    }
    for name, ends in (
        ("baseline", before.interval(alpha)),
        ("difference", pair.interval(alpha)),
        ("gain", pair.gain_interval(alpha)),
    ):
        numbers |= {f"{name}_low": ends[0], f"{name}_high": ends[1]}
    if pair.info.direction == "none":
        numbers |= {name: np.full_like(pair.value, np.nan) for name in ("gain", "gain_low", "gain_high")}
    out = []
    for g, record in enumerate(records):
        found: dict[str, Any] = {name: float(values[g]) for name, values in numbers.items()}
        out.append(replace(record, baseline=baseline, baseline_clusters=int(before.clusters[g]), **found))
    return out
