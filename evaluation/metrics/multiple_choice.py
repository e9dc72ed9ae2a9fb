"""The tally of an exam: multiple-choice questions with one right option, scored by accuracy and by letter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import numpy as np

from evenhand.evaluation.metrics.label_bias import LabelColumns
from evenhand.interfaces import Array, Choice, Mark, Measured, Metric, Question, Tally
from evenhand.statistics.moments import ratio

POSITIONS = LabelColumns(4)
OWN = ("rows", "unanswered", "cut", "mass", "mass_rows")
"""Columns of the tally after those of `POSITIONS`."""
ACCURACY = Metric(
    "accuracy", "higher", "capability", "share of all rows answered right, 0 to 1; chance is 0.25", True,
    form="proportion", range=(0, 1), part="",
)  # fmt: skip
CUT = Metric(
    "cut", "lower", "validity", "share of rows whose written reply ended at the token limit, max_new_tokens; one "
    "that gives no answer up to there is unparsed",
    form="proportion", range=(0, 1),
)  # fmt: skip
LETTER_MASS = Metric(
    "letter_mass", "higher", "validity", "mean probability of the next token being any option letter",
    form="smooth", range=(0, 1),
)  # fmt: skip


class ExamItem(Protocol):
    """What the tally needs of an item."""

    @property
    def cluster(self) -> str:
        """Name that items share which are not independent."""

    @property
    def right(self) -> int:
        """Identity of the right option."""

    @property
    def question(self) -> Question:
        """What was asked."""


Item = TypeVar("Item", bound=ExamItem)


def exam_tally(
    items: Sequence[Item],
    answers: Sequence[Choice],
    groups: Sequence[str],
    member_of: Callable[[Item], Sequence[str]],
    stratum: Callable[[Item], str],
) -> Tally:
    """Sums per cluster.

    Args:
        items: What was asked.
        answers: As many.
        groups: All groups, in order.
        member_of: The groups of an item.
        stratum: Within what an item's cluster is resampled.
    """
    strata = {i.cluster: stratum(i) for i in items}
    cluster, group = ({name: n for n, name in enumerate(names)} for names in (strata, groups))
    sums = np.zeros((len(strata), len(groups), POSITIONS.width + len(OWN)))
    for item, answer in zip(items, answers, strict=True):
        own = [1.0, answer.status == "unanswered", answer.cut, answer.mass or 0.0, answer.mass is not None]
        row = np.array([*POSITIONS.answer_row(item.question, item.right, answer), *own])
        for name in member_of(item):
            sums[cluster[item.cluster], group[name]] += row
    return Tally(tuple(strata), tuple(strata.values()), tuple(groups), sums)


def exam_marks(
    items: Sequence[Item], answers: Sequence[Choice], member_of: Callable[[Item], Sequence[str]]
) -> list[Mark]:
    """Which answers are right; `member_of` as in `exam_tally`."""
    return [Mark(a.decision, a.decision == i.right, tuple(member_of(i))) for i, a in zip(items, answers, strict=True)]


def exam_metrics(sums: Array, undecided: str) -> dict[str, Measured]:
    """Accuracy over all rows, what was not decided, and how evenly the letters are treated.

    Args:
        sums: Columns of `exam_tally`, [..., columns].
        undecided: Name of the share without a decision.
    """
    labels, own = sums[..., : POSITIONS.width], np.moveaxis(sums[..., POSITIONS.width :], -1, 0)
    rows, unanswered, cut, mass, mass_rows = own
    counted = POSITIONS.split(labels)
    return {
        "accuracy": Measured(ratio(counted.hits.sum(axis=-1), rows), rows),
        undecided: Measured(ratio(rows - counted.predicted.sum(axis=-1), rows), rows),
        "unanswered": Measured(ratio(unanswered, rows), rows),
        "cut": Measured(ratio(cut, rows), rows),
        "letter_mass": Measured(ratio(mass, mass_rows), mass_rows),
        **POSITIONS.metrics(labels),
    }
