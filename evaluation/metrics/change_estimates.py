"""Answer changes between two rows, over repetitions: flips for the paired test, and estimates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from evenhand import statistics
from evenhand.evaluation.metrics.answer_changes import change_metrics, change_tallies, described, turned
from evenhand.interfaces import Array, Grade, Tally
from evenhand.statistics import Design, Estimate, Flips
from evenhand.statistics.design import takes_part


class Repetition(NamedTuple):
    """The grades of one seed and wording, on both sides."""

    variant: tuple[int, int]
    """Number of the seed and of the wording."""
    before: Sequence[Grade]
    after: Sequence[Grade]
    clusters: Sequence[str]
    """Clusters of the items."""
    like: Tally
    """Tally of the side after."""


def flips(design: Design, repetitions: Iterable[Repetition]) -> dict[str, Flips]:
    """Count by part the items that a row turned right or not right, averaged over its repetitions.

    Args:
        design: Design of the scores that are compared.
        repetitions: None where answers have no grades.
    """
    found: dict[str, list[Array]] = {}
    for one in repetitions:
        for part, sums in turned(one.before, one.after, one.clusters, one.like).items():
            found.setdefault(part, []).append(design.pick(sums))
    return {part: Flips(*np.mean(all_of, axis=0).T) for part, all_of in found.items()}


def change_estimates(
    repetitions: Iterable[Repetition], *, replicates: int = statistics.REPLICATES, seed: int = 0
) -> Iterator[tuple[Sequence[str], Estimate]]:
    """Yield the names of the groups, and the estimate, of every share of changed answers, part by part.

    Args:
        repetitions: None where answers have no grades.
        replicates: Number of bootstrap replicates, for metrics that need them.
        seed: Seed of the bootstrap.
    """
    by_part: dict[str, dict[tuple[int, int], Tally]] = {}
    for one in repetitions:
        for part, tally in change_tallies(one.before, one.after, one.clusters, one.like).items():
            by_part.setdefault(part, {})[one.variant] = tally
    for part, tallies in by_part.items():
        like = next(iter(tallies.values()))
        design = Design.of(like.clusters, like.strata, takes_part([t.sums for t in tallies.values()]))
        metrics = partial(change_metrics, part=part)
        made = statistics.estimates(tallies, design, metrics, described(part), replicates=replicates, seed=seed)
        for estimate in made.values():
            yield like.groups, estimate
