"""Exact bounds for proportions of clustered items: Clopper-Pearson on an effective sample size.

Near 0 and 1 a sample often shows no event at all, or one: its variance is then 0 or far too small. The bounds are those
of a binomial whose size is what the clusters are worth (Korn & Graubard 1998, "Confidence intervals for proportions
with small expected number of positive counts estimated from survey data"), within limits that keep a badly estimated
design effect from deciding.
"""

from __future__ import annotations

import numpy as np
from scipy.special import betainc, betaincinv, stdtrit

from evenhand.interfaces import Array

MAX_PER_CLUSTER = 5.0
"""Maximum number of independent items that a cluster is worth."""


ENOUGH = 10.0
"""Number of clusters that must show a rare event for the design effect to be fully trusted."""


def effective_size(
    p: Array, n: Array, variance: Array, clusters: Array, degrees: Array, showing: Array | float = ENOUGH
) -> Array:
    """Return the number of independent items that a proportion is worth.

    Args:
        p: The proportion.
        n: Number of items.
        variance: Its variance by the jackknife.
        clusters: Effective number of clusters; also the size where p is 0 or 1, which say nothing about the variance.
        degrees: Degrees of freedom of the variance: as in Korn and Graubard, the size shrinks by the squared ratio of
            the t quantiles of n - 1 and of these.
        showing: Clusters with any event: with few of them, the variance says little, and a cluster is worth less.
    """
    most = 1 + (MAX_PER_CLUSTER - 1) * np.minimum(np.asarray(showing) / ENOUGH, 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        simple = p * (1 - p) / n
        design = np.maximum(variance / simple, 1.0)
        known = (stdtrit(np.maximum(n - 1, 1), 0.975) / stdtrit(degrees, 0.975)) ** 2
        size = np.clip(n / design * np.minimum(known, 1.0), clusters, most * clusters)
    return np.where((p <= 0) | (p >= 1) | np.isnan(size), clusters, size)


def lower(p: Array, size: Array, tail: Array | float) -> Array:
    """Clopper-Pearson's lower bound: with so many successes or more the probability is `tail`."""
    x = np.clip(p, 0, 1) * size
    with np.errstate(invalid="ignore"):
        return np.where(x <= 0, np.where(np.isnan(x), np.nan, 0.0), betaincinv(x, size - x + 1, tail))


def upper(p: Array, size: Array, tail: Array | float) -> Array:
    """Clopper-Pearson's upper bound."""
    return 1 - lower(1 - p, size, tail)


def unseen(clusters: Array, tail: float) -> Array:
    """Largest share of clusters of which none would show with probability `tail`: 1 - tail ** (1 / clusters)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(1 - tail ** (1 / clusters))


def sign_test(up: Array, down: Array) -> Array:
    """Return the two-sided exact p of equally many ups and downs, from effective counts, which need not be whole.

    The binomial tail P(X >= k) of n = up + down at one half is the incomplete beta function I(1/2; k, n - k + 1).
    """
    most, least = np.maximum(up, down), np.minimum(up, down)
    with np.errstate(invalid="ignore"):
        tail = betainc(np.maximum(most, 1e-12), least + 1, 0.5)
    return np.where(most <= 0, 1.0, np.minimum(1.0, 2 * tail))
