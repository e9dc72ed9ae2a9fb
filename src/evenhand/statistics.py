"""Intervals and tests on tallies: a bootstrap of any metric is one matrix product."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from evenhand.interfaces import Array, Measured, Tally

REPLICATES = 2_000
BLOCK_BYTES = 256_000_000
"""Most memory for the resampled sums of one block of replicates."""


def cluster_weights(tally: Tally, replicates: int, seed: int) -> Array:
    """How often each cluster is drawn, [replicates, clusters].

    Clusters are drawn with replacement within their stratum, so that every stratum keeps its number of clusters. The
    draw depends on the seed and the strata alone: two tallies of the same items get the same weights, which makes
    their difference a paired one.
    """
    rng = np.random.default_rng(seed)
    weights = np.zeros((replicates, len(tally.clusters)))
    strata = np.array(tally.strata)
    for stratum in sorted(set(tally.strata)):
        members = np.flatnonzero(strata == stratum)
        weights[:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size=replicates)
    return weights


def bootstrap(
    tally: Tally, metrics: Callable[[Array], dict[str, Measured]], *, replicates: int = REPLICATES, seed: int = 0
) -> dict[str, Array]:
    """Cluster bootstrap of all metrics.

    Args:
        tally: Sums per cluster.
        metrics: A benchmark's `metrics`.
        replicates: Number of resamples.
        seed: Of the resampling.

    Returns:
        Per metric the replicates' values, [replicates, groups].
    """
    clusters, groups, statistics = tally.sums.shape
    weights = cluster_weights(tally, replicates, seed)
    flat = tally.sums.transpose(2, 1, 0).reshape(statistics * groups, clusters)
    block = max(1, BLOCK_BYTES // (8 * groups * statistics))
    parts = []
    for start in range(0, replicates, block):
        # one statistic of all replicates lies in one piece of memory: metrics combine statistics, not replicates
        sums = (flat @ weights[start : start + block].T).reshape(statistics, groups, -1).transpose(2, 1, 0)
        parts.append({name: m.value for name, m in metrics(sums).items()})
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def interval(replicates: Array, level: float = 0.95) -> tuple[Array, Array]:
    """Percentile interval over the first axis; replicates that are nan (an empty group) are left out."""
    tail = (1 - level) / 2
    with np.errstate(all="ignore"):
        empty = np.isnan(replicates).all(axis=0)
        safe = np.where(empty, 0.0, replicates)
        low, high = np.nanquantile(safe, [tail, 1 - tail], axis=0)
    return np.where(empty, np.nan, low), np.where(empty, np.nan, high)


def gain(direction: str, before: Array, after: Array) -> Array:
    """How much better `after` is than `before`, in the metric's own direction; positive is better."""
    if direction == "lower":
        return before - after
    if direction == "zero":
        return np.abs(before) - np.abs(after)
    return after - before


def p_value(differences: Array) -> Array:
    """Two-sided bootstrap p of a difference of zero, over the first axis; never below 2 / (replicates + 1).

    Replicates that are nan (an empty group) are left out, and do not count as replicates.
    """
    count = (~np.isnan(differences)).sum(axis=0)
    below = ((differences <= 0).sum(axis=0) + 1) / (count + 1)
    above = ((differences >= 0).sum(axis=0) + 1) / (count + 1)
    p = np.minimum(1.0, 2 * np.minimum(below, above))
    return np.where(np.isnan(differences).all(axis=0), np.nan, p)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment for several tests (Holm 1979); nan stays nan and does not count."""
    known = [i for i, v in enumerate(p) if not np.isnan(v)]
    order = sorted(known, key=lambda i: p[i])
    out, running = [float("nan")] * len(p), 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(order) - rank) * p[i]))
        out[i] = running
    return out
