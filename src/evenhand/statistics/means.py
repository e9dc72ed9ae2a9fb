"""Interval of the mean of clustered values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit

from evenhand.interfaces import Array
from evenhand.statistics.design import Design
from evenhand.statistics.moments import ratio


def mean_interval(values: Sequence[float] | Array, clusters: Sequence[str], alpha: float = 0.05) -> tuple[float, float]:
    """Return the interval of a mean by the delete-one-cluster jackknife with t.

    Args:
        values: The values, which have no known bounds.
        clusters: The cluster of each; values of one cluster are not independent.
        alpha: 1 - level.

    Returns:
        Both ends; nan with fewer than two clusters. If all cluster means agree, the interval has no width.
    """
    names, at = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)
    sums = np.stack([np.bincount(at, w, len(names)) for w in (np.ones(len(at)), values)], axis=1)
    design = Design.of(list(names), [""] * len(names), np.ones((len(names), 1), dtype=bool))
    x = design.pick(sums.astype(np.float64)[:, None, :])
    total, without = design.total(x)[0], design.without_each(x)
    error = np.sqrt(design.variance(ratio(without[:, 1], without[:, 0]))[0])
    mean, half = total[1] / total[0], stdtrit(design.degrees(x[:, 0])[0], 1 - alpha / 2) * error
    return float(mean - half), float(mean + half)
