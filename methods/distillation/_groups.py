"""Pseudo-groups: clusters of texts by their features, and distances between clouds of features."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evenhand.interfaces import Array

MOST_JUDGED = 1000
"""Maximum number of texts for choosing the number of clusters; all their pairwise distances are computed."""
STARTS = 3
"""Runs of k-means per number of clusters, each from other centres; the tightest is kept."""


class Groups(NamedTuple):
    """The cluster of each text."""

    of: NDArray[np.int64]
    """[n] 0 .. many - 1, none empty."""
    many: int
    silhouette: float
    """Mean over texts, -1 .. 1; near 0 if there are no distinct clusters."""


def pseudo_groups(features: Array, most: int, seed: int) -> Groups:
    """Cluster by k-means, with the number of clusters that gives the highest mean silhouette.

    Source of the measure: Rousseeuw 1987, "Silhouettes" (J. Comput. Appl. Math. 20, 53-65).

    Args:
        features: [n, d].
        most: Maximum number of clusters, at least 2; never more than a third of the texts.
        seed: Seed of the first centres, and of the texts by which the number is chosen.
    """
    if len(features) < 6 or not features.std():
        return Groups(np.zeros(len(features), np.int64), 1, 0.0)
    rng = np.random.default_rng(seed)
    judged = rng.permutation(len(features))[:MOST_JUDGED]
    apart = _distances(features[judged])
    tried = [_clustered(features, k, seed) for k in range(2, max(2, min(most, len(features) // 3)) + 1)]
    scores = [_silhouette(apart, labels[judged]) for labels in tried]
    best = int(np.argmax(scores))
    return Groups(tried[best], int(tried[best].max()) + 1, scores[best])


def mmd2(x: Tensor, y: Tensor, width: float | None = None) -> Tensor:
    """Compute the squared maximum mean discrepancy of two clouds under a Gaussian kernel; 0 if they are equal.

    The biased estimate (mean of all pairs, a point with itself included), which is never negative. Source: Gretton et
    al. 2012, "A Kernel Two-Sample Test" (JMLR 13, 723-773), equation 5.

    Args:
        x: [n, d].
        y: [m, d].
        width: Standard deviation of the kernel; None is the one at which the median squared distance among all points
            gives exp(-1/2), without gradients.
    """
    both = torch.cat([x, y])
    squared = (both[:, None] - both[None]).square().sum(-1)
    if width is None:
        off = ~torch.eye(len(both), dtype=torch.bool, device=both.device)
        scale = squared.detach()[off].median()
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    else:
        scale = squared.new_tensor(width**2)
    kernel = (-squared / (2 * scale)).exp()
    n = len(x)
    return kernel[:n, :n].mean() + kernel[n:, n:].mean() - 2 * kernel[:n, n:].mean()


def apart(features: Tensor, of: Tensor, width: float | None = None) -> Tensor:
    """Average `mmd2` over all pairs of groups that have a text here; 0 if there is only one group.

    Args:
        features: [n, d].
        of: [n] the group of each.
        width: See `mmd2`.
    """
    present = [features[of == g] for g in sorted(set(of.tolist()))]
    pairs = [mmd2(present[a], present[b], width) for a in range(len(present)) for b in range(a)]
    return torch.stack(pairs).mean() if pairs else features.sum() * 0


def _clustered(features: Array, k: int, seed: int) -> NDArray[np.int64]:
    """Return the tightest of several runs of k-means, without empty clusters."""
    from scipy.cluster.vq import kmeans2

    best, least = np.zeros(len(features), np.int64), np.inf
    for start in range(STARTS):
        rng = np.random.default_rng([seed, k, start])
        centres, labels = kmeans2(features, k, iter=50, minit="++", missing="warn", rng=rng)
        within = float(np.square(features - centres[labels]).sum())
        if within < least:
            best, least = np.unique(labels, return_inverse=True)[1], within
    return best.astype(np.int64)


def _distances(points: Array) -> Array:
    squares = np.square(points).sum(1)
    found: Array = np.sqrt(np.maximum(squares[:, None] + squares[None] - 2 * points @ points.T, 0))
    return found


def _silhouette(distances: Array, labels: NDArray[np.int64]) -> float:
    """Average (b - a) / max(a, b) over points: a to its own cluster, b to the nearest other; 0 for a single point."""
    if len(set(labels.tolist())) < 2:
        return -1.0
    member = labels[:, None] == np.unique(labels)[None]  # [n, k]
    sizes = member.sum(0)
    sums = distances @ member
    own = member.argmax(1)
    at = np.arange(len(labels))
    inside = sums[at, own] / np.maximum(sizes[own] - 1, 1)
    means = sums / sizes
    means[at, own] = np.inf
    outside = means.min(1)
    widest = np.maximum(inside, outside)
    score = np.where((sizes[own] > 1) & (widest > 0), (outside - inside) / np.where(widest > 0, widest, 1), 0.0)
    return float(score.mean())
