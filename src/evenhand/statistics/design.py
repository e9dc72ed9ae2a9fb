"""`Design`: the clusters of each group, their strata, and the effect of leaving one of them out.

Source: the stratified delete-one-cluster jackknife (JKn) of survey statistics (Wolter 2007, "Introduction to Variance
Estimation", section 4.5; `svydesign` with type "JKn" in R's survey package).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from evenhand.interfaces import Array
from evenhand.statistics.moments import ratio

Ints = NDArray[np.intp]
MIN_STRATUM = 3
"""Minimum number of clusters in a stratum: a smaller one says little about its variance, and is pooled with others."""


class _Runs(NamedTuple):
    """Where the pairs of each number begin in a sorted array of numbers, so that sums need not search for it again."""

    starts: Ints
    numbers: Ints
    """Numbers that occur."""
    length: int
    """How many numbers there may be."""

    @classmethod
    def of(cls, at: Ints, count: int) -> _Runs:
        """Find them.

        Args:
            at: [P] sorted numbers from 0 to count - 1.
            count: Count of the numbers.
        """
        starts = np.flatnonzero(np.diff(at, prepend=-1))
        return cls(starts, at[starts], count)

    def summed(self, x: Array) -> Array:
        """Sum by number: [P, ...] to [length, ...]."""
        out = np.zeros((self.length, *x.shape[1:]))
        if len(self.starts):
            out[self.numbers] = np.add.reduceat(x, self.starts, axis=0)
        return out


@dataclass(frozen=True)
class Design:
    """All pairs of a group and a cluster that is in it, sorted by group and stratum.

    Arrays over pairs have length P, arrays over groups length G.
    """

    cluster: Ints
    """Number of each pair's cluster, [P]."""
    group: Ints
    """Number of each pair's group, [P]."""
    stratum: Ints
    """Number of each pair's stratum, [P], counted through all groups: every group has its own strata."""
    groups: int
    """Number of groups, G."""
    size: Array = field(repr=False)
    """Number of clusters in the pair's stratum, [P]."""

    @classmethod
    def of(cls, clusters: Sequence[str], strata: Sequence[str], takes_part: NDArray[np.bool_]) -> Design:
        """Form the strata of every group.

        Args:
            clusters: C names; they break ties, so that neither order nor names of strata matter.
            strata: C names.
            takes_part: [C, G].
        """
        codes, rank = coded(clusters, strata)
        rows, groups, numbers, count = [], [], [], 0
        for g in range(takes_part.shape[1]):
            members = np.flatnonzero(takes_part[:, g])
            own = pooled(codes[members], rank[members])
            order = np.argsort(own, kind="stable")
            rows.append(members[order])
            groups.append(np.full(len(members), g))
            numbers.append(own[order] + count)
            count += int(own.max(initial=-1)) + 1
        cluster, group, stratum = (
            np.concatenate([*parts, np.zeros(0)]).astype(np.intp) for parts in (rows, groups, numbers)
        )
        size = np.bincount(stratum, minlength=count)[stratum].astype(np.float64)
        return cls(cluster, group, stratum, takes_part.shape[1], size)

    def pick(self, by_cluster: Array) -> Array:
        """Select [P, ...] from [C, G, ...]."""
        picked: Array = by_cluster[self.cluster, self.group]
        return picked

    def total(self, x: Array) -> Array:
        """Sum over the clusters of each group: [P, ...] to [G, ...]."""
        return self._by_group.summed(x)

    def without_each(self, x: Array) -> Array:
        """Return totals of the group without the pair's cluster, with the rest of its stratum weighted up: [P, S].

        A cluster that is alone in its stratum cannot be left out and gives nan.
        """
        in_stratum = self._of_stratum(x)
        rest = np.where(self.size > 1, self.size - 1, np.nan)[:, None]
        return np.asarray(self.total(x)[self.group] + in_stratum / rest - x * (self.size[:, None] / rest))

    def variance(self, without: Array) -> Array:
        """Compute the JKn variance [G] of a metric from its values without each cluster [P]; nan if not finite."""
        with np.errstate(invalid="ignore", over="ignore"):
            parts = (self.size - 1) / self.size * self._deviations(without) ** 2
        return np.where(self.taking_part(np.ones_like(self.size)) > 1, self.total(parts), np.nan)

    def carrying(self, without: Array) -> Array:
        """Compute the effective number of clusters [G] that carry a variance: (sum d^2)^2 / sum d^4 of deviations d.

        It is about a third of the clusters if contributions are normal, and one if a single cluster differs.
        """
        d = self._deviations(without)
        with np.errstate(invalid="ignore", over="ignore"):
            return ratio(self.total(d**2) ** 2, self.total(d**4))

    def _deviations(self, without: Array) -> Array:
        with np.errstate(invalid="ignore"):
            return without - self._of_stratum(without) / self.size

    @cached_property
    def _strata(self) -> int:
        return int(self.stratum.max(initial=-1)) + 1

    @cached_property
    def _by_group(self) -> _Runs:
        return _Runs.of(self.group, self.groups)

    @cached_property
    def _by_stratum(self) -> _Runs:
        return _Runs.of(self.stratum, self._strata)

    def _of_stratum(self, x: Array) -> Array:
        """Sum over the pair's stratum, [P, ...]."""
        return self._by_stratum.summed(x)[self.stratum]

    def taking_part(self, n: Array) -> Array:
        """Count the clusters whose n [P] is above 0, [G]."""
        return self.total((n > 0).astype(np.float64))

    def effective(self, n: Array) -> Array:
        """Return the effective number of clusters [G]: 1 / sum of squared shares of n [P]; all if weighted equally."""
        with np.errstate(invalid="ignore"):
            return ratio(self.total(n) ** 2, self.total(n**2))

    def degrees(self, n: Array) -> Array:
        """Return degrees of freedom [G]: effective clusters * (clusters - strata) / clusters, at least 1.

        Clusters and strata are those with any n [P]. If all are weighted equally it is clusters - strata.
        """
        present = self._by_stratum.summed((n > 0).astype(np.float64)) > 0
        of_group = np.zeros(self._strata, dtype=np.intp)
        of_group[self.stratum] = self.group
        count = np.bincount(of_group[present], minlength=self.groups)
        clusters = self.taking_part(n)
        return np.fmax(self.effective(n) * ratio(clusters - count, clusters), 1.0)


