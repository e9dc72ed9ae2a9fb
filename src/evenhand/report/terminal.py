"""The terminal view of a report: a table per model and benchmark, metrics down, methods across."""

from __future__ import annotations

import shlex

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from evenhand.core.records import is_baseline
from evenhand.core.rich_output import Harmless
from evenhand.core.sinks import one_line
from evenhand.report.analysis import Analysis
from evenhand.report.blocks import Block, Column, meanings
from evenhand.report.content import Content
from evenhand.report.text import ARROWS, ARROWS_MEAN, DEMO_LABEL, intervals_mean

ACROSS = 4
"""Maximum number of methods in one table, the baseline included; more go into further tables, as on a narrow
terminal."""
LABEL, CELL = 26, 25
"""Characters of the first column and of one with a value and its interval."""
COLUMNS = 3
"""Number of metrics in one table by group."""


class View:
    """All tables, then the verdicts. Names are inserted as plain text, so markup in them has no effect."""

    def __init__(self, report: Analysis, group: str = "overall") -> None:
        """Take what to show.

        Args:
            report: The report.
            group: Group to show; "all" shows the overall tables, then those by group.
        """
        self.report, self.group = report, group

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Show as many methods side by side as the terminal is wide; rich calls this."""
        fit = (options.max_width - LABEL) // CELL
        yield Harmless(_view(self.report, self.group, max(2, min(ACROSS, fit))))


class Summary:
    """The leaderboard, and what no number shows: rows without numbers, missing answers, and doubts."""

    def __init__(self, report: Analysis) -> None:
        """Take what to show."""
        self.report = report

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Show the leaderboard with the columns that fit; rich calls this."""
        board = self.report.leaderboard()
        yield board
        if self.report.demo and not board.rows:
            yield Text(DEMO_LABEL, style="bold yellow")
        failed = [v for v in self.report.verdicts() if v.text.startswith(("failed", "not applicable", "no effect"))]
        for v in [*failed, *self.report.untold()]:
            yield _plain(f"{v.model}, {v.method} on {v.benchmark}: ", "bold") + _plain(v.text)
        if self.report.folder is not None:
            yield Text(f"all tables: evenhand show {shlex.quote(str(self.report.folder))} --full", style="dim")


def _plain(text: str, style: str = "") -> Text:
    """Return a text with names or words of a model, in which nothing acts on a terminal."""
    return Text(one_line(text), style=style)


def _view(report: Analysis, group: str, across: int) -> RenderableType:
    parts: list[RenderableType] = [Text(DEMO_LABEL, style="bold yellow")] if report.demo else []
    if group in ("overall", "all") and report.numbers:
        parts = [report.leaderboard(), Text()]
    overall = "overall" if group == "all" else group
    for benchmark, metrics, lines in report.grids(overall):
        for model in dict.fromkeys(m for m, _ in lines):
            methods = {method: cells for (m, method), cells in lines.items() if m == model}
            for shown in _together(report, benchmark, model, list(methods), across):
                title = _plain(f"{model}   {benchmark}   {report.counts(benchmark)}", "bold")
                parts += [title, _table(metrics, {m: methods[m] for m in shown}, report), Text()]
            for block in report.sections(benchmark, model, overall):
                parts += _block(block, across)
            for block in report.by_group(benchmark, model) if group == "all" else ():
                parts += _block(block, across)
    for v in [*report.verdicts(), *report.untold()]:
        parts.append(_plain(f"{v.model}, {v.method} on {v.benchmark}: ", "bold") + _plain(v.text))
    said = [f"{intervals_mean(report.criteria)}; {ARROWS_MEAN}", *meanings(report.numbers, report.costs())]
    parts.append(Text(". ".join(said), style="dim"))
    return Group(*parts)


def _together(report: Content, benchmark: str, model: str, methods: list[str], across: int) -> list[list[str]]:
    """Group methods into tables, those of one baseline together with the baseline first."""
    base = {r.method: r.baseline for r in report.numbers if (r.benchmark, r.model) == (benchmark, model) and r.baseline}
    baselines = [m for m in methods if is_baseline(m)] or [""]
    tables = []
    for baseline in baselines:
        others = [m for m in methods if not is_baseline(m) and base.get(m, baselines[0]) == baseline]
        parts = [others[n : n + across - 1] for n in range(0, len(others), across - 1)]
        tables += [[baseline, *part] if baseline else part for part in parts or [[]] * (baseline != "")]
    return [t for t in tables if t]


def _block(block: Block, across: int) -> list[RenderableType]:
    """Show metrics downwards and methods across for one group; otherwise groups downwards, a few columns at a time."""
    if block.head[0] == "group":
        starts = range(1, len(block.head), COLUMNS)
        pieces = [[(row[0], *row[n : n + COLUMNS]) for row in (block.head, *block.rows)] for n in starts]
    elif "group" not in block.head:
        starts = range(0, len(block.rows), across)
        pieces = [_turned([block.head, *block.rows[n : n + across]]) for n in starts]
    else:
        pieces = [[block.head, *block.rows]]
    parts: list[RenderableType] = []
    for head, *rows in pieces:
        table = Table(box=None, header_style="bold", pad_edge=False)
        for name in head:
            table.add_column(_plain(name), overflow="fold", no_wrap=name == "group")
        for row in rows:
            table.add_row(*(_plain(c.replace(" → ", "→")) for c in row))
        parts += [_plain(block.title, "bold"), table, Text()]
    return parts


def _turned(rows: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Return rows across and columns downwards, as in the main table."""
    return [("", *(row[0] for row in rows[1:])), *list(zip(*rows, strict=True))[1:]]


def _table(metrics: list[Column], methods: dict[str, list[str]], report: Content) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("")
    for method in methods:
        table.add_column(_plain(method), overflow="fold")
    arrows = {r.metric: ARROWS[r.direction] for r in report.numbers}
    for n, metric in enumerate(metrics):
        style = "dim" if metric.counts else ""
        name = _plain(metric.title, style) + Text("" if metric.counts else f" {arrows[metric.metric]}", style="dim")
        table.add_row(name, *[_plain(c[n], style) for c in methods.values()])
    if not metrics:
        table.add_row(Text("no numbers"), *[Text("") for _ in methods])
    return table
