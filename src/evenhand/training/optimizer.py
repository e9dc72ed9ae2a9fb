"""The optimizer and the learning-rate schedules that all trainings share."""

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
    """Make an AdamW optimizer (Loshchilov & Hutter 2019, arXiv 1711.05101).

    Args:
        parameters: Parameters to train.
        learning_rate: Used until `set_learning_rate` sets another.
        weight_decay: Fraction, times the learning rate, by which weights shrink in a step.
        betas: Decay rates of the running means of gradients and of their squares.
        decay_vectors: Whether biases and norms shrink as well.
    """
    import torch

    every = list(parameters)
    if decay_vectors:
        return torch.optim.AdamW(every, lr=learning_rate, weight_decay=weight_decay, betas=betas)
    matrices, vectors = [p for p in every if p.dim() > 1], [p for p in every if p.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=betas)


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Set the learning rate of the next step, for all parameters."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def linear_rate(progress: float, peak: float, warmup_ratio: float) -> float:
    """Return a rate that rises linearly during the warm-up, then falls linearly to 0.

    Args:
        progress: Completed fraction of the training.
        peak: Highest learning rate.
        warmup_ratio: Fraction of the training during which the rate rises.
    """
    rising = progress / warmup_ratio if warmup_ratio else 1.0
    return peak * min(rising, (1 - progress) / (1 - warmup_ratio))


def constant_rate(progress: float, peak: float, warmup_ratio: float) -> float:
    """Return a rate that rises linearly during the warm-up, then stays.

    Args:
        progress: Completed fraction of the training.
        peak: Highest learning rate.
        warmup_ratio: Fraction of the training during which the rate rises.
    """
    return peak * min(progress / warmup_ratio, 1.0) if warmup_ratio else peak


def cosine_rate(progress: float, peak: float, lowest: float) -> float:
    """Return a rate that falls along half a cosine, from `peak` to `lowest` times the peak."""
    return peak * (lowest + (1 - lowest) * 0.5 * (1 + math.cos(math.pi * progress)))
