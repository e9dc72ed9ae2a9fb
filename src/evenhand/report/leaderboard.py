"""The leaderboard: a row per method and model, with its bias, its cost, and whether the difference is significant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isnan
from typing import TYPE_CHECKING

from evenhand.core.records import WORST_GROUP, Record, is_baseline
from evenhand.core.text_output import duration, number
from evenhand.report import leaderboard_view
from evenhand.report.board import (
    BETTER,
    BETTER_FOUND,
    COSTS,
    OVERALL,
    WORSE,
    WORSE_FOUND,
    Board,
    Cell,
    Column,
    GroupLoss,
    Row,
    improved,
)
from evenhand.report.cost import Cost
from evenhand.report.measures import ABSTENTION, ACCURACY, chosen_measures, measures_of
from evenhand.report.pareto import Measure, Placed, badness, placed
from evenhand.report.plain_text import WIDTH, plain_text
from evenhand.report.rivals import Rival
from evenhand.report.text import metric_name, worst_group
from evenhand.report.verdict import less_bias, lost
from evenhand.statistics.criteria import Criteria

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

__all__ = ["Cell", "Column", "GroupLoss", "Leaderboard", "Row", "leaderboard"]


class Leaderboard(Board):
    """A row per method, each model's baselines first, then the methods by rank.

    First come methods that are shown to lower bias without a significant loss of accuracy or capability, then those
    shown to lower it at such a loss, then all others; each of the three is sorted by bias.

    `print`, a notebook and `frame()` show it; `columns` and `rows` are for other programs.
    """

    def __str__(self) -> str:
        """Return the table as text, 80 characters wide."""
        return plain_text(leaderboard_view.rendered(self, WIDTH))

    def __repr__(self) -> str:
        """Return the same, so that an interactive session shows the table."""
        return str(self)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Show as many columns as the terminal has room for; rich calls this."""
        yield leaderboard_view.rendered(self, options.max_width)

    def _repr_html_(self) -> str:
        return leaderboard_view.as_html(self)


def leaderboard(
    records: Sequence[Record],
    costs: Sequence[Cost],
    rivals: Sequence[Rival],
    criteria: Criteria,
    *,
    bias: str | None = None,
    capability: str | None = None,
    demo: bool = False,
    missing: Sequence[str] = (),
) -> Leaderboard:
    """Rank the rows of a report.

    Args:
        records: All numbers, without those of costs.
        costs: Costs of the rows.
        rivals: Methods compared with one another.
        criteria: Level of the tests.
        bias: Metric to rank by, or "BENCHMARK:METRIC"; None takes the run's first main one.
        capability: Likewise; None takes one of a benchmark that does not measure bias, if there is one.
        demo: Whether a demo model was compared.
        missing: What the report lacks.

    Raises:
        SettingsError: The metric does not exist.
    """
    measures = chosen_measures(records, bias, capability)
    columns = tuple(_columns(records, costs, measures))
    rows: list[Row] = []
    for model in dict.fromkeys(r.model for r in records):
        mine = [r for r in records if r.model == model]
        own = [r for r in rivals if r.model == model and (r.benchmark, r.metric) in {m[:2] for m in measures}]
        rows += _Rows(mine, [c for c in costs if c.model == model], own, criteria, measures, columns).all()
    choices = {kind: tuple(m.name for m in measures_of(records, kind)) for kind in ("bias", "capability")}
    explained = _explained(columns, criteria)
    return Leaderboard(columns, tuple(rows), demo, criteria.level, explained, tuple(missing), choices)


def _columns(records: Sequence[Record], costs: Sequence[Cost], measures: Sequence[Measure]) -> Iterator[Column]:
    """Yield the columns for which the run has numbers."""
    there = {(r.benchmark, r.metric, r.group) for r in records}
    bias = next((m for m in measures if m.kind == "bias"), None)
    capability = next((m for m in reversed(measures) if m.kind == "capability"), None)
    base = bias or capability
    if base is None:
        return
    where = base.benchmark
    wanted = [
        ("bias", bias, OVERALL, ""),
        ("worst_group", bias, WORST_GROUP, "worst group"),
        ("disambiguated_accuracy", Measure(where, ACCURACY, "higher"), OVERALL, "disambig. accuracy"),
        ("abstention", Measure(where, ABSTENTION, "lower"), OVERALL, "abstention"),
        ("capability", capability, OVERALL, ""),
    ]
    wanted += [("right_to_wrong", m, OVERALL, "right → wrong") for m in _became_wrong(there, measures)]
    for key, measure, group, title in wanted:
        same = key == "capability" and measure is not None and measure[:2] == (where, ACCURACY)
        if measure is not None and (*measure[:2], group) in there and not same:
            title = title or metric_name(measure.metric)
            yield Column(key, title, measure.benchmark, measure.metric, group, measure.direction)
    mine = [c for c in costs if c.benchmark == where]
    if mine:
        yield Column("calls", "calls", where, "calls_per_item", OVERALL, "lower")
        yield Column("seconds", "time", where, "seconds_per_item", OVERALL, "lower")


def _became_wrong(there: set[tuple[str, str, str]], measures: Sequence[Measure]) -> list[Measure]:
    """Return the share of items turned from right to wrong; if possible, of those whose context answers."""
    names = ("became_wrong_disambiguated", "became_wrong")
    found = [(m.benchmark, n) for m in measures for n in names if (m.benchmark, n, OVERALL) in there]
    return [Measure(*place, "lower") for place in found[:1]]


