"""`Paired`: the difference of two estimates on the same items, its interval, its p and the loss that it rules out.

A smooth difference is computed without each cluster in turn, which pairs it. A difference of proportions moves by whole
items, and often few of them: if few changed, the exact bounds of both shares of changed items widen the interval,
and an exact sign test on what these items are worth bounds p from below. So nothing changed never means that nothing
can change.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isfinite
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from evenhand.interfaces import Array, Metric
from evenhand.statistics import proportions, resampling
from evenhand.statistics.design import Design
from evenhand.statistics.estimate import ROUNDING, Estimate, combined, degrees_of, few_carry, rounded_root
from evenhand.statistics.moments import ratio
from evenhand.statistics.once import once_a_level

RARE = 0.1
"""Share of changed items below which exact bounds are used in addition to the jackknife."""
RARE_CLUSTERS = 10.0
"""The same by clusters, if changes are known only for them: fewer changed than this (or fewer than 90 % of all)."""
FEW_SEEN = 12.0
"""Number of clusters below which a side whose clusters all agree is not taken to be that uniform."""
MAX_TIMES = 1e6
"""Maximum factor on the number of clusters; if this does not suffice, no number would."""
BISECTIONS = 50


class Flips(NamedTuple):
    """Items that changed, by pair of group and cluster, [P] each."""

    up: Array
    """Items that gained the property."""
    down: Array
    n: Array


def gain(direction: str, before: Array, after: Array) -> Array:
    """Return how much better `after` is than `before`, in the metric's own direction; positive is better."""
    if direction == "lower":
        return before - after
    if direction == "zero":
        return np.abs(before) - np.abs(after)
    return after - before


@dataclass(frozen=True)
class _Share:
    """A share of changed items with its effective size."""

    value: Array
    size: Array

    def lower(self, tail: Array | float, times: Array | float = 1.0) -> Array:
        return proportions.lower(self.value, self.size * times, tail)

    def upper(self, tail: Array | float, times: Array | float = 1.0) -> Array:
        return proportions.upper(self.value, self.size * times, tail)


class _Changed(NamedTuple):
    """Shares of items that changed in either direction."""

    up: _Share
    down: _Share
    rare: NDArray[np.bool_]
    """[G] whether too few changed to rely on the jackknife alone."""
    size: Array
    """[G] effective number of items of the difference: with it, a binomial has the observed variance."""

    @property
    def exact_p(self) -> Array:
        """Return the p of an exact sign test (McNemar's) on the changed items' effective number."""
        return proportions.sign_test(self.up.value * self.size, self.down.value * self.size)


