"""Support exams written for the previous release: the tally of arrays that `exam_row` and `exam_formulas` replace.

These functions work for one release; a benchmark that is a `QuestionBenchmark` needs none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from evenhand.evaluation.base import RightItem
from evenhand.evaluation.metrics.multiple_choice import STATISTICS, exam_formulas, exam_row
from evenhand.evaluation.metrics.row_sums import RowSums
from evenhand.evaluation.metrics.sums import Sums
from evenhand.interfaces import Array, Choice, Grade, Measured, Tally

GroupsOf = Callable[[RightItem], Sequence[str]]


def exam_tally(
    items: Sequence[RightItem],
    answers: Sequence[Choice],
    groups: Sequence[str],
    member_of: GroupsOf,
    stratum: Callable[[RightItem], str],
) -> Tally:
    """Sum per cluster the statistics that `exam_row` returns.

    Args:
        items: What was asked.
        answers: As many.
        groups: All groups, in order.
        member_of: The groups of an item.
        stratum: Returns the stratum in which an item's cluster is resampled.
    """
    strata = {item.cluster: stratum(item) for item in items}
    at = {cluster: n for n, cluster in enumerate(strata)}
    sums = RowSums("exam", STATISTICS, groups)
    for item, answer in zip(items, answers, strict=True):
        sums.add(item.id, exam_row(item, answer), at[item.cluster], tuple(member_of(item)))
    return Tally(tuple(strata), tuple(strata.values()), tuple(groups), sums.total(len(strata)))


def exam_marks(items: Sequence[RightItem], answers: Sequence[Choice], member_of: GroupsOf) -> list[Grade]:
    """Return which answers are right; `member_of` as in `exam_tally`."""
    return [Grade(a.decision, a.decision == i.right, tuple(member_of(i))) for i, a in zip(items, answers, strict=True)]


def exam_metrics(sums: Array, undecided: str) -> dict[str, Measured]:
    """Compute accuracy over all rows, the undecided shares, and how evenly the letters are treated.

    Args:
        sums: Columns of `exam_tally`, [..., columns].
        undecided: Name of the share without a decision.
    """
    named, found = Sums(sums, STATISTICS), dict[str, Measured]()
    for formula in exam_formulas(undecided, ""):
        found |= formula.compute(named)
    return found