@dataclass(frozen=True)
class _Rows:
    """Collects the rows of one model."""

    records: Sequence[Record]
    costs: Sequence[Cost]
    rivals: Sequence[Rival]
    criteria: Criteria
    measures: Sequence[Measure]
    columns: Sequence[Column]

    def all(self) -> list[Row]:
        """Return baselines first, then the methods by rank, then rows without a value."""
        methods = list(dict.fromkeys(r.method for r in self.records))
        calls = {c.method: c.calls for c in self.costs if self.measures and c.benchmark == self.measures[0].benchmark}
        places = placed({m: self._judged(m) for m in methods}, calls, self.rivals, self.criteria)
        orders = {m: order for m in methods if (order := self._order(m)) is not None}
        ranked = sorted(orders, key=orders.__getitem__)
        ordered = [*(m for m in methods if is_baseline(m)), *ranked]
        ordered += [m for m in methods if m not in ordered]
        return [self._row(m, places[m], ranked.index(m) + 1 if m in ranked else None) for m in ordered]

    @cached_property
    def _found(self) -> Mapping[tuple[str, str, str, str], Record]:
        return {(r.method, r.benchmark, r.metric, r.group): r for r in self.records}

    def _judged(self, method: str) -> dict[Measure, Record]:
        found = {m: self._found.get((method, m.benchmark, m.metric, OVERALL)) for m in self.measures}
        return {m: r for m, r in found.items() if r is not None}

    def _order(self, method: str) -> tuple[int, float] | None:
        """Return what ranks a method: what is shown about it, then its bias; None if it has no value."""
        judged = self._judged(method)
        if is_baseline(method) or not judged:
            return None
        first = next(iter(judged.values()))
        if isnan(first.value):
            return None
        gained = less_bias(first, self.criteria) if first.kind == "bias" else first.gain > 0
        price = any(lost(r, self.criteria) for r in judged.values() if r.kind == "capability")
        return (0 if gained and not price else 1 if gained else 2), badness(first.value, first.direction)

    def _row(self, method: str, place: Placed, rank: int | None) -> Row:
        mine = [r for r in self.records if r.method == method]
        first = mine[0]
        benchmark = self.measures[0].benchmark if self.measures else first.benchmark
        told = next((r for r in mine if r.benchmark == benchmark), first)
        note = "" if told.status == "ok" else told.note
        baseline = next((r.baseline for r in mine if r.baseline), "")
        cells = {c.key: self._cell(c, method) for c in self.columns}
        losses = tuple(_losses(mine, self.criteria))
        return Row(first.model, method, baseline, told.status, note, cells, *place, rank, losses)

    def _cell(self, column: Column, method: str) -> Cell:
        if column.key in COSTS:
            spent = (c for c in self.costs if (c.method, c.benchmark) == (method, column.benchmark))
            return _cost_cell(column, next(spent, None))
        record = self._found.get((method, column.benchmark, column.metric, column.group))
        if record is None or not record.metric:
            return Cell()
        note, judged = "", record
        if column.group == WORST_GROUP:  # compared with the baseline's value of the same group
            note = worst_group(record.note)
            judged = self._found.get((method, column.benchmark, column.metric, note), record)
        return Cell(
            record.value,
            record.low,
            record.high,
            judged.difference,
            judged.difference_low,
            judged.difference_high,
            _better(judged, column),
            self.criteria.significant(judged),
            note,
            record.n,
            record.clusters,
        )


def _better(record: Record, column: Column) -> bool | None:
    if record.status == "no effect":
        return None
    return improved(-record.difference if column.key == "abstention" else record.gain)


def _cost_cell(column: Column, cost: Cost | None) -> Cell:
    if cost is None:
        return Cell()
    seconds = column.key == "seconds"
    value, more = (cost.seconds, cost.extra_seconds) if seconds else (cost.calls, cost.extra_calls)
    written = duration if seconds else number
    same = isnan(more) or written(value) == written(value - more)
    note = cost.note if isnan(value) else ""
    return Cell(value, difference=more, better=None if same else more < 0, note=note, n=cost.items, seconds=seconds)


def _losses(records: Sequence[Record], criteria: Criteria) -> list[GroupLoss]:
    """Return groups on which a method is worse than its baseline, in the main metrics of bias and capability."""
    found = [
        (not criteria.significant(r), r.gain, GroupLoss(*_loss(r), criteria.significant(r)))
        for r in records
        if r.main and r.kind in ("bias", "capability") and r.group not in (OVERALL, WORST_GROUP)
        if improved(r.gain) is False
    ]
    return [loss for _, _, loss in sorted(found, key=lambda item: item[:2])]


def _loss(r: Record) -> tuple[str, str, str, float, float]:
    return r.group, r.benchmark, r.metric, r.value - r.difference, r.value


def _explained(columns: Sequence[Column], criteria: Criteria) -> str:
    """Explain columns and signs in a paragraph."""
    found = {c.key: c for c in columns}
    named = [f"{found[k].title}: {found[k].benchmark}" for k in ("bias", "capability") if k in found]
    if "abstention" in found:
        named.append("abstention: where the context answers, so it is an error")
    if "right_to_wrong" in found:
        named.append(f"right → wrong: share of items, {metric_name(found['right_to_wrong'].metric)}")
    return ". ".join(
        [
            "; ".join(named),
            f"± half of the {criteria.level:g} % interval; {BETTER}* better and {WORSE}* worse than the baseline "
            f"(paired, p < {criteria.alpha:g} after Holm), {BETTER_FOUND}{WORSE_FOUND} as measured, but not shown",
            "● Pareto front of bias, accuracy, capability and calls; × dominated: another row is at least as good in "
            "all of these, and shown to be better in one; ○ not on the front, but not shown to be dominated",
            "Order: methods shown to lower bias without a shown loss, then those with one, then the others",
        ]
    )
