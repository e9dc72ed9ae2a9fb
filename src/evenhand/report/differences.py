"""Differences of any two methods, models or runs: paired on items that both answered, or refused with a reason.

Items are equal if their content is, whatever the limit or the folder they came from. An item that one of the two
never answered (no reply, longer than the context) is left out of both, and counted; one whose answer could not be read
stays, under the benchmark's own rule, since the model did answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from evenhand.core.records import Record
from evenhand.core.text_output import count, percent
from evenhand.errors import RunError, SettingsError, suggest
from evenhand.report import differences_view
from evenhand.report.answers import NOT_KEPT, StoredCell
from evenhand.report.difference_parts import Differing, Pair, Refusal, Side
from evenhand.report.matched import Matched, Unlike, matched
from evenhand.report.opened import Opened
from evenhand.report.paired_numbers import BOOTSTRAP, Bootstrap, paired_records
from evenhand.report.plain_text import plain_text
from evenhand.statistics.criteria import Criteria

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

Kind = Literal["run", "method", "model", "benchmark"]
MANY_LEFT_OUT = 0.05
"""Share of left-out items above which a comparison notes that it rests on a selection."""


class Difference(Differing):
    """The change from one side to another: every value of `after` minus that of `before`.

    `print`, a notebook and `frame()` show it.
    """

    def __str__(self) -> str:
        """Return the tables as text, 80 characters wide."""
        return plain_text(differences_view.rendered(self))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render one table per pair; rich calls this."""
        yield differences_view.rendered(self)

    def _repr_html_(self) -> str:
        return differences_view.as_html(self)


def difference(
    cells: Sequence[StoredCell],
    criteria: Criteria,
    a: str,
    b: str,
    *,
    model: str = "",
    method: str = "",
    benchmark: str = "",
    bootstrap: Bootstrap = BOOTSTRAP,
) -> Difference:
    """Compare two methods, models, runs, or benchmarks in two languages, within one report.

    Args:
        cells: Cells of the report.
        criteria: Level, margin and family of the tests.
        a: The side that is subtracted.
        b: The side that it is subtracted from.
        model: Only this one; "" takes all.
        method: Only this row.
        benchmark: Only this spec.
        bootstrap: Bootstrap of the metrics that need one.

    Raises:
        RunError: No answers are kept, there is no such row, or nothing can be compared.
        SettingsError: `a` and `b` are of different kinds, or the same.
    """
    if not cells:
        raise RunError(NOT_KEPT)
    if a == b:
        raise SettingsError(f"{a!r} is given twice; give two rows, models or runs that differ")
    kind = _kind(cells, a, b)
    wanted = {"model": model, "method": method, "benchmark": benchmark}
    mine = [c for c in cells if all(not v or c.named(k) == v for k, v in wanted.items())]
    sides = [[c for c in mine if c.named(kind) == name] for name in (a, b)]
    keys: dict[Kind, Callable[[StoredCell], tuple[str, ...]]] = {
        "run": _own_names,
        "method": lambda c: (c.model, c.benchmark),
        "model": lambda c: (c.method, c.benchmark),
        "benchmark": lambda c: (c.run, c.model, c.method, ""),
    }
    return _compared(sides[0], sides[1], keys[kind], criteria, bootstrap, parallel=kind == "benchmark")


