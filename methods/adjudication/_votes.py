"""Combine the votes of several judges: a scale per judge, weights by agreement, a weighted mean and its spread.

Pure functions over matrices [candidates, judges], nan where a judge gave no vote; identities play no part.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evenhand.interfaces import Array

Bools = NDArray[np.bool_]

LEAST_COMMON = 3
"""Minimum number of common candidates for telling whether two judges agree."""
NO_SPREAD = 1e-9
"""A judge whose votes vary by less than this rates everything alike."""


class Scale(NamedTuple):
    """Mean and spread of each judge's votes; both are [judges]."""

    mean: Array
    deviation: Array


class Combined(NamedTuple):
    """The judges' combined ratings of each candidate; all are [candidates]."""

    mean: Array
    """Weighted mean; nan where no judge with a weight voted."""
    spread: Array
    """Weighted standard deviation around it, which shows how far the judges disagree; 0 for a single vote."""
    voters: Array
    """Number of votes with a weight above 0."""


def scale_of(votes: Array) -> Scale:
    """Compute mean and standard deviation of every judge's votes; nan and 0 without votes."""
    given = ~np.isnan(votes)
    count = given.sum(axis=0)
    filled = np.where(given, votes, 0.0)
    mean = np.divide(filled.sum(axis=0), count, out=np.full(votes.shape[1], np.nan), where=count > 0)
    around = np.where(given, votes - np.nan_to_num(mean), 0.0)
    square = np.divide((around**2).sum(axis=0), count, out=np.zeros(votes.shape[1]), where=count > 0)
    return Scale(mean, np.sqrt(square))


def standardised(votes: Array, scale: Scale) -> Array:
    """Express votes in standard deviations from the judge's mean; 0 throughout for a constant judge."""
    flat = scale.deviation < NO_SPREAD
    z = (votes - scale.mean) / np.where(flat, 1.0, scale.deviation)
    return np.where(np.isnan(votes), np.nan, np.where(flat, 0.0, z))


def agreement(z: Array) -> Array:
    """Compute [judges, judges] Pearson correlations over candidates that both voted on; nan where undefined."""
    judges = z.shape[1]
    out = np.full((judges, judges), np.nan)
    for a in range(judges):
        for b in range(judges):
            out[a, b] = _correlation(z[:, a], z[:, b])
    return out


def weights(votes: Array) -> Array:
    """Compute each judge's agreement with the mean of the others, [judges], at least 0; 0 for a constant judge.

    The others' mean is unweighted, so that no judge affects its own weight. Where agreement is undefined, as in a
    pool of two that never vote on the same candidate, a judge gets the mean weight of the others; all have 1
    if it is undefined for all.
    """
    scale = scale_of(votes)
    z = standardised(votes, scale)
    silent = (scale.deviation < NO_SPREAD) | np.isnan(scale.mean)
    found = np.array([np.nan if silent[j] else _correlation(z[:, j], _others(z, j, silent)) for j in range(z.shape[1])])
    known = ~np.isnan(found)
    typical = float(np.clip(found[known], 0, None).mean()) if known.any() else 1.0
    return np.where(silent, 0.0, np.where(known, np.clip(found, 0.0, None), typical))


def combined(values: Array, of: Array) -> Combined:
    """Compute weighted mean and standard deviation over judges.

    Args:
        values: [candidates, judges] votes, standardised or not; nan without a vote.
        of: [judges] weights.
    """
    w = np.where(np.isnan(values), 0.0, of)
    total = w.sum(axis=1)
    nothing = np.full(len(values), np.nan)
    mean = np.divide((w * np.nan_to_num(values)).sum(axis=1), total, out=nothing.copy(), where=total > 0)
    around = np.where(w > 0, np.nan_to_num(values) - np.nan_to_num(mean)[:, None], 0.0)
    square = np.divide((w * around**2).sum(axis=1), total, out=nothing.copy(), where=total > 0)
    return Combined(mean, np.sqrt(square), (w > 0).sum(axis=1).astype(np.float64))


def _others(z: Array, judge: int, silent: Bools) -> Array:
    """Return [candidates] the unweighted mean of the other judges whose votes vary."""
    use = [j for j in range(z.shape[1]) if j != judge and not silent[j]]
    given = ~np.isnan(z[:, use])
    count = given.sum(axis=1)
    total = np.where(given, z[:, use], 0.0).sum(axis=1)
    mean: Array = np.divide(total, count, out=np.full(len(z), np.nan), where=count > 0)
    return mean


def _correlation(a: Array, b: Array) -> float:
    both = ~(np.isnan(a) | np.isnan(b))
    if both.sum() < LEAST_COMMON:
        return float("nan")
    x, y = a[both] - a[both].mean(), b[both] - b[both].mean()
    size = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / size if size > NO_SPREAD else float("nan")
