"""Which examples are in a batch together: any, in random order, or those whose texts begin alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Literal, TypeVar

T = TypeVar("T")
GroupBy = Literal["none", "prefix"]


def in_batches(
    examples: Sequence[T], size: int, random: Random, ids_of: Callable[[T], Sequence[int]], group_by: GroupBy = "none"
) -> list[list[T]]:
    """All examples of an epoch once, in batches.

    Args:
        examples: What is learned from.
        size: Examples in a batch; the last one may have fewer.
        random: Draws the order of an epoch.
        ids_of: The token ids of an example.
        group_by: "none" draws examples in random order. "prefix" puts neighbours in the order of their token ids into
            one batch, such as the questions of one template or subject; batches are in random order, and where they
            begin is drawn, so that an example is not always with the same others. Gradients of a batch are then of like
            examples, which changes what is learned.
    """
    order = list(examples)
    random.shuffle(order)
    if group_by == "prefix":
        order.sort(key=lambda example: tuple(ids_of(example)))
        start = random.randrange(len(order)) if order else 0
        order = order[start:] + order[:start]
    batches = [order[at : at + size] for at in range(0, len(order), size)]
    if group_by == "prefix":
        random.shuffle(batches)
    return batches
