"""Shared parts of exams: multiple-choice questions with one right option, scored by accuracy and by letter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evenhand.core import moved
from evenhand.evaluation.base import RightItem
from evenhand.evaluation.metrics.formulas import Formula, mean, share
from evenhand.evaluation.metrics.label_bias import LabelColumns
from evenhand.interfaces import Choice

POSITIONS = LabelColumns(4)
COUNTS = ("rows", "right", "parsed", "unanswered", "cut", "mass", "mass_rows")
STATISTICS = (*COUNTS, *POSITIONS.names)
CUT = share(
    "cut",
    "cut",
    "rows",
    "lower",
    "validity",
    "share of rows whose written reply ended at the token limit, max_new_tokens; one "
    "that gives no answer up to there is unparsed",
)
LETTER_MASS = mean(
    "letter_mass",
    "mass",
    "mass_rows",
    "higher",
    "validity",
    "mean probability of the next token being any option letter",
    range=(0, 1),
)


def exam_formulas(
    undecided: str, about: str, *, chance: str = "0.25", positions: LabelColumns = POSITIONS
) -> tuple[Formula, ...]:
    """Return accuracy over all rows, the undecided shares, and how evenly the letters are treated.

    Args:
        undecided: Name of the share without a decision.
        about: Its definition.
        chance: The accuracy of guessing, in words.
        positions: Columns of the letters, as many as there are options.
    """
    accuracy = f"share of all rows answered right, 0 to 1; chance is {chance}"
    return (
        share("accuracy", "right", "rows", "higher", "capability", accuracy, main=True, grades=""),
        *undecided_shares(undecided, about),
        CUT,
        LETTER_MASS,
        positions.formula,
    )


def undecided_shares(undecided: str, about: str) -> tuple[Formula, ...]:
    """Return the share of rows without a decision, and without any reply; arguments as in `exam_formulas`."""
    unanswered = f"share of rows that got no reply at all (part of {undecided})"
    return (
        share(undecided, "rows - parsed", "rows", "lower", "validity", about, main=True),
        share("unanswered", "unanswered", "rows", "lower", "validity", unanswered),
    )


def exam_row(item: RightItem, answer: Choice) -> dict[str, float]:
    """Return the `STATISTICS` of an answer."""
    found = common_row(answer)
    found |= POSITIONS.named_row(item.question, item.right, answer)
    found["right"], found["parsed"] = answer.decision == item.right, answer.decision is not None
    return found


def common_row(answer: Choice) -> dict[str, float]:
    """Return the statistics of `CUT` and `LETTER_MASS`, and whether there was a reply at all."""
    found = {"rows": 1.0, "unanswered": answer.status == "unanswered", "cut": answer.cut}
    if answer.mass is not None:
        found["mass"], found["mass_rows"] = answer.mass, 1.0
    return found


if not TYPE_CHECKING:
    _OLD = ("exam_tally", "exam_marks", "exam_metrics")
    __getattr__ = moved.moved_names(
        __name__,
        dict.fromkeys(_OLD, "evenhand.evaluation.metrics.old_exams"),
        instead="exam_row and exam_formulas of a QuestionBenchmark",
    )
