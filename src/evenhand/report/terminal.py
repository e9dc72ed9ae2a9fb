"""The terminal view of a report: a table per model and benchmark, metrics down, methods across."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from evenhand.report.text import ARROWS, ARROWS_MEAN, DEMO_LABEL, INTERVALS, metric_name

if TYPE_CHECKING:
    from evenhand.report.report import Report

ACROSS = 3
"""Methods beside the untouched model in one table; more go into further tables."""


def render(report: Report) -> RenderableType:
    """All tables, then the verdicts. Names are put in as plain text, so that no markup in them acts."""
    parts: list[RenderableType] = [Text(DEMO_LABEL, style="bold yellow")] if report.demo else []
    for benchmark, metrics, lines in report.grids():
        for model in dict.fromkeys(m for m, _ in lines):
            methods = {method: cells for (m, method), cells in lines.items() if m == model}
            others = [m for m in methods if m != "none"]
            for start in range(0, max(1, len(others)), ACROSS):
                shown = [m for m in methods if m == "none"] + others[start : start + ACROSS]
                title = Text(f"{model}   {benchmark}   {report.counts(benchmark)}", style="bold")
                parts += [title, _table(metrics, {m: methods[m] for m in shown}, report), Text()]
    for v in report.verdicts():
        parts.append(Text(f"{v.model}, {v.method}: ", style="bold") + Text(v.text))
    parts.append(Text(f"{INTERVALS}; {ARROWS_MEAN}", style="dim"))
    return Group(*parts)


def _table(metrics: list[str], methods: dict[str, list[str]], report: Report) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("")
    for method in methods:
        table.add_column(Text(method), overflow="fold")
    arrows = {r.metric: ARROWS[r.direction] for r in report.records}
    for n, metric in enumerate(metrics):
        name = Text(metric_name(metric)) + Text(f" {arrows[metric]}", style="dim")
        table.add_row(name, *[Text(c[n]) for c in methods.values()])
    if not metrics:
        table.add_row(Text("no numbers"), *[Text("") for _ in methods])
    return table
