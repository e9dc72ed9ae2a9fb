"""Families of tests: Holm's adjustment, and what a family can detect."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit

POWER = 0.80


def holm(p: Sequence[float]) -> list[float]:
    """Apply Holm's step-down adjustment for several tests (Holm 1979); nan stays nan and does not count."""
    known = [i for i, v in enumerate(p) if not np.isnan(v)]
    order = sorted(known, key=lambda i: p[i])
    out, running = [float("nan")] * len(p), 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(order) - rank) * p[i]))
        out[i] = running
    return out


def detectable(standard_error: float, degrees: float, alpha: float, tests: int) -> float:
    """Return the smallest true difference that is found with `POWER`, at the first step of Holm's procedure.

    It is (t quantile of 1 - alpha_1 / 2 + t quantile of the power) * standard error, with alpha_1 = alpha / tests
    (Bloom 1995, "Minimum detectable effects").

    Args:
        standard_error: Standard error of the paired difference.
        degrees: Degrees of freedom.
        alpha: Level of the family.
        tests: Number of tests in the family.
    """
    first = alpha / max(tests, 1)
    return float((stdtrit(degrees, 1 - first / 2) + stdtrit(degrees, POWER)) * standard_error)
