"""Accept or reject a model's answer by its B-score (Vo et al. 2025, arXiv 2505.18545). Pure functions.

B(a) = P_single(a) - P_multi(a) is high for an answer that a model gives often when asked once, and seldom when it sees
its own earlier answers: a sign of bias, so that such an answer is rejected. The two-step rule is reconstructed from the
paper's text: a first score of confidence (P_single, P_multi or a stated confidence; higher is surer) must reach T1,
and then B must not exceed T2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from evenhand.errors import SettingsError
from evenhand.interfaces import Array


class Thresholds(NamedTuple):
    """Thresholds chosen on answers with known truth, and the verification accuracy that they reach there."""

    first: float
    """T1: minimum first score; -inf if there is no first step."""
    b: float
    """T or T2: maximum B."""
    accuracy: float


def accept(b: Sequence[float] | Array, threshold: float) -> np.ndarray:
    """Accept answers with B <= threshold; an undefined B (nan) is not accepted. Returns [N] bool."""
    return np.asarray(np.asarray(b, dtype=np.float64) <= threshold)


def accept_two_step(
    first: Sequence[float] | Array, b: Sequence[float] | Array, first_threshold: float, threshold: float
) -> np.ndarray:
    """Accept answers whose first score >= T1 and whose B <= T2. Returns [N] bool.

    Raises:
        SettingsError: The lists differ in length.
    """
    if len(first) != len(b):
        raise SettingsError(f"{len(first)} first scores but {len(b)} B-scores; give one of each per answer")
    return np.asarray((np.asarray(first, dtype=np.float64) >= first_threshold) & accept(b, threshold))


def verification_accuracy(accepted: Sequence[bool] | np.ndarray, correct: Sequence[bool] | np.ndarray) -> float:
    """Return the share of answers judged correctly: right ones accepted, wrong ones rejected; nan without answers.

    Raises:
        SettingsError: The lists differ in length.
    """
    if len(accepted) != len(correct):
        raise SettingsError(f"{len(accepted)} verdicts but {len(correct)} answers; give one of each")
    same = np.asarray(accepted, dtype=bool) == np.asarray(correct, dtype=bool)
    return float(same.mean()) if len(same) else float("nan")


def best_threshold(b: Sequence[float] | Array, correct: Sequence[bool] | np.ndarray) -> Thresholds:
    """Return the T with the best verification accuracy, the smallest of ties, which accepts least.

    Candidates are the B values themselves and -inf (accept nothing): no other value decides differently. Choose it on
    answers other than those on which it is evaluated.

    Raises:
        SettingsError: The lists differ in length, or are empty.
    """
    return best_two_step(np.zeros(len(b)), b, correct)._replace(first=-np.inf)


def best_two_step(
    first: Sequence[float] | Array, b: Sequence[float] | Array, correct: Sequence[bool] | np.ndarray
) -> Thresholds:
    """Return T1 and T2 with the best verification accuracy; of ties the largest T1, then the smallest T2.

    Raises:
        SettingsError: The lists differ in length, or are empty.
    """
    if not len(b):
        raise SettingsError("no answers to choose thresholds on")
    found: Thresholds | None = None
    for t1 in sorted(set(np.asarray(first, dtype=np.float64).tolist()), reverse=True):
        for t2 in (-np.inf, *sorted(set(np.asarray(b, dtype=np.float64).tolist()))):
            accuracy = verification_accuracy(accept_two_step(first, b, t1, t2), correct)
            if found is None or accuracy > found.accuracy:
                found = Thresholds(t1, t2, accuracy)
    assert found is not None
    return found