@dataclass(frozen=True, kw_only=True)
class Paired:
    """A difference after - before of one metric; arrays are [G]."""

    info: Metric
    value: Array
    error: Array
    """Standard error."""
    degrees: Array
    clusters: Array
    effective: Array
    known: NDArray[np.bool_]
    """Whether there is an interval."""
    gain: Array
    gain_error: Array
    draws: Array | None = field(default=None, repr=False)
    """[replicates, G] differences of a resampled metric."""
    gain_draws: Array | None = field(default=None, repr=False)
    rare: NDArray[np.bool_]
    """For a smooth metric, whether so few clusters carry the change that unseen ones could well move it."""
    changed: _Changed | None = None
    """For a proportion, shares of changed items."""

    @once_a_level
    def interval(self, alpha: float) -> tuple[Array, Array]:
        """Return the interval of the difference, of level 1 - `alpha`; it excludes zero just if p is below `alpha`."""
        low, high = self._ends(alpha)
        p = self.p
        significant = p < alpha
        low = np.where(significant & (self.value > 0), np.maximum(low, 0.0), low)
        high = np.where(significant & (self.value < 0), np.minimum(high, 0.0), high)
        low = np.where(significant | np.isnan(p), low, np.minimum(low, 0.0))
        high = np.where(significant | np.isnan(p), high, np.maximum(high, 0.0))
        return low, high

    @once_a_level
    def gain_interval(self, alpha: float) -> tuple[Array, Array]:
        """Return the interval of the gain. If a score is best at 0, the signs of both values are taken as found."""
        if self.info.direction != "zero":
            low, high = self.interval(alpha)
            return (-high, -low) if self.info.direction == "lower" else (low, high)
        if self.gain_draws is not None:
            return resampling.percentiles(self.gain_draws, self.degrees, alpha)
        half = stdtrit(self.degrees, 1 - alpha / 2) * self.gain_error
        room = self._widened(half, self._unseen(alpha / 2), self.gain_error)
        return np.where(self.known, self.gain - room, np.nan), np.where(self.known, self.gain + room, np.nan)

    @property
    def p(self) -> Array:
        """Return the two-sided p of a difference of zero; 1 if nothing differs."""
        if self.draws is not None:
            p = resampling.p_value(self.draws, self.degrees)
        else:
            with np.errstate(divide="ignore", invalid="ignore"):
                p = 2 * stdtr(self.degrees, -np.abs(self.value) / self.error)
            # every cluster moved by the same amount: as many tosses of a coin that fell on one side
            p = np.where(self.error == 0, np.minimum(1.0, 2 * 0.5**self.effective), p)
        p = np.where(np.abs(self.value) <= ROUNDING, 1.0, p)
        if self.changed is not None:
            p = np.where(self.changed.rare, np.maximum(p, self.changed.exact_p), p)
        return np.where(self.known, p, np.nan)

    def loss_high(self, alpha: float) -> Array:
        """Return the upper bound of the loss, for non-inferiority; nan without direction or interval.

        With no item changed it is exact and one-sided, 1 - alpha ** (1 / clusters). Otherwise the bounds are those of
        the two-sided interval: variance and design effect are estimates, and few changes leave them too small.
        """
        return self._loss_bound(alpha, np.ones_like(self.value))

    def clusters_needed(self, margin: float, alpha: float) -> Array:
        """Estimate how many clusters would rule out a loss of `margin`, if all rates stayed as found.

        It is infinite if no number would suffice; nan if the loss is already ruled out or is itself no smaller than the
        margin, and for metrics other than capability.
        """
        low, high = np.ones_like(self.value), np.full_like(self.value, MAX_TIMES)
        bound = self.loss_high(alpha)
        loss = -self.gain
        wanted = (bound >= margin) & (loss < margin) & (self.info.kind == "capability")
        if not wanted.any():
            return np.full_like(self.value, np.nan)
        for _ in range(BISECTIONS):
            middle = np.sqrt(low * high)
            enough = self._loss_bound(alpha, middle) <= margin
            low, high = np.where(enough, low, middle), np.where(enough, middle, high)
        found = np.where(high < MAX_TIMES / 2, np.ceil(self.clusters * high - 1e-6), np.inf)
        return np.where(wanted, found, np.nan)

    def _loss_bound(self, alpha: float, times: Array) -> Array:
        """Return the bound with `times` as many clusters."""
        if self.info.direction == "none":
            return np.full_like(self.value, np.nan)
        if self.changed is None:
            return self._smooth_loss(alpha, times)
        up, down, rare, _ = self.changed
        better, worse = (down, up) if self.info.direction == "lower" else (up, down)
        bound = -self.gain + stdtrit(self.degrees, 1 - alpha / 2) * self.error / np.sqrt(times)
        tail = np.where((worse.value == 0) & (better.value == 0), alpha, alpha / 2)
        exact = worse.upper(tail, times) - better.lower(tail, times)
        return np.where(self.known, np.where(rare, np.maximum(bound, exact), bound), np.nan)

    def _smooth_loss(self, alpha: float, times: Array) -> Array:
        """Bound the loss of other metrics than proportions. The share of unseen clusters shrinks with their number."""
        half = (-self.gain_interval(alpha)[0] + self.gain) / np.sqrt(times)
        room = self._widened(half, self._unseen(alpha, times), self.error)
        return np.where(self.known, -self.gain + room, np.nan)

    @property
    def error_shown(self) -> Array:
        """Return the standard error that the interval's width stands for: the jackknife's, or larger if widened."""
        low, high = self._ends(0.05)
        return np.fmax(self.error, (high - low) / (2 * stdtrit(self.degrees, 0.975)))

    @once_a_level
    def _ends(self, alpha: float) -> tuple[Array, Array]:
        if self.draws is not None:
            low, high = resampling.percentiles(self.draws, self.degrees, alpha)
        else:
            half = stdtrit(self.degrees, 1 - alpha / 2) * self.error
            low, high = self.value - half, self.value + half
        if self.changed is not None:
            (up, down, rare, _), tail = self.changed, alpha / 2
            low = np.where(rare, np.minimum(low, up.lower(tail) - down.upper(tail)), low)
            high = np.where(rare, np.maximum(high, up.upper(tail) - down.lower(tail)), high)
        else:
            if self.draws is not None:
                low, high = np.minimum(low, self.value), np.maximum(high, self.value)
            room = self._unseen(alpha / 2)
            low = self.value - self._widened(self.value - low, room, self.error)
            high = self.value + self._widened(high - self.value, room, self.error)
        width = self._width
        return tuple(np.where(self.known, np.clip(end, -width, width), np.nan) for end in (low, high))  # type: ignore[return-value]

    @property
    def _width(self) -> float:
        return self.info.range[1] - self.info.range[0]

    def _unseen(self, tail: float, times: Array | float = 1.0) -> Array:
        """Return how far unseen clusters could move the difference; nan for a metric without bounds."""
        width = self._width if isfinite(self._width) else np.nan
        return np.asarray(proportions.unseen(self.effective * times, tail) * width)

    def _widened(self, half: Array, unseen: Array, error: Array) -> Array:
        """Return half an interval, widened to the reach of unseen clusters if none differs, or if few carry it."""
        return np.where(error == 0, unseen, np.where(self.rare, np.fmax(half, unseen), half))


