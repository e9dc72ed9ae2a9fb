"""Show differences in a terminal and in a notebook. Names are plain text, so markup in them has no effect."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from evenhand.core.records import Record
from evenhand.core.rich_output import Harmless
from evenhand.core.sinks import in_html, one_line
from evenhand.core.text_output import count, interval, number
from evenhand.report.difference_parts import Differing, Pair
from evenhand.report.text import headed, metric_name
from evenhand.statistics.criteria import Criteria

HEADS = ("metric", "before", "after", "difference")


def rendered(found: Differing) -> RenderableType:
    """Return a table per pair, then what could not be compared."""
    parts: list[RenderableType] = []
    for pair in found.pairs:
        parts.append(Text(one_line(f"{pair.title}   {pair.benchmark}   {count(pair.items)} items"), style="bold"))
        table = Table(box=None, header_style="bold", pad_edge=False)
        for head in HEADS:
            table.add_column(head)
        for cells in _lines(pair, found.criteria):
            table.add_row(*map(Text, cells))
        parts += [table, *(Text(one_line(note), style="yellow") for note in pair.notes), Text()]
    for refusal in found.refused:
        text = f"not compared: {refusal.what} on {refusal.benchmark}: {refusal.reason}"
        parts.append(Text(one_line(text), style="yellow"))
    parts.append(Text(_legend(found), style="dim"))
    return Harmless(Group(*parts))


def as_html(found: Differing) -> str:
    """Return the tables for a notebook, with every name escaped."""
    parts = []
    for pair in found.pairs:
        heads = "".join(f"<th scope='col'>{head}</th>" for head in HEADS)
        rows = ["".join(f"<td>{in_html(cell)}</td>" for cell in cells) for cells in _lines(pair, found.criteria)]
        lines = "".join(f"<tr>{row}</tr>" for row in rows)
        caption = f"<caption>{in_html(pair.title)}, {in_html(pair.benchmark)}, {count(pair.items)} items</caption>"
        parts.append(f"<table>{caption}<thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table>")
        parts += [f"<p>{in_html(note)}</p>" for note in pair.notes]
    parts += [
        f"<p>not compared: {in_html(r.what)} on {in_html(r.benchmark)}: {in_html(r.reason)}</p>" for r in found.refused
    ]
    return "".join([*parts, f"<p>{in_html(_legend(found))}</p>"])


def _lines(pair: Pair, criteria: Criteria) -> list[tuple[str, ...]]:
    shown = [r for r in pair.records if r.main and r.group == "overall"]
    changed = [r for r in pair.records if r.kind == "change" and r.group == "overall" and r.n]
    changed = [r for r in changed if r.metric.startswith(("became_right", "became_wrong")) and "_max" not in r.metric]
    return [_line(r, criteria) for r in shown] + [_share(r) for r in changed]


def _line(r: Record, criteria: Criteria) -> tuple[str, ...]:
    ends = interval(r.difference_low, r.difference_high, signed=True)
    star = " *" if criteria.significant(r) else ""
    name = headed(metric_name(r.metric), r.direction)
    change = f"{number(r.difference, signed=True)} {ends}".rstrip() + star
    return name, number(r.value - r.difference), number(r.value), change


def _share(r: Record) -> tuple[str, ...]:
    return metric_name(r.metric), "", "", f"{number(r.value)} {interval(r.low, r.high)} of items"


def _legend(found: Differing) -> str:
    criteria = found.criteria
    return (
        f"after minus before on the items that both answered; [ ] {criteria.level:g} % interval, paired by cluster; "
        f"* shown to differ (p < {criteria.alpha:g}, Holm-adjusted over all pairs)"
    )
