"""Statistics of a fit by layer: the direction's length, the letters' part, how well it separates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from evenhand.methods.steering._directions import Means, letter_part, letter_size
from evenhand.methods.steering._rows import BIASED, UNBIASED


def letter_effects(means: Means, directions: Mapping[int, Tensor]) -> dict[str, dict[str, float]]:
    """Measure the effect of letters, as lengths relative to the direction's length.

    Args:
        means: Means by side and letter, for all layers in order.
        directions: [K, hidden] by layer, in the same order.

    Returns:
        By layer: `letter_effect`, for the part of an unbalanced mean difference that comes from letters that one side
        has more often; `letter_size`, for the mean distance of a letter's states from those of all letters. Empty if
        the answers are not letters.
    """
    if not any(letter for _, letter in means):
        return {}
    part, size = letter_part(means, UNBIASED, BIASED).norm(dim=-1), letter_size(means)
    lengths = [float(direction.double().norm()) or float("inf") for direction in directions.values()]
    return {
        "letter_effect": _by_layer(directions, [float(p) / n for p, n in zip(part, lengths, strict=True)]),
        "letter_size": _by_layer(directions, [float(p) / n for p, n in zip(size, lengths, strict=True)]),
    }


def norms(directions: Mapping[int, Tensor]) -> dict[str, float]:
    """Return the length of the first direction of each layer."""
    return _by_layer(directions, [float(direction[0].double().norm()) for direction in directions.values()])


def separation(states: Tensor, positive: Sequence[bool], directions: Mapping[int, Tensor]) -> dict[str, float]:
    """Return by layer the probability that an unbiased state is further along the direction than a biased one (AUC).

    Args:
        states: [rows, layers, hidden] for held-out contrasts.
        positive: Whether each row is unbiased.
        directions: Directions by layer, in the order of the states' layers.
    """
    chosen = torch.tensor(list(positive), dtype=torch.bool)
    found = []
    for n, direction in enumerate(directions.values()):
        along = states[:, n].double() @ direction[0].double()
        above, below = along[chosen][:, None], along[~chosen][None]
        found.append(float(((above > below).double() + (above == below).double() / 2).mean()))
    return _by_layer(directions, found)


def _by_layer(directions: Mapping[int, Tensor], values: Sequence[float]) -> dict[str, float]:
    return {str(layer): round(value, 6) for layer, value in zip(directions, values, strict=True)}
