"""Bootstrap metrics that are not smooth in the sums, such as maxima and sums of absolute values.

Clusters are drawn within their stratum, one fewer than there are, and weighted up (Rao & Wu 1988, "Resampling inference
with complex survey data"; Rao, Wu & Yue 1992), so that the variance is right also where a stratum has few. Percentiles
are taken further out where there are few clusters, as Student's t is wider than the normal (Hesterberg 2015, "What
teachers should know about the bootstrap", section 5.3, the expanded percentile interval).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import ndtr, ndtri, stdtr, stdtrit

from evenhand.interfaces import Array, Measured, Tally
from evenhand.statistics.design import Ints, coded, pooled

REPLICATES = 2_000
MIN_REPLICATES = 200
"""Minimum number of replicates; fewer say nothing about the ends of an interval."""
MAX_UNDEFINED = 0.05
"""Maximum share of replicates without a value; above it there is no interval, as the rest is a selection."""
BLOCK_BYTES = 256_000_000
"""Maximum memory for the resampled sums of one block of replicates, in bytes."""


def cluster_weights(tally: Tally, replicates: int, seed: int) -> Array:
    """Return how much each cluster counts, [replicates, clusters].

    The draw depends only on the seed, the cluster names and the strata: two tallies of the same items get the same
    weights, which makes their difference a paired one.
    """
    rng = np.random.default_rng(seed)
    weights = np.zeros((replicates, len(tally.clusters)))
    strata = strata_of(tally)
    for stratum in range(int(strata.max(initial=-1)) + 1):
        members = np.flatnonzero(strata == stratum)
        drawn = max(len(members) - 1, 1)
        counts = rng.multinomial(drawn, np.full(len(members), 1 / len(members)), size=replicates)
        weights[:, members] = counts * (len(members) / drawn)
    return weights


def strata_of(tally: Tally) -> Ints:
    """Return the pooled strata of all clusters, in the order of their first cluster's name, [C]."""
    return pooled(*coded(tally.clusters, tally.strata))


def bootstrap(
    tally: Tally, metrics: Callable[[Array], dict[str, Measured]], *, replicates: int = REPLICATES, seed: int = 0
) -> dict[str, Array]:
    """Bootstrap all metrics over clusters.

    Args:
        tally: Sums per cluster.
        metrics: A benchmark's `metrics`.
        replicates: Number of resamples.
        seed: Seed of the resampling.

    Returns:
        The replicates' values of each metric, [replicates, groups].
    """
    clusters, groups, statistics = tally.sums.shape
    weights = cluster_weights(tally, replicates, seed)
    flat = tally.sums.transpose(2, 1, 0).reshape(statistics * groups, clusters)
    block = max(1, BLOCK_BYTES // (8 * groups * statistics))
    parts = []
    for start in range(0, replicates, block):
        # each statistic of all replicates is contiguous in memory: metrics combine statistics, not replicates
        sums = (flat @ weights[start : start + block].T).reshape(statistics, groups, -1).transpose(2, 1, 0)
        parts.append({name: m.value for name, m in metrics(sums).items()})
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def percentiles(draws: Array, degrees: Array, alpha: float) -> tuple[Array, Array]:
    """Return the expanded percentile interval.

    Args:
        draws: [replicates, G]; those that are nan are left out.
        degrees: [G] degrees of freedom.
        alpha: 1 - level.
    """
    tails = ndtr(-stdtrit(degrees, 1 - alpha / 2))
    out = np.full((2, draws.shape[1]), np.nan)
    for g in np.flatnonzero(defined(draws)):
        own = draws[~np.isnan(draws[:, g]), g]
        out[:, g] = np.quantile(own, [tails[g], 1 - tails[g]])
    return out[0], out[1]


def p_value(differences: Array, degrees: Array) -> Array:
    """Two-sided p [G] of a difference of zero that goes with `percentiles`: [replicates, G] draws of differences.

    Replicates that are nan are left out. With B of them the tail is at least 1 / (B + 1).
    """
    count = (~np.isnan(differences)).sum(axis=0)
    below = ((differences <= 0).sum(axis=0) + 1) / (count + 1)
    above = ((differences >= 0).sum(axis=0) + 1) / (count + 1)
    tail = np.minimum(0.5, np.minimum(below, above))
    p = np.minimum(1.0, 2 * stdtr(degrees, ndtri(tail)))
    return np.where(defined(differences), p, np.nan)


def variance(draws: Array) -> Array:
    """[G] variance of the replicates; nan where too many have no value."""
    known = defined(draws)
    return np.where(known, np.nanvar(np.where(known, draws, 0.0), axis=0, ddof=1), np.nan)


def defined(draws: Array) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Return [G] whether nearly all replicates have a value."""
    return np.asarray(np.isnan(draws).mean(axis=0) <= MAX_UNDEFINED)
