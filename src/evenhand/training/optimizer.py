"""The optimizer and the learning rates that all trainings share."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import AdamW, Optimizer


def adamw(
    parameters: Iterable[nn.Parameter],
    *,
    learning_rate: float = 0.0,
    weight_decay: float = 0.0,
    betas: tuple[float, float] = (0.9, 0.999),
    decay_vectors: bool = True,
) -> AdamW:
    """AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101).

    Args:
        parameters: What is trained.
        learning_rate: Until `set_learning_rate` gives another.
        weight_decay: Fraction, times the learning rate, by which weights shrink in a step.
        betas: Decay of the running means of gradients and of their squares.
        decay_vectors: Whether biases and norms shrink, too.
    """
    import torch

    every = list(parameters)
    if decay_vectors:
        return torch.optim.AdamW(every, lr=learning_rate, weight_decay=weight_decay, betas=betas)
    matrices, vectors = [p for p in every if p.dim() > 1], [p for p in every if p.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=betas)


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """The learning rate of the next step, for all parameters."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def linear_rate(progress: float, peak: float, warmup_ratio: float) -> float:
    """Rising linearly over the warm-up, then falling linearly to 0.

    Args:
        progress: Fraction of the training that is done.
        peak: Highest learning rate.
        warmup_ratio: Fraction of the training in which the rate rises.
    """
    rising = progress / warmup_ratio if warmup_ratio else 1.0
    return peak * min(rising, (1 - progress) / (1 - warmup_ratio))


def constant_rate(progress: float, peak: float, warmup_ratio: float) -> float:
    """Rising linearly over the warm-up, then staying.

    Args:
        progress: Fraction of the training that is done.
        peak: Highest learning rate.
        warmup_ratio: Fraction of the training in which the rate rises.
    """
    return peak * min(progress / warmup_ratio, 1.0) if warmup_ratio else peak


def cosine_rate(progress: float, peak: float, lowest: float) -> float:
    """Falling along half a cosine, from `peak` to `lowest` times the peak."""
    return peak * (lowest + (1 - lowest) * 0.5 * (1 + math.cos(math.pi * progress)))
