"""Memory and time that a recipe needs, by a formula; nothing is measured.

Memory: parameters times the bytes that each takes (weights, and in training gradients and copies), and `WORKING` for
keys, values and logits. The optimizer states of an adapter are left out: they are below a hundredth of the weights.

Hours: 2 operations for every parameter and token that is read or written, 6 for every one that is trained on, divided
by the part that is reached of an H100's peak at this precision. The peaks are those of the data sheet without sparsity;
the parts are ours, and low for writing, which is limited by memory.
"""

from __future__ import annotations

from typing import NamedTuple

from evenhand.experiment.recipes import Recipe

GIB = 2**30
WORKING = 2 * GIB
"""Bytes for keys, values and logits, on top of the weights."""
PEAK = {"bfloat16": 989e12, "float16": 989e12, "float32": 67e12}
"""Operations per second of an H100 SXM, dense, by precision."""
READING, WRITING = 0.3, 0.03
"""Fractions of the peak that are reached: in reading and training, and in writing."""


class Estimate(NamedTuple):
    """Memory and time that a recipe needs."""

    memory: float
    """Bytes of the device or, without one, of the machine."""
    hours: float
    """Hours on one H100."""


def estimate(recipe: Recipe) -> Estimate:
    """Compute what a recipe needs by the formula of this module."""
    model = recipe.model
    memory = model.parameters * sum(recipe.bytes_per_parameter.values()) + WORKING
    peak = PEAK[model.dtype]
    seconds = 0.0
    for work in recipe.work:
        size = work.count * (work.parameters or model.parameters)
        seconds += size * (2 * work.read + 6 * work.trained) / (peak * READING) + size * 2 * work.written / (
            peak * WRITING
        )
    return Estimate(memory, seconds / 3_600)
