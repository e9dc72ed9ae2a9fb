"""Facts that the run folder stores about every answer: cluster, groups, status, grade, cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from evenhand.core.answer_table import AnswerFacts, GradeLabel, usages
from evenhand.evaluation.metrics.unanswered import outcome
from evenhand.interfaces import Benchmark, Choice, Grade
from evenhand.models.letter_tokens import MAX_OPEN
from evenhand.report.cost import seconds_per_item


def answer_facts(
    benchmark: Benchmark, items: Sequence[Any], answers: Sequence[Any], usage: Mapping[str, Any]
) -> list[AnswerFacts]:
    """Collect what is known of each answer.

    Args:
        benchmark: The benchmark that asked.
        items: The items that were asked.
        answers: One per item.
        usage: The manifest's facts about the cell.
    """
    seconds = seconds_per_item(usage)
    graded = _graded(benchmark, items, answers)
    outcomes = map(outcome, answers)
    rows = zip(_clusters(benchmark, items), outcomes, usages(answers), graded, strict=True)
    return [
        AnswerFacts(cluster, known.groups, known.part, status, note, known.decision, known.grade, used, seconds)
        for cluster, (status, note), used, known in rows
    ]


def unread_letters(answers: Sequence[Any]) -> list[str]:
    """Report answers by letters for which a server's list left too much unread, in one line; empty if there are none.

    Args:
        answers: Answers of one cell; only a `Choice` can say what was not read.
    """
    by_letters = [a for a in answers if isinstance(a, Choice) and a.mass is not None]
    open_ = [a.unread for a in by_letters if a.unread is not None and a.unread > MAX_OPEN]
    if not open_:
        return []
    return [
        f"{len(open_)} of {len(by_letters)} answers by letters leave more than {MAX_OPEN:.0%} of the options' "
        f"probability unread (at most {max(open_):.3g}): the server's list of first tokens has not all letters; use "
        "answer_by='generation', or vllm:URL#model, which reads all of them"
    ]


def _clusters(benchmark: Benchmark, items: Sequence[Any]) -> Iterator[str]:
    """Yield the names of the clusters; if the items must not be quoted, the ids of the clusters' first items."""
    first: dict[str, str] = {}
    for item in items:
        name = first.setdefault(item.cluster, item.id)
        yield item.cluster if benchmark.quotable else name


def _graded(benchmark: Benchmark, items: Sequence[Any], answers: Sequence[Any]) -> list[AnswerFacts]:
    """Return groups, decisions and grades; empty if the benchmark has none."""
    nothing = [AnswerFacts()] * len(items)
    try:
        grades = benchmark.grades(items, answers)
    except Exception:  # the cell fails with this error as soon as it is scored; its answers are kept
        return nothing
    if grades is None or len(grades) != len(items):
        return nothing
    return [
        AnswerFacts(
            groups=g.groups,
            part=g.part or None,
            decision=g.decision if isinstance(g.decision, int) else None,
            grade=_label(g),
        )
        for g in grades
    ]


def _label(grade: Grade) -> GradeLabel:
    if grade.right:
        return "right"
    return "undecided" if grade.decision is None else "wrong"
