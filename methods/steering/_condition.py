"""A condition on the prompt: a direction and a threshold that decide once whether a prompt is steered.

Ours. CAST (Lee et al. 2024, arXiv 2409.05907) also decides once per prompt, by the cosine of a state with tanh of its
projection, which depends on the scale of the states; and the meaning of "larger" differs between its two published
codes. Here the score is the plain projection (h - m).u with u of length 1, m halfway between both means, and prompts
above the threshold are steered. Like CAST's, the threshold has the best F1 on the prompts of the fit; of equally good
ones the one with the widest gap is taken.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evenhand.interfaces import Array


class Condition(NamedTuple):
    """Steer a prompt whose state h has direction.h > threshold."""

    direction: Tensor
    """[hidden] float64, of length 1; it points towards the prompts that are steered."""
    threshold: float
    f1: float
    """F1 on the prompts of the fit."""


def fitted(steered: Tensor, other: Tensor) -> Condition:
    """Fit the condition that separates prompts to be steered from others.

    Args:
        steered: [prompts, hidden] float64 states of prompts that should be steered.
        other: [prompts, hidden] float64 states of prompts that should not.
    """
    difference = steered.mean(0) - other.mean(0)
    length = float(difference.norm())
    unit = difference / length if length else torch.zeros_like(difference)
    middle = float((steered.mean(0) + other.mean(0)) @ unit) / 2
    scores = torch.cat([steered @ unit, other @ unit]).numpy() - middle
    labels = np.arange(len(scores)) < len(steered)
    threshold, f1 = best_threshold(np.asarray(scores), labels)
    return Condition(unit, threshold + middle, f1)


def best_threshold(scores: Array, labels: NDArray[np.bool_]) -> tuple[float, float]:
    """Return the threshold with the best F1, and that F1; halfway between two scores, for ties in the widest gap.

    Args:
        scores: [n] scores.
        labels: [n] whether the score should be above.
    """
    order = np.argsort(scores)
    ranked, wanted = np.asarray(scores, dtype=np.float64)[order], np.asarray(labels, dtype=bool)[order]
    found = [(0.0, 0.0, ranked[0] - 1.0)]
    positives = int(wanted.sum())
    for n in range(len(ranked)):
        gap = ranked[n] - ranked[n - 1] if n else 1.0
        if gap <= 0:
            continue
        right = int(wanted[n:].sum())
        f1 = 2 * right / (len(ranked) - n + positives)
        found.append((f1, gap, ranked[n] - gap / 2))
    f1, _, threshold = max(found, key=lambda one: one[:2])
    return float(threshold), float(f1)
