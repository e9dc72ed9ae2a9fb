"""Statistics from sums: ratios, correlations and paired tests that need only n, sum x, sum xx and so on.

All functions are vectorised over leading dimensions, so that a bootstrap of a correlation costs a matrix product.
"""

from __future__ import annotations

import numpy as np

from evenhand.interfaces import Array

RELATIVE_NOISE = 1e-12
"""A variance below this share of the mean square is rounding, and counts as zero."""


def ratio(part: Array, whole: Array) -> Array:
    """Return `part / whole`; nan if `whole` is not positive."""
    out: Array = np.full(np.broadcast_shapes(np.shape(part), np.shape(whole)), np.nan)
    return np.divide(part, whole, out=out, where=np.asarray(whole) > 0)


def mean_of_known(values: Array) -> Array:
    """Average the values that are not nan over the last axis, [...]; nan if all are."""
    known = ~np.isnan(values)
    return ratio(np.where(known, values, 0.0).sum(axis=-1), known.sum(axis=-1))


def variance(n: Array, x: Array, xx: Array) -> Array:
    """Population variance from n, sum x and sum x squared; exactly 0 for constant values, nan for none."""
    mean, square = ratio(x, n), ratio(xx, n)
    found = square - mean**2
    return np.where(found <= RELATIVE_NOISE * square, np.where(np.isnan(found), np.nan, 0.0), found)


def pearson(n: Array, x: Array, y: Array, xx: Array, yy: Array, xy: Array) -> Array:
    """Compute the Pearson correlation from the six sums; nan if x or y does not vary."""
    covariance = ratio(xy, n) - ratio(x, n) * ratio(y, n)
    spread = np.sqrt(variance(n, x, xx) * variance(n, y, yy))
    return np.clip(ratio(covariance, spread), -1.0, 1.0)


def slope(n: Array, x: Array, y: Array, xx: Array, xy: Array) -> Array:
    """Compute the least-squares slope of y on x; nan if x does not vary."""
    return ratio(ratio(xy, n) - ratio(x, n) * ratio(y, n), variance(n, x, xx))


def cohen_dz(n: Array, d: Array, dd: Array) -> Array:
    """Compute the mean of paired differences over their sample standard deviation; nan below two or without spread.

    Source: Lakens 2013, "Calculating and reporting effect sizes", equation 6.
    """
    sample = variance(n, d, dd) * ratio(n, n - 1)
    return ratio(ratio(d, n), np.sqrt(sample))


def paired_t(n: Array, d: Array, dd: Array) -> Array:
    """Compute Student's t of paired differences against zero, n - 1 degrees of freedom; nan where `cohen_dz` is."""
    return cohen_dz(n, d, dd) * np.sqrt(n)


def t_test_p(t: Array, n: Array) -> Array:
    """Compute the two-sided p of a t with n - 1 degrees of freedom; nan where t is."""
    if np.isnan(t).all():  # avoids the import, which takes a while
        return np.full(np.broadcast_shapes(np.shape(t), np.shape(n)), np.nan)
    from scipy.stats import t as student

    return np.asarray(2 * student.sf(np.abs(t), np.maximum(n - 1, 1)))
