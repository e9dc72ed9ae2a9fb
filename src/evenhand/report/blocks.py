"""Blocks: small text tables that every view lays out in its own way."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from evenhand.core.records import Record, is_baseline
from evenhand.core.text_output import count, duration, number
from evenhand.report.cost import Cost
from evenhand.report.text import cell, counted, metric_name, shift
from evenhand.statistics.criteria import Criteria

CHANGES = {
    "became_right": "wrong → right",
    "became_wrong": "right → wrong",
    "changed_wrong": "wrong → other wrong",
    "decision_lost": "decided → undecided",
    "decision_gained": "undecided → decided",
}
CHANGES_MEAN = (
    "Answer changes: shares of all items; an answer that is unreadable or missing is undecided, not wrong "
    "(≤x: at most x, had the undecided ones changed that way)"
)
COST_MEANS = (
    "Cost: per item (more than the baseline). Time: wall clock for all items together by their number, at this "
    "batch size on this machine, not the wait for one alone; cached answers count with the time they first took"
)
COUNT = "n (clusters)"
DETECTABLE_MEANS = (
    "Smallest difference that would have been found: with 80 % power, at the first step of Holm's procedure, by a run "
    "of this size; * was found to differ"
)
ORDER = {"bias": 0, "validity": 1, "capability": 2}


class Block(NamedTuple):
    """One table."""

    title: str
    head: tuple[str, ...]
    rows: list[tuple[str, ...]]


def meanings(records: Sequence[Record], costs: Sequence[Cost]) -> list[str]:
    """Return the notes that belong below a view of these records and costs."""
    tested, changed = any(not math.isnan(r.detectable) for r in records), any(r.kind == "change" for r in records)
    return [DETECTABLE_MEANS] * tested + [CHANGES_MEAN] * changed + [COST_MEANS] * bool(costs)


def detectable_block(records: Sequence[Record], criteria: Criteria, group: str = "overall") -> list[Block]:
    """Tabulate how large a difference would have been found, for the main metrics that were not shown to differ.

    There is one row per method, for one model on one benchmark.
    """
    shown = [r for r in records if r.main and r.group == group and not math.isnan(r.detectable) and r.status == "ok"]
    there = {r.metric for r in shown}
    metrics = [m for m in dict.fromkeys(r.metric for r in records if r.main) if m in there]
    found = {(r.method, r.metric): "*" if criteria.significant(r) else number(r.detectable) for r in shown}
    methods = dict.fromkeys(r.method for r in shown)
    rows = [(method, *(found.get((method, m), "–") for m in metrics)) for method in methods]
    rows = [row for row in rows if any(text not in ("*", "–") for text in row[1:])]
    return (
        [Block("Smallest difference that would have been found", ("method", *map(metric_name, metrics)), rows)]
        if rows
        else []
    )


def spread_block(records: Sequence[Record], group: str = "overall") -> list[Block]:
    """Tabulate standard deviations between seeds (or samples) and wordings, for rows that are means of several."""
    spreads = ("between_seeds", "between_wordings")
    shown = [r for r in records if r.main and r.group == group and any(not math.isnan(getattr(r, s)) for s in spreads)]
    metrics = list(dict.fromkeys(r.metric for r in shown))
    found = {(r.method, r.metric): r for r in shown}
    rows = [
        (method, spread.replace("_", " "), *(_spread(found.get((method, m)), spread) for m in metrics))
        for method in dict.fromkeys(r.method for r in shown)
        for spread in spreads
    ]
    rows = [row for row in rows if set(row[2:]) != {"–"}]
    head = ("method", "standard deviation", *map(metric_name, metrics))
    return [Block("Spread between repetitions", head, rows)] if rows else []


def _spread(record: Record | None, field: str) -> str:
    return "–" if record is None else number(getattr(record, field))


def change_blocks(records: Sequence[Record], group: str | None = None) -> list[Block]:
    """Tabulate the answer changes of one model on one benchmark: one block per part, one row per method and group.

    Args:
        records: Records of that model and benchmark.
        group: Only this one; None takes all, and adds a column.
    """
    found = {(r.method, r.metric, r.group): r for r in records if r.kind == "change"}
    whole = "changed_wrong"  # no other metric's name begins with this
    parts = dict.fromkeys(name.removeprefix(whole) for _, name, _ in found if name.startswith(whole))
    blocks = []
    for part in parts:
        names = {name + part: words for name, words in CHANGES.items() if _seen(found, name, part)}
        rows = []
        for (method, metric, where), r in found.items():
            if metric == f"became_right{part}" and r.n and group in (None, where):
                cells = [_bounded(found, method, name, part, where) for name in names]
                rows.append((method, *([where] if group is None else []), count(r.n), *cells))
        head = ("method", *(["group"] if group is None else []), "n", *names.values())
        title = "Answer changes" + (f", {metric_name(part[1:])} items" if part else "")
        blocks.append(Block(title, head, rows if group else _once(rows)))
    return [b for b in blocks if b.rows]


def group_blocks(records: Sequence[Record], criteria: Criteria) -> list[Block]:
    """Tabulate the main metrics by group, for one model on one benchmark: the baseline's value and the method's.

    Bias and abstention are side by side, followed by capability; metrics of the same answers follow their number.
    """
    shown = [r for r in records if r.main and r.n]
    metrics = list(dict.fromkeys(r.metric for r in sorted(shown, key=lambda r: ORDER.get(r.kind, len(ORDER)))))
    methods = list(dict.fromkeys(r.method for r in shown))
    blocks = []
    for method in [m for m in methods if not is_baseline(m)] or methods:
        mine = {(r.group, r.metric): r for r in shown if r.method == method}
        groups = list(dict.fromkeys(g for g, _ in mine))
        columns = with_counts({m: [mine.get((g, m)) for g in groups] for m in metrics})
        rows = [(g, *(_text(mine.get((g, c.metric)), c, criteria) for c in columns)) for g in groups]
        blocks.append(Block(method, ("group", *(c.title for c in columns)), rows))
    return blocks


class Column(NamedTuple):
    """A metric, or the number of answers on which the following ones are based."""

    metric: str
    counts: bool = False

    @property
    def title(self) -> str:
        """Head of the column."""
        return COUNT if self.counts else metric_name(self.metric)


def with_counts(cells: Mapping[str, Sequence[Record | None]]) -> list[Column]:
    """Return the columns of a table: each metric, after a count if it rests on other answers than the previous one.

    Args:
        cells: Records of each metric, from top to bottom.
    """
    columns: list[Column] = []
    shown: list[str] = []
    for metric, records in cells.items():
        counts = ["" if r is None else counted(r) for r in records]
        if not columns or any(own and own != above for own, above in zip(counts, shown, strict=True)):
            columns.append(Column(metric, counts=True))
            shown = counts
        columns.append(Column(metric))
    return columns


def _text(record: Record | None, column: Column, criteria: Criteria) -> str:
    if record is None:
        return "–"
    return counted(record) if column.counts else shift(record, criteria)


def cost_block(costs: Sequence[Cost]) -> list[Block]:
    """Tabulate calls, tokens and time per item, for one model on one benchmark."""
    rows: list[tuple[str, ...]] = [
        (
            c.method,
            _more(c.calls, c.extra_calls, partial(number, decimals=2)),
            _more(c.prompt_tokens, c.extra_prompt_tokens, partial(number, decimals=1)),
            _more(c.new_tokens, c.extra_new_tokens, partial(number, decimals=1)),
            c.note or _more(c.seconds, c.extra_seconds, duration),
        )
        for c in costs
    ]
    return [Block("Cost", ("method", "calls", "prompt tokens", "new tokens", "time"), rows)] if rows else []


def _seen(found: dict[tuple[str, str, str], Record], name: str, part: str) -> bool:
    """Whether a column is shown; those about undecided answers are left out if there are none."""
    return not name.startswith("decision") or any(r.value > 0 for k, r in found.items() if k[1] == name + part)


def _bounded(found: dict[tuple[str, str, str], Record], method: str, name: str, part: str, group: str) -> str:
    record = found[method, name, group]
    most = found.get((method, f"{name.removesuffix(part)}_max{part}", group), record)
    return cell(record) + (f" (≤{number(most.value)})" if number(most.value) != number(record.value) else "")


def _once(rows: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Keep the method's name only in the first of its rows."""
    return [r if n == 0 or rows[n - 1][0] != r[0] else ("", *r[1:]) for n, r in enumerate(rows)]


def _more(value: float, extra: float, written: Callable[[float], str]) -> str:
    if math.isnan(value):
        return "–"
    if math.isnan(extra):
        return written(value)
    more = written(abs(extra))
    less = extra < 0 and more != written(0.0)  # never "-0.0"
    return f"{written(value)} ({'-' if less else '+'}{more})"
