"""Answer changes: what a method turned from wrong to right, and from right to wrong, item by item.

Gallegos et al. 2025 (arXiv 2402.01981) report both as shares of all answers. So is every share here: its denominator is
all items, also those that one of the two models left undecided (unparsed or unanswered). No decision is a state of its
own, never a wrong answer: it shows as `decision_lost` and `decision_gained`. The `_max` shares say how far the two main
ones could reach, had every undecided answer been decided that way; at least they are what they are, since nothing
undecided counts in them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from evenhand.evaluation.metrics.turned_items import TurnedItems
from evenhand.interfaces import Array, Grade, Measured, Metric, Tally
from evenhand.statistics.moments import ratio

KINDS: tuple[Metric, ...] = (
    Metric(
        "became_right",
        "higher",
        "change",
        "share of all items that went from a wrong to the right answer",
        form="proportion",
        range=(0, 1),
    ),
    Metric(
        "became_wrong",
        "lower",
        "change",
        "share of all items that went from the right to a wrong answer",
        form="proportion",
        range=(0, 1),
    ),
    Metric(
        "changed_wrong",
        "none",
        "change",
        "share of all items that went from one wrong answer to another",
        form="proportion",
        range=(0, 1),
    ),
    Metric(
        "decision_lost",
        "lower",
        "change",
        "share of all items that were decided, and no longer are",
        form="proportion",
        range=(0, 1),
    ),
    Metric(
        "decision_gained",
        "higher",
        "change",
        "share of all items that were undecided, and no longer are",
        form="proportion",
        range=(0, 1),
    ),
    Metric(
        "became_right_max",
        "none",
        "change",
        "became_right, had undecided ones been wrong before, right after",
        form="proportion",
        range=(0, 1),
    ),
    Metric(
        "became_wrong_max",
        "none",
        "change",
        "became_wrong, had undecided ones been right before, wrong after",
        form="proportion",
        range=(0, 1),
    ),
)
WIDTH = 1 + len(KINDS)
"""Number of columns of the sums: all items, then one count per kind."""


def described(part: str) -> tuple[Metric, ...]:
    """Return the metrics of one part of a benchmark, under the names in its records."""
    return tuple(k._replace(name=f"{k.name}_{part}" if part else k.name) for k in KINDS)


def change_tallies(
    before: Sequence[Grade], after: Sequence[Grade], clusters: Sequence[str], like: Tally
) -> Mapping[str, Tally]:
    """Count the changes per part, cluster and group.

    Args:
        before: The baseline's answers.
        after: The method's answers to the same items.
        clusters: The items' clusters.
        like: The method's own tally, whose clusters, strata and groups are taken: the same seed then draws the same
            resamples, and a change is paired with the scores next to it.

    Returns:
        A tally per part, sums [C, G, WIDTH].
    """
    cluster, group = ({name: n for n, name in enumerate(names)} for names in (like.clusters, like.groups))
    sums = {part: np.zeros((len(cluster), len(group), WIDTH)) for part in sorted({m.part for m in after})}
    for was, now, where in zip(before, after, clusters, strict=True):
        counts = _counts(was, now)
        for name in now.groups:
            sums[now.part][cluster[where], group[name]] += counts
    return {part: Tally(like.clusters, like.strata, like.groups, found) for part, found in sums.items()}


def turned(
    before: Sequence[Grade], after: Sequence[Grade], clusters: Sequence[str], like: Tally
) -> Mapping[str, Array]:
    """Count with `TurnedItems.counts` for one pair of rows and each part, [C, G, 3]; see `change_tallies`."""
    items = TurnedItems(after, clusters, like)
    return {part: items.counts(part, before, after) for part in sorted({m.part for m in after})}


def change_metrics(sums: Array, part: str = "") -> dict[str, Measured]:
    """Compute shares of all items from sums [..., WIDTH]."""
    items = sums[..., 0]
    return {m.name: Measured(ratio(sums[..., 1 + n], items), items) for n, m in enumerate(described(part))}


def _counts(was: Grade, now: Grade) -> Array:
    """Return an item's row of the sums, [WIDTH]."""
    (open_before, right_before, wrong_before), (open_after, right_after, wrong_after) = _state(was), _state(now)
    return np.array(
        [
            True,
            wrong_before and right_after,
            right_before and wrong_after,
            wrong_before and wrong_after and was.decision != now.decision,
            open_after and not open_before,
            open_before and not open_after,
            not right_before and not wrong_after,
            not wrong_before and not right_after,
        ],
        dtype=np.float64,
    )


def _state(grade: Grade) -> tuple[bool, bool, bool]:
    """Return whether the item is undecided, right, wrong: exactly one of them."""
    decided = grade.decision is not None
    return not decided, decided and grade.right, decided and not grade.right
