"""`Estimate`: one metric of every group, with the ingredients of its interval."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from evenhand.interfaces import Array, Measured, Metric, Tally
from evenhand.statistics import proportions, resampling
from evenhand.statistics.design import Design
from evenhand.statistics.moments import ratio
from evenhand.statistics.once import once_a_level

Metrics = Callable[[Array], dict[str, Measured]]
ROUNDING = 1e-12
"""A standard error below this share of the value is rounding, and counts as zero."""
FEW_CARRIERS, CARRIED_SHARE = 10.0, 0.2
"""A variance that rests on fewer clusters than both says little of those that were not seen."""
NO_CLUSTERS = "no interval: it takes at least 2 clusters"
NO_ANSWERS = "no interval: no answer is behind the value, which is a convention"
UNDEFINED = "no interval: without one of the clusters the metric is undefined"
UNDEFINED_DRAWS = "no interval: in over 5 % of the resamples the metric is undefined"
NO_SPREAD = "no interval: no cluster differs from the others, and the metric has no bounds"


@dataclass(frozen=True)
class Sampled:
    """Uncertainty of a mean over seeds, samples or wordings in addition to that of the items; all [G]."""

    variance: Array
    """Contribution to the variance of the mean."""
    degrees: Array
    between_seeds: Array
    """Standard deviation between seeds; nan if there is one seed."""
    between_wordings: Array

    @classmethod
    def of(cls, values: Mapping[tuple[int, int], Array]) -> Sampled:
        """Compute variance components of a crossed layout from values [G] by (seed, wording)."""
        shape = np.shape(next(iter(values.values())))
        sides = [_component(values, axis) for axis in (0, 1)]
        variance = sum((v for v, _, _ in sides), np.zeros(shape))
        parts = sum((ratio(v**2, np.full(shape, d)) for v, d, _ in sides if d), np.zeros(shape))
        with np.errstate(divide="ignore", invalid="ignore"):
            degrees = np.where(variance > 0, variance**2 / parts, np.inf)
        return cls(variance, degrees, sides[0][2], sides[1][2])


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """One metric; arrays are [G] unless stated otherwise."""

    info: Metric
    value: Array
    n: Array
    clusters: Array
    """Number of clusters with any n."""
    effective: Array
    """Effective number of clusters."""
    variance: Array
    """Variance of the value; nan if unavailable."""
    degrees: Array
    sampled: Sampled
    without: Array = field(repr=False)
    """Value without each cluster, [P]."""
    n_pairs: Array = field(repr=False)
    """n of each cluster, [P]."""
    hits: Array = field(repr=False)
    """value * n of each cluster, [P]; 0 where it has none."""
    showing: Array = field(repr=False)
    """For a proportion, the number of clusters with the property, or of clusters with items without it, whichever is
    smaller."""
    rare: NDArray[np.bool_] = field(repr=False)
    """Whether so few clusters carry the variance that unseen ones could well change the value."""
    draws: Array | None = field(default=None, repr=False)
    """[replicates, G] of a resampled metric."""

    @property
    def standard_error(self) -> Array:
        """Square root of the variance; rounding counts as 0."""
        return rounded_root(self.variance, self.value)

    @once_a_level
    def interval(self, alpha: float) -> tuple[Array, Array]:
        """Return the interval of level 1 - `alpha`, within the metric's range; nan if there is none (see `note`)."""
        if self.info.form == "proportion":
            size = proportions.effective_size(
                self.value, self.n, self.variance, self.effective, self.degrees, self.showing
            )
            ends = [f(self.value, size, alpha / 2) for f in (proportions.lower, proportions.upper)]
        elif self.draws is not None:
            low, high = resampling.percentiles(self.draws, self.degrees, alpha)
            ends = [np.minimum(low, self.value), np.maximum(high, self.value)]
        else:
            half = stdtrit(self.degrees, 1 - alpha / 2) * self.standard_error
            ends = [self.value - half, self.value + half]
        if self.info.form != "proportion":
            unseen = self._unseen(alpha)
            ends = [np.where(self.standard_error == 0, u, e) for u, e in zip(unseen, ends, strict=True)]
            ends = [np.where(self.rare, f(e, u), e) for f, e, u in zip((np.fmin, np.fmax), ends, unseen, strict=True)]
        known = (self.clusters > 1) & ~np.isnan(self.variance) & ~np.isnan(self.value)
        low, high = (np.where(known, np.clip(end, *self.info.range), np.nan) for end in ends)
        return low, high

    def _unseen(self, alpha: float) -> tuple[Array, Array]:
        """Return, if no cluster differs, how far unseen clusters could move the value within its range."""
        low, high = self.info.range
        if not (isfinite(low) and isfinite(high)):
            return np.full_like(self.value, np.nan), np.full_like(self.value, np.nan)
        share = proportions.unseen(self.effective, alpha / 2)
        return self.value - share * (self.value - low), self.value + share * (high - self.value)

    def note(self, g: int) -> str:
        """Return why group `g` has a value but no interval; "" if it has one."""
        if np.isnan(self.value[g]):
            return ""
        if self.clusters[g] < 2:
            return NO_CLUSTERS if self.n[g] else NO_ANSWERS
        if np.isnan(self.variance[g]):
            return UNDEFINED if self.draws is None else UNDEFINED_DRAWS
        unbounded = not all(map(isfinite, self.info.range))
        return NO_SPREAD if self.info.form != "proportion" and self.standard_error[g] == 0 and unbounded else ""