def between(
    before: Sequence[StoredCell],
    after: Sequence[StoredCell],
    criteria: Criteria,
    *,
    model: str = "",
    methods: tuple[str, str] = ("", ""),
    benchmark: str = "",
    bootstrap: Bootstrap = BOOTSTRAP,
) -> Difference:
    """Compare two runs, row by row.

    Rows with the same model and method are compared. If each run has a single model and these differ, the two are
    compared, method by method.

    Args:
        before: Cells of the first run.
        after: Cells of the second.
        criteria: Level, margin and family of the tests.
        model: Only this one; "" takes all.
        methods: One row of each run, to compare only these, such as ("self_debias", "pride"); "" takes all.
        benchmark: Only this spec.
        bootstrap: Bootstrap of the metrics that need one.

    Raises:
        RunError: No answers are kept, or nothing can be compared.
    """
    if not before or not after:
        raise RunError(NOT_KEPT)
    sides = []
    for cells, method in zip((before, after), methods, strict=True):
        wanted = {"model": model, "method": method, "benchmark": benchmark}
        for name, value in wanted.items():
            if value and not any(c.named(name) == value for c in cells):
                known = {c.named(name) for c in cells}
                raise RunError(f"no answers of the {name} {value!r} in {cells[0].folder}. {suggest(value, known)}")
        sides.append([c for c in cells if all(not v or c.named(k) == v for k, v in wanted.items())])
    models = [{c.usage["model"] for c in side} for side in sides]
    one_each = not models[0] & models[1] and len(models[0]) == len(models[1]) == 1
    chosen = all(methods)
    if not one_each and methods[0] == methods[1]:  # else the models or methods tell them apart
        sides = _told_apart(*sides)

    def key(cell: StoredCell) -> tuple[str, ...]:
        own = _own_names(cell)
        return (*(() if one_each else own[:1]), *(() if chosen else own[1:2]), own[2])

    return _compared(sides[0], sides[1], key, criteria, bootstrap)


def _told_apart(before: list[StoredCell], after: list[StoredCell]) -> list[list[StoredCell]]:
    """Name the cells of two runs by their folders, or by whole paths if the folders have the same name."""
    folders = before[0].folder.resolve(), after[0].folder.resolve()
    if folders[0] == folders[1]:
        return [before, after]
    names = [f.name for f in folders] if folders[0].name != folders[1].name else list(map(str, folders))
    return [[replace(c, run=c.run or name) for c in side] for side, name in zip((before, after), names, strict=True)]


def _own_names(cell: StoredCell) -> tuple[str, str, str]:
    """Return model, row and benchmark under the names of the cell's own run."""
    return cell.usage["model"], cell.usage["method"], cell.benchmark


def _kind(cells: Sequence[StoredCell], a: str, b: str) -> Kind:
    """Find out whether two names are methods, models, runs or benchmarks."""
    kinds: tuple[Kind, ...] = ("run", "method", "model", "benchmark")
    known = {kind: {c.named(kind) for c in cells} - {""} for kind in kinds}
    for kind in kinds:
        if a in known[kind] and b in known[kind]:
            return kind
    everything = set().union(*known.values())
    for name in (a, b):
        if name not in everything:
            raise RunError(
                f"{name!r} is not a row, model, run or benchmark of this report. {suggest(name, everything)}"
            )
    raise SettingsError(
        f"{a!r} and {b!r} are of different kinds; give two methods, two models, two runs or two benchmarks"
    )


def _compared(
    before: Sequence[StoredCell],
    after: Sequence[StoredCell],
    key: Callable[[StoredCell], tuple[str, ...]],
    criteria: Criteria,
    bootstrap: Bootstrap,
    *,
    parallel: bool = False,
) -> Difference:
    """Compare all pairs of rows with the same key; if `parallel`, they are in two languages."""
    groups = [_grouped(cells, key) for cells in (before, after)]
    opened = {c.benchmark: Opened(c.benchmark) for c in (*before, *after)}
    pairs: list[Pair] = []
    refused: list[Refusal] = []
    for name, cells in groups[1].items():
        partner = _partner(name, groups[0])
        if partner is None:
            refused.append(_alone(cells[0], "the first has no such row"))
            continue
        theirs = groups[0].pop(partner)
        try:
            pairs.append(_pair(theirs, cells, opened, criteria, bootstrap, parallel=parallel))
        except (Unlike, RunError) as error:
            refused.append(Refusal(_title(cells[0]), cells[0].benchmark, str(error)))
    refused += [_alone(cells[0], "the second has no such row") for cells in groups[0].values()]
    if not pairs:
        reasons = "; ".join(f"{r.what} on {r.benchmark}: {r.reason}" for r in refused[:3])
        raise RunError(f"nothing can be compared. {reasons or 'There is no row on either side'}")
    found = criteria.adjusted([r for pair in pairs for r in pair.records])
    ends = iter(found)
    made = tuple(replace(pair, records=tuple(next(ends) for _ in pair.records)) for pair in pairs)
    return Difference(made, tuple(refused), criteria)


