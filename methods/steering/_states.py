"""Hidden states at the rows of a fit, through the model's own engine, so that both answers to a prompt share it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from evenhand.interfaces import Model
from evenhand.methods.steering._directions import Means
from evenhand.methods.steering._rows import Row
from evenhand.methods.steering._steered import innermost

MOST_BYTES = 2**30
"""Of states held at once, in float32."""


def means(model: Model, rows: Sequence[Row], layers: Sequence[int], weights: Sequence[float] | None = None) -> Means:
    """Means by side and letter, added up in float64 without holding states.

    Args:
        model: Whose states are read.
        rows: Which are read.
        layers: Of whose output.
        weights: One per row; None weighs all alike.
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
    """Some layers at a time, as many as fit `MOST_BYTES`, with the states at them: [rows, layers, hidden] float32.

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
    """Tokens of each row's prompt."""
    return [row.position + 1 if row.prompt is None else row.prompt for row in rows]


def read(model: Model, sequences: Sequence[Sequence[int]], layers: Sequence[int]) -> Tensor:
    """States at the last token of sequences, [sequences, layers, hidden] float32."""
    from evenhand.inference.states import states
    from evenhand.models.steered import engine_of

    return states(engine_of(innermost(model)), sequences, [[len(ids) - 1] for ids in sequences], layers)
