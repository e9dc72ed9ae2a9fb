"""Small tallies for the tests of this folder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evenhand.interfaces import Array, Measured, Metric, Tally
from evenhand.statistics import Design, Estimate, estimates
from evenhand.statistics.design import takes_part

MEAN = Metric("mean", "higher", "capability", "mean of the items")
SHARE = Metric("share", "higher", "capability", "share of ones", form="proportion", range=(0.0, 1.0))
LEAN = Metric("lean", "zero", "bias", "2 * share - 1", range=(-1.0, 1.0))
SPREAD = Metric("spread", "lower", "bias", "|share - 1/2|", form="resampled", range=(0.0, 0.5))


def tally_of(
    clusters: Sequence[tuple[str, Sequence[Sequence[float]]]], groups: tuple[str, ...] = ("overall",)
) -> Tally:
    """Clusters as (stratum, per group the values of its items); statistics are count and sum."""
    sums = np.zeros((len(clusters), len(groups), 2))
    for c, (_, values) in enumerate(clusters):
        for g, items in enumerate(values):
            sums[c, g] = len(items), sum(items)
    names = tuple(f"cluster {c:03d}" for c in range(len(clusters)))
    return Tally(names, tuple(stratum for stratum, _ in clusters), groups, sums)


def metrics(sums: Array) -> dict[str, Measured]:
    n = sums[..., 0]
    mean = np.divide(sums[..., 1], n, out=np.full(n.shape, np.nan), where=n > 0)
    values = {"mean": mean, "share": mean, "lean": 2 * mean - 1, "spread": np.abs(mean - 0.5)}
    return {name: Measured(value, n) for name, value in values.items()}


def design_of(*tallies: Tally) -> Design:
    first = tallies[0]
    return Design.of(first.clusters, first.strata, takes_part([t.sums for t in tallies]))


def estimate(tally: Tally, info: Metric, design: Design | None = None, **more: int) -> Estimate:
    return estimates({(0, 0): tally}, design or design_of(tally), metrics, [info], **more)[info.name]