def _grouped(
    cells: Sequence[StoredCell], key: Callable[[StoredCell], tuple[str, ...]]
) -> dict[tuple[str, ...], list[StoredCell]]:
    """Group the cells by row; a row has several if it is the mean over seeds or wordings."""
    found: dict[tuple[str, ...], list[StoredCell]] = {}
    for cell in cells:
        mine = found.setdefault(key(cell), [])
        if not any(c.variant == cell.variant for c in mine):
            mine.append(cell)
    return found


def _partner(name: tuple[str, ...], others: Mapping[tuple[str, ...], Any]) -> tuple[str, ...] | None:
    """Find the same row on the same benchmark, else on the only benchmark with the same name."""
    if name in others:
        return name
    like = [o for o in others if o[:-1] == name[:-1] and o[-1].partition("(")[0] == name[-1].partition("(")[0]]
    return like[0] if len(like) == 1 else None


def _title(cell: StoredCell) -> str:
    return f"{cell.model}, {cell.method}"


def _alone(cell: StoredCell, reason: str) -> Refusal:
    return Refusal(_title(cell), cell.benchmark, reason)


def _pair(
    before: Sequence[StoredCell],
    after: Sequence[StoredCell],
    opened: Mapping[str, Opened],
    criteria: Criteria,
    bootstrap: Bootstrap,
    *,
    parallel: bool,
) -> Pair:
    found = matched(before, after, opened, parallel=parallel)
    sides = [
        Side(cells[0].run, cells[0].model, cells[0].method, cells[0].benchmark if parallel else "")
        for cells in (before, after)
    ]
    numbers = paired_records(found, sides[0].label(sides[1]), _like(sides, found), criteria, bootstrap)
    return Pair(
        sides[0],
        sides[1],
        found.benchmark.spec,
        len(found.items),
        found.only_before,
        found.only_after,
        found.unanswered_before,
        found.unanswered_after,
        tuple(numbers),
        tuple(_notes(before, after, found)),
    )


def _like(sides: Sequence[Side], found: Matched) -> Record:
    """Make the record with what all records of a pair share."""
    one, other = sides
    model = other.model if one.model == other.model else f"{one.model} → {other.model}"
    return Record(model=model, method=other.method, benchmark=found.benchmark.spec)


def _notes(before: Sequence[StoredCell], after: Sequence[StoredCell], found: Matched) -> Iterator[str]:
    if found.benchmark_before is not found.benchmark:
        yield f"each item of {found.benchmark_before.spec} is compared with its translation in {found.benchmark.spec}"
    if found.only_before or found.only_after:
        yield f"only one side was asked {count(found.only_before + found.only_after)} items, which are left out"
    if found.missing:
        of = len(found.items) + found.missing
        missing = f"{count(found.unanswered_before)} before, {count(found.unanswered_after)} after"
        yield f"{count(found.missing)} of {count(of)} items are left out, as one side never answered them ({missing})"
        if found.missing > MANY_LEFT_OUT * of:
            yield f"the numbers are of a selection: {percent(found.missing / of)} of the items are left out"
    ways = [cells[0].usage.get("answer_by") for cells in (before, after)]
    if ways[0] != ways[1]:
        yield f"answers are read in different ways: {ways[0] or 'not known'} before, {ways[1] or 'not known'} after"
    if found.unchecked:
        yield "the runs are of a version that kept no digest of the items: they were matched by id"
    if found.before == found.after:
        yield "the answers are the same"
