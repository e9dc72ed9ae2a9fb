"""Measure how much of an edit the model's precision loses: the share of coordinates that rounding leaves unchanged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from evenhand.interfaces import Dialogue, Model
from evenhand.methods.steering._lesson import Lesson
from evenhand.methods.steering._states import read
from evenhand.models.tokenization import Encoder
from evenhand.prompting.remarks import remark
from evenhand.prompting.rendering import as_dialogue

if TYPE_CHECKING:
    from evenhand.inference.activation_edits import ActivationEdit

PROMPTS = 16
"""Maximum number of prompts of the training data whose states are edited; the first are taken."""
LOST = 0.9
"""Share of unchanged coordinates from which an edit is reported as lost."""


def unchanged(model: Model, encoder: Encoder, lesson: Lesson, edit: ActivationEdit) -> dict[str, float]:
    """Return by layer the share of states' coordinates that an edit leaves unchanged in the model's precision.

    States are those at the last token of some prompts, without the edit. Gates are taken as open. A coordinate along
    which the direction is 0 counts as unchanged as well.

    Args:
        model: Model whose states are edited.
        encoder: Encoder of its tokenizer.
        lesson: The training data.
        edit: The edit.
    """
    from evenhand.inference.edited_rows import unchanged_share

    layers = list(edit.acting)
    prompts: list[str | Dialogue] = [pair.prompt for pair in lesson.pairs[:PROMPTS]]
    prompts = prompts or [as_dialogue(q, "letters") for q, _ in lesson.questions[:PROMPTS]]
    encoded = encoder.pairs(prompts, [" A"] * len(prompts))
    ids = [tuple(row[: max(1, length)]) for row, length in encoded]
    found = read(model, ids, layers)
    dtype = model.weights.module.dtype
    return {
        str(layer): round(unchanged_share([replace(e, gate=None) for e in edits], found[:, n], dtype), 6)
        for n, (layer, edits) in enumerate(edit.acting.items())
    }


def say_what_is_lost(name: str, model: Model, shares: Mapping[str, float]) -> None:
    """Report if the model's precision leaves nearly all coordinates unchanged."""
    layer, share = max(shares.items(), key=lambda one: one[1], default=("", 0.0))
    if share >= LOST:
        precision = str(model.weights.module.dtype).removeprefix("torch.")
        remark(
            f"{name}: at layer {layer}, {share:.0%} of the coordinates of {model.name}'s states are the same with and "
            f"without the edit in {precision}: take a larger strength or another layer, or load the model in float32"
        )
