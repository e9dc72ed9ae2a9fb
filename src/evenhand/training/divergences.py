"""Divergences between distributions over the same outcomes, from log-probabilities, in nats.

One function gives both directions: KL(p || q), and with its arguments exchanged the reverse, KL(q || p). Outcomes with
probability 0 under the first distribution add nothing, as p log p goes to 0. Computed naively they give
0 * (-inf - ...), which is nan.
"""

from __future__ import annotations

import torch
from torch import Tensor

from evenhand.errors import SettingsError


def kl(p: Tensor, q: Tensor, mass: Tensor | None = None) -> Tensor:
    """Kullback-Leibler divergence of each row: sum of p (log p - log q) over the last dimension.

    Args:
        p: [..., outcomes] log-probabilities; -inf is an impossible outcome.
        q: The same for the other distribution. If it excludes an outcome that p allows, the divergence is infinite.
        mass: [..., outcomes] probabilities of the first distribution, if they are known more exactly than exp(p).

    Returns:
        [...] nats, with gradients to both sides.

    Raises:
        SettingsError: The shapes differ; broadcasting would compare outcomes that do not belong together.
    """
    if p.shape != q.shape:
        raise SettingsError(
            f"log-probabilities of shape {tuple(p.shape)} and {tuple(q.shape)} cannot be compared: both sides need the "
            "same rows and the same outcomes (of a teacher and a student, the same vocabulary)"
        )
    mass = p.exp() if mass is None else mass
    return (mass * torch.where(mass > 0, p - q, 0.0)).sum(dim=-1)
