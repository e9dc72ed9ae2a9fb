"""The smallest effect that a benchmark can show, worked out from its size alone, before anything is asked.

The level is that of the first step of Holm's procedure, alpha / tests, and the power is `families.POWER` (Bloom 1995,
"Minimum detectable effects"). Two things are not known before a run, and are assumed:

- how alike items of one cluster are. With an intraclass correlation rho, n items in clusters of sizes m_i are worth
  n / (1 + (sum m_i^2 / n - 1) rho) independent ones (Kish 1965, "Survey Sampling", section 5.4). At rho = 1, the least
  favourable value, these are the effective clusters n^2 / sum m_i^2, as in `Design.effective`.
- how many items change their outcome at all. The difference between two shares on the same items has the variance
  (changed - difference^2) / n (Connor 1987, "Sample size for testing differences in proportions for the paired-sample
  design", Biometrics 43), where `changed` is the share of items whose outcome changes, in either direction.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import nan, sqrt

from evenhand.statistics.families import detectable

CHANGED = 0.2
"""Share of items whose outcome a method changes, where nothing is known: one in five."""
ALIKE = 1.0
"""Intraclass correlation where nothing is known: items of one cluster count once."""


def independent_items(sizes: Sequence[int], correlation: float = ALIKE) -> float:
    """How many independent items the items of a benchmark are worth.

    Args:
        sizes: Number of items in each cluster.
        correlation: Intraclass correlation, from 0 (all items are independent) to 1 (a cluster counts once).
    """
    n = sum(sizes)
    if not n:
        return 0.0
    return n / (1 + (sum(m * m for m in sizes) / n - 1) * correlation)


def smallest_difference(sizes: Sequence[int], alpha: float, tests: int, correlation: float = ALIKE) -> float:
    """The smallest mean difference between two rows that is found, in standard deviations of an item's difference.

    Args:
        sizes: Number of items in each cluster.
        alpha: Level of the family of tests.
        tests: Number of tests in the family.
        correlation: See `independent_items`.

    Returns:
        nan where fewer than two effective clusters leave no degree of freedom.
    """
    degrees = independent_items(sizes) - 1
    if degrees < 1:
        return nan
    return detectable(1 / sqrt(independent_items(sizes, correlation)), degrees, alpha, tests)


def smallest_change_of_share(
    sizes: Sequence[int], alpha: float, tests: int, correlation: float = ALIKE, changed: float = CHANGED
) -> float:
    """The smallest difference between two shares on the same items that is found.

    With k standard errors needed it solves d = k sqrt((changed - d^2) / n). A difference cannot exceed the share of
    items that change: where this would, all that change are taken to change in one direction, d = changed, which gives
    k^2 / (n + k^2).

    Args:
        sizes: Number of items in each cluster.
        alpha: Level of the family of tests.
        tests: Number of tests in the family.
        correlation: See `independent_items`.
        changed: Share of items whose outcome changes, from 0 to 1.

    Returns:
        A difference from 0 to 1; nan where fewer than two effective clusters leave no degree of freedom.
    """
    n = independent_items(sizes, correlation)
    needed = smallest_difference(sizes, alpha, tests, correlation) ** 2 * n
    found = sqrt(needed * changed / (n + needed)) if n else nan
    return found if not found > changed else needed / (n + needed)
