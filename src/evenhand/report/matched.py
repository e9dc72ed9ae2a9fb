"""`matched`: the items that two rows have in common, with the answers of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evenhand.core.answer_cache import contents
from evenhand.core.run_folder import from_plain
from evenhand.evaluation.metrics.unanswered import outcome
from evenhand.interfaces import Benchmark
from evenhand.report.answers import StoredCell
from evenhand.report.opened import Opened

CHOOSING = ("source", "part", "axes", "bias_types", "subjects")
"""Settings of benchmarks that only choose items; with others that differ, numbers do not mean the same."""
Variant = tuple[int, int]


class Unlike(ValueError):
    """Two rows cannot be compared; the message says why."""


@dataclass(frozen=True)
class Matched:
    """Common items of two rows, and their answers by variant, in the order of the items."""

    benchmark: Benchmark
    items: Sequence[Any]
    before: Mapping[Variant, Sequence[Any]]
    after: Mapping[Variant, Sequence[Any]]
    only_before: int
    """Items that only one of the two was asked."""
    only_after: int
    unanswered_before: int
    """Common items that it never answered."""
    unanswered_after: int
    missing: int
    """Common items that at least one of the two never answered."""
    unchecked: bool
    """Whether a run has no digest of its items."""


def matched(before: Sequence[StoredCell], after: Sequence[StoredCell], opened: Mapping[str, Opened]) -> Matched:
    """Find the items that two rows have in common, by content, and that both answered.

    Args:
        before: Cells of one row.
        after: Cells of the other one.
        opened: Benchmarks by spec.

    Raises:
        Unlike: The benchmarks measure different things, the data is not what it was, or no item is common.
        RunError: A file of answers is damaged or not there.
    """
    ours, theirs = opened[before[0].benchmark], opened[after[0].benchmark]
    benchmark = _same_benchmark(ours, theirs)
    stored = [{cell.variant: cell.answers() for cell in cells} for cells in (before, after)]
    for cells, side, source in ((before, stored[0], ours), (after, stored[1], theirs)):
        _check_contents(cells[0], next(iter(side.values())), source)
    ids = [list(next(iter(side.values()))) for side in stored]
    others = set.intersection(*(set(answers) for side in stored for answers in side.values()))
    common = [i for i in ids[1] if i in others and _equal(ours.items.get(i), theirs.items.get(i))]
    if not common:
        raise Unlike("no item is common to both; compare with the same data and limit")
    answers = [
        {variant: [from_plain(benchmark.answer_type, by_item[i]) for i in common] for variant, by_item in side.items()}
        for side in stored
    ]
    missing = [{n for own in side.values() for n, a in enumerate(own) if _unanswered(a)} for side in answers]
    left_out = missing[0] | missing[1]
    kept = [n for n in range(len(common)) if n not in left_out]
    if not kept:
        raise Unlike("there is no item that both answered")
    was, now = ({variant: [own[n] for n in kept] for variant, own in side.items()} for side in answers)
    return Matched(
        benchmark,
        [theirs.items[common[n]] for n in kept],
        was,
        now,
        len(ids[0]) - len(common),
        len(ids[1]) - len(common),
        len(missing[0]),
        len(missing[1]),
        len(left_out),
        not (before[0].contents and after[0].contents),
    )


def _same_benchmark(ours: Opened, theirs: Opened) -> Benchmark:
    if ours.benchmark is None:
        raise Unlike(ours.why)
    if theirs.benchmark is None:
        raise Unlike(theirs.why)
    both = ours.benchmark, theirs.benchmark
    settings = [{k: v for k, v in one.settings.items() if k not in CHOOSING} for one in both]
    if both[0].name != both[1].name or settings[0] != settings[1]:
        raise Unlike(f"{ours.spec} and {theirs.spec} do not measure the same; compare with the same settings")
    for one in (ours, theirs):
        if not one.items:
            raise Unlike(one.why or f"the data of {one.spec} has no items")
    return theirs.benchmark


def _check_contents(cell: StoredCell, answers: Mapping[str, Any], opened: Opened) -> None:
    """Refuse data that is not what it was when the row was asked: the answers are to other items then."""
    lost = [i for i in answers if i not in opened.items]
    changed = bool(lost)
    if not changed and cell.contents:
        changed = contents([opened.items[i] for i in answers]) != cell.contents
    if changed:
        raise Unlike(
            f"the data of {opened.spec} is not what it was when {cell.folder} was made; run its command again, "
            "which asks anew what has changed"
        )


def _equal(one: Any, other: Any) -> bool:
    return one is other or (one is not None and one == other)


def _unanswered(answer: Any) -> bool:
    return outcome(answer).status == "unanswered"
