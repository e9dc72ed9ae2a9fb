"""Choose the edited layer on held-out contrasts.

Source: Cyberey et al. 2025 (arXiv 2502.19721; code hannahxchen/gender-bias-steering): the layer after whose edit the
root mean square of the model's lean, P(one side) - P(other side), is smallest on validation prompts, among the layers
below round(.95 n) - 1. Their first choice of five layers by the sign of projections is left out, as all are tried.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from evenhand.interfaces import Model
from evenhand.methods.steering._contrasts import Contrast
from evenhand.methods.steering._rows import lean_of, probabilities

MOST_CONTRASTS = 240
"""Maximum number of held-out contrasts on which layers are tried; the first of them are taken."""


def chosen(
    edited_at: Callable[[int], Model], layers: Sequence[int], held: Sequence[Contrast]
) -> tuple[int, list[dict[str, float]]]:
    """Return the layer, and for every layer tried the root mean square of the lean after the edit.

    Args:
        edited_at: Returns the model edited at one layer.
        layers: All layers of the model.
        held: Contrasts on which the direction was not fitted.
    """
    tried = [
        {"layer": layer, "rms_lean": rms_lean(edited_at(layer), held[:MOST_CONTRASTS])} for layer in candidates(layers)
    ]
    best = min(tried, key=lambda row: (row["rms_lean"], row["layer"]))
    return int(best["layer"]), tried


def candidates(layers: Sequence[int]) -> list[int]:
    """Return all but the last layers, at least the first."""
    return sorted(layers)[: max(1, round(0.95 * len(layers)) - 1)]


def rms_lean(model: Model, contrasts: Sequence[Contrast]) -> float:
    """Compute the root mean square of P(other side) - P(biased side), which is 0 if a model prefers neither."""
    leans = [lean_of(c, p) for c, p in zip(contrasts, probabilities(model, contrasts), strict=True)]
    return round(float(np.sqrt(np.mean(np.square(leans)))), 6)
