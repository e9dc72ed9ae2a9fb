"""The contract of a benchmark, checked on its first items."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from evenhand.core.run_folder import from_plain
from evenhand.errors import SettingsError
from evenhand.experiment.contracts import NonconformingError, check_answers, check_ids, demand
from evenhand.interfaces import Benchmark, Choice, Model, Pair, Question, QuestionItem
from evenhand.models.tiny import tiny_model
from evenhand.testing.tally_checks import check_tally


def check_benchmark(benchmark: Benchmark, model: Model | None = None, limit: int = 40) -> None:
    """Check that a benchmark keeps its contract, on its first `limit` items.

    Items have unique, stable ids, and clusters; answers survive storage; the tally is additive over items, in any
    order; every metric is described, and vectorised; grades, if there are any, fit the items and the tally's groups;
    the right options that it names are options, and they alone are graded as right; its pairs differ, and belong to
    one item each.

    Args:
        benchmark: The benchmark to check.
        model: The model to ask; None for a tiny random model, which skips what is too long for it.
        limit: Number of items to check, from the first on.

    Raises:
        NonconformingError: It does not keep the contract; the message says where, and what to do about it.
    """
    model = model or tiny_model(texts=[], too_long="skip")
    items = list(benchmark.load())[:limit]
    demand(len(items) > 1, "load() must give at least two items")
    ids = [item.id for item in items]
    check_ids(items)
    _check_clusters(items)
    demand([i.id for i in list(benchmark.load())[:limit]] == ids, "load() must give the same list each time")
    answers = benchmark.ask(model, items)
    check_answers(benchmark, items, answers)
    stored = [from_plain(benchmark.answer_type, json.loads(json.dumps(dataclasses.asdict(a)))) for a in answers]
    demand(stored == list(answers), f"answers of type {benchmark.answer_type.__name__} do not survive storage as JSON")
    check_tally(benchmark, items, answers)
    _check_grades(benchmark, items, answers)
    _check_gold(benchmark, items)
    _check_pairs(benchmark, items)


def _check_clusters(items: list[Any]) -> None:
    for item in items:
        try:
            cluster = item.cluster
        except AttributeError as error:
            raise NonconformingError(
                f"{item.id}: the item has no cluster. Give items a field or property `cluster: str`, such as the "
                "template that several items share; for items that share nothing, their id"
            ) from error
        demand(isinstance(cluster, str), f"{item.id}: its cluster is {cluster!r}, which is not a string")


def _check_grades(benchmark: Benchmark, items: list[Any], answers: Sequence[Any]) -> None:
    grades = benchmark.grades(items, answers)
    if grades is None:
        return
    groups = set(benchmark.tally(items, answers).groups)
    demand(len(grades) == len(items), f"grades() gave {len(grades)} for {len(items)} items")
    for item, grade in zip(items, grades, strict=True):
        demand("overall" in grade.groups, f"{item.id}: its grade is not in the group 'overall'")
        demand(
            groups >= set(grade.groups), f"{item.id}: its grade is in {grade.groups}, the tally has {sorted(groups)}"
        )
    parts = [m.part for m in grades]
    empty = [dataclasses.replace(a, decision=None) for a in answers if isinstance(a, Choice)]
    if len(empty) == len(items):
        again = benchmark.grades(items, empty) or ()
        demand([m.part for m in again] == parts, "an item's part must not depend on the answer")
        demand(all(m.decision is None for m in again), "an answer without a decision must have none in its grade")


def _check_gold(benchmark: Benchmark, items: list[Any]) -> None:
    gold = benchmark.gold(items)
    if gold is None:
        return
    demand(len(gold) == len(items), f"gold() gave {len(gold)} for {len(items)} items")
    asked = [item.question for item in items if isinstance(item, QuestionItem) and isinstance(item.question, Question)]
    counts = [len(question.options) for question in asked] if len(asked) == len(items) else [None] * len(items)
    for item, right, count in zip(items, gold, counts, strict=True):
        whole = right is None or (isinstance(right, int) and not isinstance(right, bool) and right >= 0)
        demand(whole, f"{item.id}: gold() gave {right!r}, which is neither the index of an option nor None")
        fits = right is None or count is None or right < count
        demand(fits, f"{item.id}: gold() gave option {right} of {count}; indices begin at 0")
    known = [(item, Choice(right)) for item, right in zip(items, gold, strict=True) if right is not None]
    if known and benchmark.answer_type is Choice:
        grades = benchmark.grades([item for item, _ in known], [answer for _, answer in known])
        for (item, answer), grade in zip(known, grades or (), strict=grades is not None):
            demand(
                grade.right, f"{item.id}: gold() gave option {answer.decision}, which grades() does not count as right"
            )
    if benchmark.answer_type is Choice:
        for item, right, count in zip(items, gold, counts, strict=True):
            _check_other_options(benchmark, item, right, count or 0)


def _check_other_options(benchmark: Benchmark, item: Any, right: int | None, count: int) -> None:
    """Check that no option but the one that `gold` names is graded as right."""
    others = [Choice(option) for option in range(count) if option != right]
    for answer, grade in zip(others, benchmark.grades([item] * len(others), others) or (), strict=False):
        demand(
            not grade.right,
            f"{item.id}: grades() counts option {answer.decision} as right, but gold() gave {right}; make both look "
            "the right option up in the same place",
        )


def _check_pairs(benchmark: Benchmark, items: list[Any]) -> None:
    try:
        of_nothing, pairs = benchmark.pairs([]), benchmark.pairs(items)
    except SettingsError:  # a benchmark that must not be trained on
        return
    demand((of_nothing is None) == (pairs is None), "pairs([]) must be None if pairs(items) is, and only then")
    demand(not of_nothing, "pairs([]) must be empty")
    for pair in pairs or ():
        demand(isinstance(pair, Pair), f"pairs() gave {type(pair).__name__}, not Pair")
        demand(
            bool(pair.stereotyped.strip() and pair.counter_stereotyped.strip()),
            f"{pair.id}: a side of the pair is empty",
        )
        demand(
            pair.stereotyped != pair.counter_stereotyped,
            f"{pair.id}: both sides of the pair are {pair.counter_stereotyped!r}",
        )
    by_item = [pair for item in items for pair in benchmark.pairs([item]) or ()]
    demand(by_item == list(pairs or ()), "pairs() of all items must be those of each item, in the items' order")