def coded(clusters: Sequence[str], strata: Sequence[str]) -> tuple[Ints, Ints]:
    """Return the input of `pooled`: a number for every cluster's stratum, and its rank in the order of names."""
    codes = np.unique(np.array(strata, dtype=str), return_inverse=True)[1]
    rank = np.argsort(np.argsort(np.array(clusters, dtype=str), kind="stable"), kind="stable")
    return np.asarray(codes, dtype=np.intp), np.asarray(rank, dtype=np.intp)


def pooled(codes: Ints, rank: Ints) -> Ints:
    """Pool strata [n] of fewer than `MIN_STRATUM` clusters, numbered from 0.

    If together they still have fewer, they join the largest stratum; of several, the one whose first cluster has the
    lowest rank.

    Args:
        codes: [n] stratum of each cluster.
        rank: [n] rank of each cluster in the order of names.
    """
    if not len(codes):
        return codes
    _, number, counts = np.unique(codes, return_inverse=True, return_counts=True)
    small = counts < MIN_STRATUM
    alone = int(counts[small].sum())
    if alone > 0:
        first = np.full(len(counts), len(rank) + rank.max(initial=0))
        np.minimum.at(first, number, rank)
        largest = min(range(len(counts)), key=lambda s: (-counts[s], first[s]))
        target = largest if alone < MIN_STRATUM and not small.all() else len(counts)
        number = np.where(small[number], target, number)
    return np.asarray(np.unique(number, return_inverse=True)[1], dtype=np.intp)


def takes_part(sums: Sequence[Any]) -> NDArray[np.bool_]:
    """Return [C, G] whether a cluster has anything in a group, in any of several tallies' sums [C, G, S]."""
    return np.asarray(np.logical_or.reduce([(s != 0).any(axis=2) for s in sums]))
