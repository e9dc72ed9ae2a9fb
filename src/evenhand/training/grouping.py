"""Grouping of examples into batches: in random order, or those together whose texts begin alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Literal, TypeVar

T = TypeVar("T")
GroupBy = Literal["none", "prefix"]


def in_batches(
    examples: Sequence[T], size: int, random: Random, ids_of: Callable[[T], Sequence[int]], group_by: GroupBy = "none"
) -> list[list[T]]:
    """Divide the examples of an epoch into batches; each example is in one of them.

    Args:
        examples: All examples of the epoch.
        size: Examples in a batch; one batch may have fewer.
        random: Draws the order.
        ids_of: Returns the token ids of an example.
        group_by: "none" draws examples in random order. "prefix" sorts them by token ids and puts neighbours into one
            batch, such as the questions of one template or subject. Batches are in random order, and the borders
            between them are drawn, so that an example is not always with the same others. The gradient of a batch then
            comes from similar examples, which changes what is learned.
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
