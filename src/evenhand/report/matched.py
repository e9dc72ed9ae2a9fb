"""Items that two rows have in common, with the answers of both."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evenhand.core.answer_cache import contents
from evenhand.core.run_folder import from_plain
from evenhand.evaluation.metrics.unanswered import outcome
from evenhand.interfaces import Benchmark
from evenhand.report.answers import StoredCell
from evenhand.report.opened import Opened
from evenhand.report.parallel_items import parallel_pairs

CHOOSING = ("source", "part", "axes", "bias_types", "subjects")
"""Settings of benchmarks that only choose items; if any other setting differs, numbers are not comparable."""
Variant = tuple[int, int]


class Unlike(ValueError):
    """Raised if two rows cannot be compared; the message says why."""


@dataclass(frozen=True)
class Matched:
    """Common items of two rows, and their answers by variant, in the order of the items."""

    benchmark: Benchmark
    items: Sequence[Any]
    benchmark_before: Benchmark
    """Benchmark of `before`: the same one, unless the items are parallel ones in two languages."""
    items_before: Sequence[Any]
    """Items that `before` was asked: the same ones, or their counterparts in the other language."""
    before: Mapping[Variant, Sequence[Any]]
    after: Mapping[Variant, Sequence[Any]]
    only_before: int
    """Number of items that only `before` was asked."""
    only_after: int
    unanswered_before: int
    """Number of common items that `before` never answered."""
    unanswered_after: int
    missing: int
    """Number of common items that at least one of the two never answered."""
    unchecked: bool
    """Whether a run has no digest of its items."""


def matched(
    before: Sequence[StoredCell], after: Sequence[StoredCell], opened: Mapping[str, Opened], *, parallel: bool = False
) -> Matched:
    """Find the items that two rows have in common, by content, and that both answered.

    Args:
        before: Cells of one row.
        after: Cells of the other one.
        opened: Benchmarks by spec.
        parallel: Whether the rows are of two benchmarks that ask the same in two languages, so that an item is matched
            with its translation.

    Raises:
        Unlike: The benchmarks measure different things, the data has changed, or there is no common item.
        RunError: A file of answers is damaged or not there.
    """
    ours, theirs = opened[before[0].benchmark], opened[after[0].benchmark]
    both = _translated(ours, theirs) if parallel else _same_benchmark(ours, theirs)
    stored = [{cell.variant: cell.answers() for cell in cells} for cells in (before, after)]
    for cells, side, source in ((before, stored[0], ours), (after, stored[1], theirs)):
        _check_contents(cells[0], next(iter(side.values())), source)
    ids = [list(next(iter(side.values()))) for side in stored]
    asked = [set.intersection(*map(set, side.values())) for side in stored]
    common = _translations(both, ours, theirs, asked, ids[1]) if parallel else _equal_items(ours, theirs, asked, ids[1])
    if not common:
        raise Unlike("no item is common to both; compare with the same data and limit")
    answers = [
        {variant: [from_plain(bench.answer_type, own[ids[n]]) for ids in common] for variant, own in side.items()}
        for n, (bench, side) in enumerate(zip(both, stored, strict=True))
    ]
    missing = [{n for own in side.values() for n, a in enumerate(own) if _unanswered(a)} for side in answers]
    left_out = missing[0] | missing[1]
    kept = [n for n in range(len(common)) if n not in left_out]
    if not kept:
        raise Unlike("there is no item that both answered")
    was, now = ({variant: [own[n] for n in kept] for variant, own in side.items()} for side in answers)
    return Matched(
        both[1],
        [theirs.items[common[n][1]] for n in kept],
        both[0],
        [(ours if parallel else theirs).items[common[n][0]] for n in kept],
        was,
        now,
        len(ids[0]) - len(common),
        len(ids[1]) - len(common),
        len(missing[0]),
        len(missing[1]),
        len(left_out),
        not (before[0].contents and after[0].contents),
    )


def _same_benchmark(ours: Opened, theirs: Opened) -> tuple[Benchmark, Benchmark]:
    """Return the second benchmark for both sides; names, and settings that do not choose items, must be the same."""
    both = _built(ours, theirs)
    if both[0].name != both[1].name or _settings(both[0], CHOOSING) != _settings(both[1], CHOOSING):
        raise Unlike(f"{ours.spec} and {theirs.spec} do not measure the same; compare with the same settings")
    return both[1], both[1]


def _translated(ours: Opened, theirs: Opened) -> tuple[Benchmark, Benchmark]:
    """Return both benchmarks, whose metrics, and settings other than items and language, must be the same."""
    both = _built(ours, theirs)
    settings = [_settings(one, (*CHOOSING, "language")) for one in both]
    if both[0].metrics != both[1].metrics or settings[0] != settings[1]:
        raise Unlike(
            f"{ours.spec} and {theirs.spec} do not measure the same in two languages; two benchmarks can be compared "
            "where their metrics and settings are the same, such as esbbq and cabbq"
        )
    return both


def _settings(benchmark: Benchmark, without: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in benchmark.settings.items() if name not in without}


def _built(ours: Opened, theirs: Opened) -> tuple[Benchmark, Benchmark]:
    if ours.benchmark is None:
        raise Unlike(ours.why)
    if theirs.benchmark is None:
        raise Unlike(theirs.why)
    for one in (ours, theirs):
        if not one.items:
            raise Unlike(one.why or f"the data of {one.spec} has no items")
    return ours.benchmark, theirs.benchmark


def _equal_items(
    ours: Opened, theirs: Opened, asked: Sequence[Collection[str]], order: Sequence[str]
) -> list[tuple[str, str]]:
    """Return the ids of equal items that both were asked, in the given order of ids."""
    there = [i for i in order if i in asked[0] and i in asked[1]]
    return [(i, i) for i in there if _equal(ours.items.get(i), theirs.items.get(i))]


def _translations(
    both: tuple[Benchmark, Benchmark],
    ours: Opened,
    theirs: Opened,
    asked: Sequence[Collection[str]],
    order: Sequence[str],
) -> list[tuple[str, str]]:
    """Return the ids of parallel items that both were asked, in the given order of the second benchmark's ids."""
    found = parallel_pairs(
        both, [ours.items[i] for i in ours.items if i in asked[0]], [theirs.items[i] for i in order if i in asked[1]]
    )
    if not found:
        raise Unlike(f"no item of {ours.spec} that was asked is parallel to one of {theirs.spec}")
    return found


def _check_contents(cell: StoredCell, answers: Mapping[str, Any], opened: Opened) -> None:
    """Refuse data that has changed since the row was asked, since the answers are to other items."""
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
