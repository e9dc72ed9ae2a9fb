"""Mann-Whitney tests of all pairs of many samples at once, and Benjamini-Hochberg from additive counts.

p equals `scipy.stats.mannwhitneyu(x, y)` with its defaults for every single pair: two-sided; exact where one sample has
at most 8 values and the pair has no tie; else the normal approximation with tie and continuity correction. Given many
pairs at once (`axis=1`), scipy makes that choice once for all of them; `exact="cell"` does the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from evenhand.interfaces import Array

EXACT_UP_TO = 8
"""Maximum size of the smaller sample for which the exact distribution is used, without ties (scipy's rule)."""
BLOCK = 8_192
"""Number of distinct values counted at a time; bounds the memory to a few dozen MB for some hundred samples."""

Index = NDArray[np.intp]
Exact = Literal["pair", "cell"]
"""Which samples may have no tie for a test to be exact: its own two, or all that are tested together."""


class PairTests(NamedTuple):
    """One test per pair of samples, in the order (0, 1), (0, 2), ... (1, 2), ...; all arrays are [P]."""

    first: Index
    """Row number of the first sample."""
    second: Index
    u: Array
    """U of the first sample: pairs of values in which the first's is larger, ties counting half."""
    p: Array
    effect: Array
    """Rank-biserial correlation 2 U / (n1 n2) - 1, from -1 to 1; the AUC is (effect + 1) / 2. Positive: the first
    sample's values are larger."""


def pairwise_mann_whitney(values: Array, exact: Exact = "pair") -> PairTests:
    """Test every pair of rows.

    Args:
        values: [samples, most values]; nan is a missing value, so that samples may differ in size.
        exact: "pair" takes the exact distribution for each small pair without a tie; "cell" only where no pair at all
            has one, as scipy does with all pairs in one call.

    Returns:
        The tests of all pairs in which both rows have a value.
    """
    values = np.asarray(values, dtype=np.float64)
    sizes = (~np.isnan(values)).sum(axis=1)
    u_all, ties_all = _u_and_ties(values)
    first, second = np.triu_indices(len(values), 1)
    usable = (sizes[first] > 0) & (sizes[second] > 0)
    first, second = first[usable], second[usable]
    n1, n2 = sizes[first].astype(np.float64), sizes[second].astype(np.float64)
    u, ties = u_all[first, second], ties_all[first, second]
    p = _asymptotic(np.maximum(u, n1 * n2 - u), n1, n2, ties)
    untied = ties == 0 if exact == "pair" else np.full(ties.shape, not ties.any())
    small = np.flatnonzero((np.minimum(n1, n2) <= EXACT_UP_TO) & untied)
    if small.size:
        p[small] = _exact(u[small], n1[small].astype(int), n2[small].astype(int))
    return PairTests(first, second, u, p, 2 * u / (n1 * n2) - 1)


def _u_and_ties(values: Array) -> tuple[Array, Array]:
    """Return U [R, R] of row against column, and the tie term: sum of t**3 - t over the values of both.

    With c[r, v] how often row r has the distinct value v, and m[r, v] how many of its values are below v plus half of
    those equal to it, U is c @ m.T. For the tie term, (c_i + c_j)**3 is expanded in the same way.
    """
    rows, _ = np.nonzero(~np.isnan(values))
    distinct, code = np.unique(values[~np.isnan(values)], return_inverse=True)
    height = len(values)
    below = np.zeros(height)
    u, ties = np.zeros((height, height)), np.zeros((height, height))
    for start in range(0, len(distinct), BLOCK):
        width = min(BLOCK, len(distinct) - start)
        here = (code >= start) & (code < start + width)
        cell = rows[here] * width + code[here] - start
        count = np.bincount(cell, minlength=height * width).reshape(height, width).astype(np.float64)
        upto = below[:, None] + count.cumsum(axis=1)
        u += count @ (upto - count / 2).T
        below = upto[:, -1]
        tied = count[:, count.sum(axis=0) > 1]
        if tied.shape[1]:
            alone = (tied**3 - tied).sum(axis=1)
            mixed = tied**2 @ tied.T
            ties += alone[:, None] + alone[None, :] + 3 * (mixed + mixed.T)
    return u, ties


def _asymptotic(u: Array, n1: Array, n2: Array, ties: Array) -> Array:
    """Return the two-sided p of the larger U, with continuity correction and a spread corrected for ties."""
    n = n1 + n2
    spread = np.sqrt(n1 * n2 / 12 * ((n + 1) - ties / (n * (n - 1))))
    with np.errstate(divide="ignore", invalid="ignore"):  # all values equal: no spread, z = -inf, p = 1
        z = (u - n1 * n2 / 2 - 0.5) / spread
    return np.asarray(np.clip(2 * ndtr(-z), 0.0, 1.0))


def _exact(u: Array, n1: NDArray[np.int_], n2: NDArray[np.int_]) -> Array:
    out = np.empty(len(u))
    for a, b in sorted({(int(a), int(b)) for a, b in zip(n1, n2, strict=True)}):
        at = (n1 == a) & (n2 == b)
        larger = np.maximum(u[at], a * b - u[at]).astype(int)
        out[at] = np.clip(2 * exact_tail(min(a, b), max(a, b))[larger], 0.0, 1.0)
    return out


@lru_cache(maxsize=256)
def exact_tail(n1: int, n2: int) -> Array:
    """Return P(U >= u) for u = 0 .. n1 n2 if both samples come from one distribution without ties.

    The number of arrangements with U = u is the coefficient of q**u in the Gaussian binomial of n1 + n2 over n1,
    computed factor by factor in integers: times (1 - q**(n2 + i)), divided by (1 - q**i).
    """
    degree = n1 * n2
    counts = [1] + [0] * degree
    for i in range(1, n1 + 1):
        for u in range(degree, n2 + i - 1, -1):
            counts[u] -= counts[u - n2 - i]
        for u in range(i, degree + 1):
            counts[u] += counts[u - i]
    total, running, tail = sum(counts), 0, [0.0] * (degree + 1)
    for u in range(degree, -1, -1):
        running += counts[u]
        tail[u] = running / total
    return np.array(tail)


def smallest_p(n1: int, n2: int) -> float:
    """Return the smallest two-sided p of samples of these sizes (no ties, all of one above the other)."""
    return float(pairwise_mann_whitney(_apart(n1, n2)).p[0])


def _apart(n1: int, n2: int) -> Array:
    values = np.full((2, max(n1, n2)), np.nan)
    values[0, :n1] = np.arange(n1)
    values[1, :n2] = n1 + np.arange(n2)
    return values


@dataclass(frozen=True)
class PValueBins:
    """p-values as additive counts, from which Benjamini-Hochberg (1995) follows for any sum of them.

    The procedure needs all p of a family at once, which sums per cluster lack. Counts in narrow bins have them, and can
    be weighted by a bootstrap. Each bin also keeps the sum of its p, and a p counts as the mean of its bin. The bins
    are equally wide on the scale of z, as the possible p of a rank test are: with two samples of 9 to 32 values and no
    ties no bin holds two different p (level 0.2 or less), and the result is exact. Otherwise a p is off by some 3 %
    near the level. Below 1e-6 of the level all p share a bin: a family of up to a million tests rejects them anyway.
    """

    level: float
    """False discovery rate; p above it is never rejected and needs no bin."""
    count: int = 300

    @cached_property
    def edges(self) -> Array:
        """Upper ends [count], from 1e-6 of the level to the level."""
        ends = 2 * ndtr(np.linspace(ndtri(self.level * 5e-7), ndtri(self.level / 2), self.count))
        ends[-1] = self.level
        return np.asarray(ends)

    def statistics(self, p: Array) -> Array:
        """Return how many p are in each bin, then their sums, [2 * count]."""
        at = np.searchsorted(self.edges, p, side="left")
        kept = at < self.count
        counts = np.bincount(at[kept], minlength=self.count).astype(np.float64)
        return np.concatenate([counts, np.bincount(at[kept], weights=p[kept], minlength=self.count)])

    def rejected(self, statistics: Array, tests: Array) -> Array:
        """Return the number of rejections [...].

        Args:
            statistics: [..., 2 * count], summed over the family.
            tests: [...] size of the family, p above the level included.
        """
        counts, sums = statistics[..., : self.count], statistics[..., self.count :]
        upto = counts.cumsum(axis=-1)
        family = np.maximum(tests, 1e-300)[..., None]
        # sums * family <= level * upto * counts is mean p <= level * rank / family, without a division by empty bins
        passes = (counts > 0) & (sums * family <= self.level * upto * counts * (1 + 1e-9))
        return np.asarray(np.where(passes, upto, 0.0).max(axis=-1))
