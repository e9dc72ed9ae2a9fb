"""The leaderboard in a terminal and in a notebook. Names are inserted as plain text, so markup has no effect."""

from __future__ import annotations

from collections.abc import Iterator
from math import isnan

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from evenhand.core.records import is_baseline
from evenhand.core.rich_output import Harmless
from evenhand.core.sinks import in_html, one_line
from evenhand.core.text_output import number
from evenhand.report.board import COSTS, SHORT, Board, Cell, Column, Row, written
from evenhand.report.palette import JUDGED
from evenhand.report.text import DEMO_LABEL

WIDE = 120
"""Minimum width, in characters, of a terminal that shows every column."""
MARKS = {"front": "●", "dominated": "×", "undecided": "○", "": " "}
LEAST_NAME = 12
"""Minimum characters of a method's name."""


def rendered(board: Board, width: int) -> RenderableType:
    """Render one line per method, with four columns, or with all of them from 120 characters on.

    Args:
        board: The leaderboard.
        width: Characters of a line.
    """
    columns = [c for c in board.columns if width >= WIDE or c.key in SHORT]
    parts: list[RenderableType] = [Text(DEMO_LABEL, style="bold yellow")] if board.demo else []
    for model in board.models:
        rows = [row for row in board.rows if row.model == model]
        parts += [Text(one_line(model), style="bold"), _table(rows, columns, width), Text()]
    parts += [Text(f"missing: {one_line(line)}", style="yellow") for line in board.missing]
    if board.columns:
        parts += [Text(line, style="dim") for line in _legend(board, columns)]
    return Harmless(Group(*parts))


def as_html(board: Board) -> str:
    """Return a table of all columns for a notebook; every name is escaped."""
    heads = "".join(f"<th scope='col'>{in_html(c.title)}</th>" for c in board.columns)
    several = len(board.models) > 1
    model = "<th scope='col'>model</th>" * several
    lines = []
    for row in board.rows:
        name = f"{MARKS[row.pareto]} {row.method}"
        cells = "".join(f"<td title='{in_html(c.note)}'>{_html(c)}</td>" for c in _cells(row, board.columns))
        if _without_numbers(row):
            cells = f"<td colspan='{len(board.columns)}'>{in_html(f'{row.status}: {row.note}')}</td>"
        own = f"<td>{in_html(row.model)}</td>" * several
        lines.append(f"<tr>{own}<th scope='row' style='text-align:left'>{in_html(name)}</th>{cells}</tr>")
    label = f"<p><b>{DEMO_LABEL}</b></p>" * board.demo
    gaps = "".join(f"<p>missing: {in_html(line)}</p>" for line in board.missing)
    head = f"<thead><tr>{model}<th scope='col'>method</th>{heads}</tr></thead>"
    caption = f"<p style='max-width:75em;font-size:.88em'>{in_html(board.explained)}.</p>"
    return f"{label}<table>{head}<tbody>{''.join(lines)}</tbody></table>{gaps}{caption}"


def _html(cell: Cell) -> str:
    text = in_html(cell.text)
    return f"<b>{text}</b>" if cell.significant else text


def _cells(row: Row, columns: tuple[Column, ...]) -> Iterator[Cell]:
    return (row.cells[c.key] for c in columns)


def _table(rows: list[Row], columns: list[Column], width: int) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    texts = {c.key: [_short(row.cells[c.key], c) for row in rows if not _without_numbers(row)] for c in columns}
    heads = {c.key: _head(c) for c in columns}
    wide = {k: max([*map(len, heads[k].split("\n")), *map(len, found), 1]) for k, found in texts.items()}
    room = max(LEAST_NAME, width - sum(w + 1 for w in wide.values()) - 2)
    longest = max((len(_name(r)) for r in rows), default=LEAST_NAME)
    table.add_column("", width=1, no_wrap=True)
    table.add_column("method", width=min(room, max(longest, LEAST_NAME)), no_wrap=True)
    for column in columns:
        table.add_column(Text(heads[column.key]), width=wide[column.key], no_wrap=True, vertical="bottom")
    for row in rows:
        name = _fitted(_name(row), room)
        style = "dim" if is_baseline(row.method) else "bold" if row.pareto == "front" else ""
        if _without_numbers(row):
            table.add_row(Text(MARKS[row.pareto]), Text(name, style="dim"))
            continue
        cells = [Text(_short(row.cells[c.key], c), style=_colour(row.cells[c.key])) for c in columns]
        table.add_row(Text(MARKS[row.pareto]), Text(name, style=style), *cells)
    return table


def _name(row: Row) -> str:
    return one_line(row.method) + (f": {row.status}" if _without_numbers(row) else "")


def _without_numbers(row: Row) -> bool:
    return all(isnan(cell.value) for cell in row.cells.values())


def _colour(cell: Cell) -> str:
    return JUDGED[cell.better] if cell.significant else ""


def _head(column: Column) -> str:
    """Split a title into two short lines."""
    first, _, rest = column.title.partition(" ")
    return f"{first}\n{rest}" if rest else first


def _short(cell: Cell, column: Column) -> str:
    """Format a number with half of its interval's width, both with two decimals, and with arrow and star."""
    if isnan(cell.value):
        return "–"
    if column.key in COSTS:
        return written(column.key, cell.value)
    if column.key == "worst_group":
        return f"{number(cell.value, decimals=2)} {_fitted(one_line(cell.note), 14)}{cell.mark}"
    half = "" if isnan(cell.half_width) else f"±{number(cell.half_width, decimals=2).removeprefix('0')}"
    return f"{number(cell.value)}{half}{cell.mark}"


def _fitted(text: str, room: int) -> str:
    """Cut the middle out of a text that is too long, since specs differ at the end as often as at the beginning."""
    if len(text) <= room:
        return text
    end = room // 3
    return f"{text[: room - end - 1]}…{text[len(text) - end :]}"


def _legend(board: Board, shown: list[Column]) -> list[str]:
    more = len(board.columns) - len(shown)
    lines = [f"{line.removesuffix('.')}." for line in board.explained.split(". ")]
    return [*lines, *([f"{more} more columns from {WIDE} characters on."] if more else [])]
