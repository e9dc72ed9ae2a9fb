"""Read hidden states at the rows of a fit through the model's own inference, so that answers share their prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from evenhand.interfaces import Model
from evenhand.methods.steering._directions import Means
from evenhand.methods.steering._rows import Row
from evenhand.methods.steering._steered import innermost

MOST_BYTES = 2**30
"""Maximum bytes of states in memory at once, in float32."""


def means(model: Model, rows: Sequence[Row], layers: Sequence[int], weights: Sequence[float] | None = None) -> Means:
    """Compute means by side and letter, summed in float64 without storing states.

    Args:
        model: Model whose states are read.
        rows: Rows that are read.
        layers: Layers whose output is read.
        weights: One weight per row; None weights all equally.
    """
    from evenhand.inference.states import mean_states
    from evenhand.models.steered import engine_of

    found = mean_states(
        engine_of(innermost(model)),
        [row.ids for row in rows],
        [[row.position] for row in rows],
        layers,
        [(row.side, row.letter) for row in rows],
        weights=weights,
        prompt_lengths=prompt_lengths(rows),
    )
    return {group: (one.weight, one.mean) for group, one in found.items()}


def by_layers(
    model: Model, rows: Sequence[Row], layers: Sequence[int], hidden: int
) -> Iterator[tuple[Sequence[int], Tensor]]:
    """Yield some layers at a time, as many as fit `MOST_BYTES`, with their states: [rows, layers, hidden] float32.

    The model runs once for each part.
    """
    from evenhand.inference.states import states
    from evenhand.models.steered import engine_of

    together = max(1, MOST_BYTES // (4 * hidden * max(1, len(rows))))
    engine = engine_of(innermost(model))
    for start in range(0, len(layers), together):
        some = layers[start : start + together]
        ids, positions = [row.ids for row in rows], [[row.position] for row in rows]
        yield some, states(engine, ids, positions, some, prompt_lengths=prompt_lengths(rows))


def prompt_lengths(rows: Sequence[Row]) -> list[int]:
    """Return the number of tokens of each row's prompt."""
    return [row.position + 1 if row.prompt is None else row.prompt for row in rows]


def read(model: Model, sequences: Sequence[Sequence[int]], layers: Sequence[int]) -> Tensor:
    """Return states at the last token of sequences, [sequences, layers, hidden] float32."""
    from evenhand.inference.states import states
    from evenhand.models.steered import engine_of

    return states(engine_of(innermost(model)), sequences, [[len(ids) - 1] for ids in sequences], layers)
