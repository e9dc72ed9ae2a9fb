"""A spillover matrix in a terminal and in a notebook. Names are inserted as plain text, so markup has no effect."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from evenhand.core.rich_output import Harmless
from evenhand.core.sinks import in_html, one_line
from evenhand.report.palette import JUDGED
from evenhand.report.spillover_parts import ALL, Effect, Fitted, Measured, SpilloverMatrix, plain_model
from evenhand.report.text import DEMO_LABEL, metric_name

CELL = 17
"""Characters of a cell, which fit an interval of two signed numbers."""
MOST_NAME = 26
BEST = {"zero": "nearer 0", "lower": "lower", "higher": "higher"}
"""What "better" means, by a metric's direction."""
TINTS = {True: "#e3f1e3", False: "#f8e2e0", None: ""}
"""Background colours of cells that a test shows to be better or worse."""


def rendered(found: SpilloverMatrix, width: int) -> RenderableType:
    """Render a line per measured axis and a column per axis that a method was fitted on; in pieces if it is wide.

    Args:
        found: The matrix.
        width: Characters of a line.
    """
    parts: list[RenderableType] = [Text(DEMO_LABEL, style="bold yellow")] if found.demo else []
    names = _row_names(found)
    longest = max((len(_measured(found, c)) for c in found.columns), default=0)
    room = max(1, (width - min(longest, MOST_NAME) - 1) // (CELL + 1))
    for start in range(0, len(found.rows), room):
        parts += [_table(found, found.rows[start : start + room], names), Text()]
    parts += [Text(one_line(line)) for line in _lines(found)]
    parts.append(Text(one_line(_legend(found)), style="dim"))
    return Harmless(Group(*parts))


def _table(found: SpilloverMatrix, rows: Sequence[Fitted], names: dict[Fitted, str]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("measured on", max_width=MOST_NAME, overflow="fold")
    for row in rows:
        table.add_column(Text(one_line(names[row])), width=CELL, overflow="fold")
    for column in found.columns:
        cells = [_cell(found.cells.get((row, column))) for row in rows]
        table.add_row(Text(one_line(_measured(found, column))), *cells)
    return table


def _cell(effect: Effect | None) -> Text:
    if effect is None:
        return Text("")
    text = Text("\n".join(filter(None, effect.lines)), style=JUDGED[effect.better] if effect.shown else "")
    return text if not effect.targeted else Text.assemble(text, style="underline")


def _row_names(found: SpilloverMatrix) -> dict[Fitted, str]:
    """Name each row by its axis, and by whatever else distinguishes the rows."""
    models, methods = {plain_model(r.model) for r in found.rows}, {r.method for r in found.rows}
    named = {}
    for row in found.rows:
        more = [row.method] * (len(methods) > 1) + [plain_model(row.model)] * (len(models) > 1)
        named[row] = ", ".join([f"on {row.axis or ALL}", *more])
    return named


def _measured(found: SpilloverMatrix, column: Measured) -> str:
    several = len({c.benchmark for c in found.columns}) > 1
    benchmark = column.benchmark.partition("(")[0]
    specs = {c.benchmark for c in found.columns if c.benchmark.partition("(")[0] == benchmark}
    shown = benchmark if len(specs) == 1 else column.benchmark
    return " ".join(filter(None, [shown if several or not column.axis else "", column.axis]))


def as_html(found: SpilloverMatrix) -> str:
    """Return the matrix for a notebook; every name is escaped."""
    names = _row_names(found)
    heads = "".join(f"<th scope='col'>{in_html(names[row])}</th>" for row in found.rows)
    lines = []
    for column in found.columns:
        cells = "".join(_html(found.cells.get((row, column))) for row in found.rows)
        lines.append(
            f"<tr><th scope='row' style='text-align:left'>{in_html(_measured(found, column))}</th>{cells}</tr>"
        )
    label = f"<p><b>{DEMO_LABEL}</b></p>" * found.demo
    table = f"<table><thead><tr><th scope='col'>measured on</th>{heads}</tr></thead><tbody>{''.join(lines)}</tbody>"
    said = "".join(f"<p>{in_html(line)}</p>" for line in _lines(found))
    notes = f"{said}<p style='font-size:.88em'>{in_html(_legend(found))}</p>"
    return f"{label}{table}</table>{notes}"


def _html(effect: Effect | None) -> str:
    if effect is None:
        return "<td></td>"
    tint = TINTS[effect.better] if effect.shown else ""
    styles = [f"background:{tint}"] * bool(tint) + ["outline:2px solid #888", "outline-offset:-2px"] * effect.targeted
    text = "<br>".join(in_html(line) for line in effect.lines if line)
    return f"<td style='{';'.join(styles)}'>{text}</td>" if styles else f"<td>{text}</td>"


def _lines(found: SpilloverMatrix) -> list[str]:
    return [found.summary(), *found.notes()]


def _legend(found: SpilloverMatrix) -> str:
    measured = ", ".join(dict.fromkeys(metric_name(c.metric) for c in found.columns))
    criteria = found.criteria
    ways = {BEST.get(effect.record.direction, "") for effect in found.cells.values()}
    better = f"better ({ways.pop()})" if len(ways) == 1 else "better"
    return (
        f"{measured}: after minus before on the same items, [ ] {criteria.level:g} % interval, paired by cluster; ▲ "
        f"{better}, ▼ worse, △ ▽ as measured only; * p < {criteria.alpha:g} after Holm's adjustment over the whole "
        "matrix; underlined or framed: the axis that the method was fitted on. The count's interval: one-sided tests "
        "of the gains with Holm's adjustment, valid whatever the cells have in common"
    )