def paired(design: Design, before: Estimate, after: Estimate, flips: Flips | None = None) -> Paired:
    """Compare two estimates of one metric.

    Args:
        design: Design of the items of both.
        before: Estimate of the baseline.
        after: Estimate of the method.
        flips: Items that changed, if known item by item; otherwise the net changes of the clusters are used,
            which hide what cancels out within one.
    """
    difference, sign = after.value - before.value, (np.sign(before.value), np.sign(after.value))
    without = after.without - before.without
    towards = sign[0][design.group] * before.without - sign[1][design.group] * after.without
    effective = np.fmin(before.effective, after.effective)
    own = np.fmin(*(degrees_of(design, without, e.n_pairs) for e in (before, after)))
    beyond = [(e.sampled.variance, e.sampled.degrees) for e in (before, after)]
    if after.info.form == "smooth":
        beyond += [_too_even(one, other) for one, other in ((before, after), (after, before))]
    draws = None if after.draws is None or before.draws is None else after.draws - before.draws
    base = design.variance(without) if draws is None else resampling.variance(draws)
    variance, degrees = combined([(base, own), *beyond])
    if draws is not None:
        variance = base  # the draws already include the spread between seeds
    gain_variance, _ = combined([(design.variance(towards), own), *beyond])
    error, changed = rounded_root(variance, before.value), None
    if after.info.form == "proportion":
        changed = (
            _by_clusters(design, before, after, effective, own)
            if flips is None
            else _by_items(design, flips, effective, own)
        )
        changed = changed._replace(size=_worth(changed, variance, effective), rare=changed.rare | (error == 0))
    clusters = np.fmin(before.clusters, after.clusters)
    return Paired(
        info=after.info,
        value=difference,
        error=error,
        degrees=degrees,
        clusters=clusters,
        effective=effective,
        known=(clusters > 1) & np.isfinite(variance) & np.isfinite(difference),
        gain=gain(after.info.direction, before.value, after.value),
        gain_error=rounded_root(gain_variance, before.value),
        draws=draws,
        gain_draws=_gain_draws(before, after, sign),
        changed=changed,
        rare=few_carry(design, without, effective),
    )


def _too_even(one: Estimate, other: Estimate) -> tuple[Array, Array]:
    """Return variance and degrees of a side whose few clusters all agree, if those of the other side do not.

    Half a dozen answers of one kind have a jackknife variance of 0, which says nothing. Its interval (`Estimate`, by
    the clusters that were not seen) is taken for one of Student's t.
    """
    low, high = one.interval(0.05)
    error = np.fmax(high - one.value, one.value - low) / stdtrit(one.degrees, 0.975)
    few = (one.standard_error == 0) & (other.standard_error > 0) & (one.effective < FEW_SEEN)
    return np.where(few & np.isfinite(error), error**2, 0.0), one.degrees


def _gain_draws(before: Estimate, after: Estimate, sign: tuple[Array, Array]) -> Array | None:
    if before.draws is None or after.draws is None:
        return None
    return np.asarray(sign[0] * before.draws - sign[1] * after.draws)


def _by_items(design: Design, flips: Flips, clusters: Array, degrees: Array) -> _Changed:
    up, down = _shares(design, flips, clusters, degrees)
    return _Changed(up, down, np.asarray((up.value < RARE) | (down.value < RARE)), clusters)


def _by_clusters(design: Design, before: Estimate, after: Estimate, clusters: Array, degrees: Array) -> _Changed:
    """Compute changes from the net changes of clusters; items that only one side counts are included as changed."""
    change = after.hits - before.hits
    net = Flips(np.maximum(change, 0.0), np.maximum(-change, 0.0), np.maximum(before.n_pairs, after.n_pairs))
    touched = ratio(design.total(np.where(change != 0, net.n, 0.0)), design.total(net.n)) * clusters
    few = np.asarray(touched < np.minimum(RARE_CLUSTERS, 0.9 * clusters))
    return _Changed(*_shares(design, net, clusters, degrees), few, clusters)


def _worth(changed: _Changed, variance: Array, clusters: Array) -> Array:
    """Return the number of independent items whose changes vary as the difference did, within a cluster's limits."""
    up, down = changed.up.value, changed.down.value
    with np.errstate(divide="ignore", invalid="ignore"):
        size = (up + down - (up - down) ** 2) / variance
    return np.where(np.isfinite(size), np.clip(size, clusters, proportions.MAX_PER_CLUSTER * clusters), clusters)


def _shares(design: Design, flips: Flips, clusters: Array, degrees: Array) -> tuple[_Share, _Share]:
    """Return the shares of changed items in both directions, with their effective sizes."""
    totals, without = design.total(np.array(flips).T), design.without_each(np.array(flips).T)
    n = totals[:, 2]
    made = []
    for i in (0, 1):
        value = ratio(totals[:, i], n)
        variance = design.variance(ratio(without[:, i], without[:, 2]))
        size = proportions.effective_size(value, n, variance, clusters, degrees, design.taking_part(flips[i]))
        made.append(_Share(value, size))
    return made[0], made[1]
