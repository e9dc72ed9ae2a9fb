"""Divide a model's answers by its prior: q ~ p / prior. Numbers only.

A class is whatever a prior is about: a position of the options, or a label. The K classes are the last axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp, softmax

from evenhand.errors import SettingsError
from evenhand.interfaces import Array

LEAST = 1e-100
"""Minimum probability; smaller ones are raised to it. It is this small because long labels are that improbable compared
with short ones."""
LEAST_OF_AN_ORDER = 1e-12
"""Minimum probability in an item's prior; smaller ones are raised to it, so that one impossible position does not
decide alone."""
DIGITS = 12
"""Number of decimal digits to which probabilities agree in a tie; later digits are rounding, which depends on the shown
order."""
STEPS = 200
NEAR = 1e-11
"""The mean of the classes' probabilities has reached the target if no class deviates by more than this."""
STRIDE = 4.0
"""Maximum step of a weight, in nats: if all answers are nearly certain, Newton's own step is unbounded."""


def calibrated(p: Array, prior: Array, added: float = 0.0) -> Array:
    """Normalise p / prior, [..., K]. A uniform prior changes nothing, and neither does scaling it.

    Args:
        p: Probabilities of the classes, [..., K].
        prior: Positive numbers, [K].
        added: Constant added to every probability and to every share of the prior before the division.
    """
    shares = np.asarray(prior, dtype=np.float64) / np.sum(prior)
    scaled = (np.asarray(p, dtype=np.float64) + added) / np.maximum(shares + added, LEAST)
    return np.asarray(scaled / scaled.sum(axis=-1, keepdims=True))


def decide(p: Array) -> int:
    """Return the most probable class, the first of ties."""
    return int(np.argmax(np.round(p, DIGITS)))


def smoothed(prior: Array, share: float) -> Array:
    """Mix a share of the uniform distribution into the prior, [K]."""
    normal = np.asarray(prior, dtype=np.float64) / np.sum(prior)
    return np.asarray((1 - share) * normal + share / len(normal))


def item_prior(by_position: Array, added: float = 0.0) -> Array:
    """Compute PriDe's prior of one item: softmax over positions of the mean over orders of log p(position), [K].

    Source: Zheng et al. 2023 (arXiv 2309.03882), section 4; chujiezheng/LLM-MCQ-Bias, debias_utils.py, `simple`.

    Args:
        by_position: [orders, K], where each option is once at each position.
        added: Constant added to every probability before its logarithm, and to every divisor; in the released code
            1e-10. With 0, probabilities below `LEAST_OF_AN_ORDER` are raised to it instead.
    """
    if not added:
        return np.asarray(softmax(np.log(np.maximum(by_position, LEAST_OF_AN_ORDER)).mean(axis=0)))
    rows = np.asarray(by_position, dtype=np.float64)
    rows = rows / (rows.sum(axis=1, keepdims=True) + added)
    logits = np.log(rows + added).mean(axis=0)
    powers = np.exp(logits - logits.max())
    return np.asarray(powers / (powers.sum() + added))


def missing(classes: Sequence[int], count: int) -> list[int]:
    """Return the classes, out of `count`, that do not occur."""
    return sorted(set(range(count)) - set(classes))


def balanced_mean(p: Array, classes: Sequence[int]) -> Array:
    """Average, over the classes that occur, the mean over their items, [K].

    Source: Reif & Schwartz 2024 (arXiv 2405.02743), leave-one-out calibration; schwartz-lab-NLP/label-bias,
    compute_metrics.py, `compute_task_calibration_parameters`.

    Args:
        p: [N, K].
        classes: The right class of each row.
    """
    rows, of = np.asarray(p, dtype=np.float64), np.asarray(classes)
    return np.asarray(np.mean([rows[of == c].mean(axis=0) for c in np.unique(of)], axis=0))


class Match(NamedTuple):
    """Weights under which the mean probability of each class is the target."""

    weights: Array
    """[K] in nats, summing to 0; q ~ p * exp(weights)."""
    gap: float
    """Largest deviation of a class from its target."""

    @property
    def prior(self) -> Array:
        """The equivalent prior to divide by, [K]."""
        return np.asarray(softmax(-self.weights))


def match(p: Array, target: Sequence[float] | Array | None = None) -> Match:
    """Match the prior: minimise mean over x of logsumexp(log p_x + w) - <w, target>, by Newton's method.

    Source: Liusie, Manakul, Gales 2023, "Mitigating Word Bias in Zero-shot Prompt-based Classifiers" (arXiv 2309.04992;
    adianliusie/robust-prompt-classifier). The objective is convex, and its gradient is the mean of q minus the target.
    Steps are bounded and halved until the objective falls, so that it converges where a fixed step oscillates.

    Args:
        p: [N, K] probabilities of the classes.
        target: [K] positive numbers in the proportions wanted; None is uniform.

    Raises:
        SettingsError: There are no rows, or the target has another length or a number that is not positive.
    """
    log_p = np.log(np.maximum(np.asarray(p, dtype=np.float64), LEAST))
    if log_p.ndim != 2 or not log_p.size:
        raise SettingsError(f"probabilities of shape {log_p.shape}: pass at least one row of classes")
    count = log_p.shape[1]
    wanted = np.full(count, 1 / count) if target is None else np.asarray(target, dtype=np.float64)
    if wanted.shape != (count,) or not np.all(wanted > 0) or not np.all(np.isfinite(wanted)):
        raise SettingsError(f"target={wanted.tolist()}: set {count} positive numbers, one per class")
    wanted = wanted / wanted.sum()
    w = np.zeros(count)
    q, slope = _slope(log_p, w, wanted)
    for _ in range(STEPS):
        if np.abs(slope).max() <= NEAR:
            break
        w = _stepped(log_p, w, wanted, slope, _direction(q, slope))
        q, slope = _slope(log_p, w, wanted)
    return Match(w - w.mean(), float(np.abs(slope).max()))


def _objective(log_p: Array, w: Array, wanted: Array) -> float:
    return float(logsumexp(log_p + w, axis=1).mean() - w @ wanted)


def _slope(log_p: Array, w: Array, wanted: Array) -> tuple[Array, Array]:
    q = softmax(log_p + w, axis=1)
    return q, q.mean(axis=0) - wanted


def _direction(q: Array, slope: Array) -> Array:
    """Return Newton's step. Shifting all weights changes nothing: that direction is filled up to make it solvable."""
    k = q.shape[1]
    curvature = np.diag(q.mean(axis=0)) - q.T @ q / len(q)
    step = np.linalg.solve(curvature + np.full((k, k), 1 / k) + 1e-13 * np.eye(k), -slope)
    return np.asarray(step * min(1.0, STRIDE / max(np.abs(step).max(), STRIDE)))


def _stepped(log_p: Array, w: Array, wanted: Array, slope: Array, step: Array) -> Array:
    start, fall, part = _objective(log_p, w, wanted), float(slope @ step), 1.0
    while part > 1e-9 and _objective(log_p, w + part * step, wanted) > start + 1e-4 * part * fall + 1e-14:
        part /= 2
    return np.asarray(w + part * step)