def estimates(
    variants: Mapping[tuple[int, int], Tally],
    design: Design,
    metrics: Metrics,
    infos: Sequence[Metric],
    *,
    replicates: int = resampling.REPLICATES,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Estimate all metrics from one tally, or average over the tallies of several seeds and wordings.

    Args:
        variants: Tallies of the same items, by (seed, wording).
        design: Design of these items.
        metrics: A benchmark's `metrics`.
        infos: Metrics to estimate.
        replicates: Number of bootstrap replicates, for the metrics that need them.
        seed: Seed of the bootstrap.
    """
    totals = {v: metrics(tally.total) for v, tally in variants.items()}
    pairs = [design.pick(tally.sums) for tally in variants.values()]
    without = [metrics(design.without_each(x)) for x in pairs]
    own = [metrics(x) for x in pairs]
    draws = [
        resampling.bootstrap(tally, metrics, replicates=replicates, seed=seed)
        for tally in (variants.values() if any(i.form == "resampled" for i in infos) else ())
    ]
    out = {}
    for info in infos:
        name = info.name
        values = {v: total[name].value for v, total in totals.items()}
        hits = [np.where(m[name].n > 0, m[name].value, 0.0) * m[name].n for m in own]
        made = _estimate(
            info,
            design,
            Sampled.of(values),
            np.mean(list(values.values()), axis=0),
            np.mean([total[name].n for total in totals.values()], axis=0),
            np.mean([w[name].value for w in without], axis=0),
            np.mean([m[name].n for m in own], axis=0),
            np.mean(hits, axis=0),
        )
        if info.form == "resampled":
            made = _resampled(made, np.mean([d[name] for d in draws], axis=0), seed)
        out[name] = made
    return out


def _estimate(
    info: Metric, design: Design, sampled: Sampled, value: Array, n: Array, without: Array, n_pairs: Array, hits: Array
) -> Estimate:
    variance = design.variance(without)
    degrees = degrees_of(design, without, n_pairs)
    showing = np.fmin(design.taking_part(hits), design.taking_part(n_pairs - hits))
    both, together = combined([(variance, degrees), (sampled.variance, sampled.degrees)])
    return Estimate(
        info=info,
        value=value,
        n=n,
        clusters=design.taking_part(n_pairs),
        effective=design.effective(n_pairs),
        variance=both,
        degrees=together,
        sampled=sampled,
        without=without,
        n_pairs=n_pairs,
        hits=hits,
        showing=showing,
        rare=few_carry(design, without, design.effective(n_pairs)),
    )


def rounded_root(variance: Array, value: Array) -> Array:
    """Return the standard error of a value; rounding counts as 0."""
    error = np.sqrt(variance)
    return np.where(error <= ROUNDING * (1 + np.abs(value)), 0.0, error)


def degrees_of(design: Design, without: Array, n_pairs: Array) -> Array:
    """Return degrees of freedom of a jackknife variance: the design's, or fewer if few clusters carry it.

    A variance of C values of kurtosis k has 2 C / (k - 1) degrees of freedom (Satterthwaite 1946); C / k is
    `Design.carrying`.
    """
    carried, clusters = design.carrying(without), design.taking_part(n_pairs)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = 2 * clusters / np.maximum(clusters / carried - 1, 1e-9)
    return np.fmax(np.fmin(design.degrees(n_pairs), np.where(np.isnan(spread), np.inf, spread)), 1.0)


def few_carry(design: Design, without: Array, effective: Array) -> NDArray[np.bool_]:
    """Whether fewer clusters carry the variance than would by chance, and fewer than `FEW_CARRIERS`."""
    carried = design.carrying(without)
    with np.errstate(invalid="ignore"):
        return np.asarray((carried < FEW_CARRIERS) & (carried < np.fmax(1.05, CARRIED_SHARE * effective)))


def _resampled(estimate: Estimate, draws: Array, seed: int) -> Estimate:
    """Return the estimate with the draws' variance, with the spread between seeds and wordings added as noise."""
    spread = np.sqrt(estimate.sampled.variance)
    draws = draws + np.random.default_rng([seed, 1]).normal(size=draws.shape) * np.nan_to_num(spread)
    return replace(estimate, draws=draws, variance=resampling.variance(draws))


def combined(parts: Sequence[tuple[Array, Array]]) -> tuple[Array, Array]:
    """Return the sum of independent variances and its degrees of freedom (Satterthwaite 1946)."""
    variance = np.sum([v for v, _ in parts], axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        weight = np.sum([v**2 / d for v, d in parts], axis=0)
        degrees = np.where(weight > 0, variance**2 / weight, np.min([d for _, d in parts], axis=0))
    return variance, np.fmax(degrees, 1.0)


def _component(values: Mapping[tuple[int, int], Array], axis: int) -> tuple[Array, int, Array]:
    """Return the variance that an axis adds to the mean, its degrees of freedom, and its standard deviation."""
    levels = sorted({key[axis] for key in values})
    means = np.array([np.mean([v for key, v in values.items() if key[axis] == level], axis=0) for level in levels])
    if len(levels) < 2:
        return np.zeros(means.shape[1:]), 0, np.full(means.shape[1:], np.nan)
    spread = means.var(axis=0, ddof=1)
    return spread / len(levels), len(levels) - 1, np.sqrt(spread)
