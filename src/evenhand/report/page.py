"""The decision page: one HTML file that needs no network, with the leaderboard first and an item that proves it last.

Texts of models, data and plugins are escaped where they enter the page: Jinja escapes what goes into its tables, facts
for the script are JSON without a "<", and items are compressed. A content security policy lets nothing run but the
page's own script and the libraries that it unpacks, and lets nothing be requested.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import isfinite
from typing import Any, NamedTuple

from evenhand.core.records import WORST_GROUP
from evenhand.core.text_output import count, interval, number
from evenhand.report import page_libraries
from evenhand.report.analysis import Analysis
from evenhand.report.answers import NOT_KEPT
from evenhand.report.board import written
from evenhand.report.changes import DIRECTIONS
from evenhand.report.heat import HeatMap
from evenhand.report.leaderboard import Cell, Leaderboard
from evenhand.report.page_answer import findings, told
from evenhand.report.page_items import Compared, compared, rows_of, shelves
from evenhand.report.provenance import Section
from evenhand.statistics.criteria import FAMILIES

NO_ITEMS = "No method has changed an answer."
PARTS = ("ambiguous", "disambiguated")
"""Parts that metrics are named after."""
WARM, COLD = (230, 120, 40), (60, 130, 200)
"""Colours of the heat map's ends: on one side of 0, and on the other or where nothing is signed."""


def context(analysis: Analysis, rests_on: Sequence[Section], items: Sequence[Compared] | None = None) -> dict[str, Any]:
    """What the page's template needs beyond the tables of every report.

    Args:
        analysis: The report.
        rests_on: Provenance of its numbers.
        items: What its methods changed; None reads that from the answers.
    """
    board, heats = analysis.leaderboard(), heat_maps(analysis)
    cells = analysis.cells()
    kept = shelves(compared(cells), len(rows_of(cells))) if items is None else shelves(items, len(items))
    charts = _charts(analysis)
    script = page_libraries.static("page.js")
    facts = {"charts": {id_: f"chart-{id_}" for id_ in charts}, "changes": kept.cells, "directions": DIRECTIONS}
    libraries = {"tables-library": page_libraries.tables_library()}
    if charts:
        libraries["charts-library"] = page_libraries.charts_library()
    return {
        "board": board,
        "board_rows": _board(board),
        "changed": {(cell["model"], cell["method"], cell["benchmark"]) for cell in kept.cells},
        "charts": list(charts),
        "facts": in_script(facts),
        "family": FAMILIES[analysis.criteria.family],
        "findings": findings(board),
        "heats": [(heat, heat_rows(heat)) for heat in heats],
        "items": kept.cells,
        "level": f"{board.level:g}",
        "no_items": NO_ITEMS if cells else NOT_KEPT,
        "part_of": part_of,
        "packs": {
            **libraries,
            **{f"chart-{id_}": page_libraries.packed(spec) for id_, spec in charts.items()},
            **kept.packs,
        },
        "policy": policy(script),
        "rests_on": rests_on,
        "script": script,
        "style": page_libraries.static("page.css"),
        "told": told,
    }


def part_of(metric: str) -> str:
    """The part of a benchmark that a metric is of, as items name it; "" where it is of all, or of another kind.

    Args:
        metric: Such as "became_wrong_disambiguated".
    """
    last = metric.rpartition("_")[2]
    return last if last in PARTS else ""


def heat_maps(analysis: Analysis) -> list[HeatMap]:
    """Return a heat map per main metric of bias or capability with several groups, those of bias first."""
    shown = [r for r in analysis.numbers if r.main and r.kind in ("bias", "capability") and r.direction != "none"]
    shown = [r for r in shown if r.group not in ("overall", WORST_GROUP) and r.n]
    names = dict.fromkeys((r.kind, f"{r.benchmark}:{r.metric}") for r in shown)
    return [analysis.heat(name) for _, name in sorted(names, key=lambda named: named[0])]


def in_script(value: Any) -> str:
    """Return JSON for a script element: without "<", nothing in it ends the element or opens a comment."""
    return json.dumps(value, ensure_ascii=False).replace("<", "\\u003c").encode("utf-8", "backslashreplace").decode()


def policy(script: str) -> str:
    """Return the content security policy of a page with this script: no requests, and no other script."""
    return (
        f"default-src 'none'; script-src {page_libraries.digest(script)} blob:; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


class BoardCell(NamedTuple):
    """A cell of the leaderboard as the page writes it."""

    order: str
    """Sort key; "" puts it last."""
    text: str
    style: str
    """"better" or "worse" if significant, else ""."""
    below: tuple[str, ...]


def board_cell(key: str, cell: Cell | None) -> BoardCell:
    """Return a cell of the leaderboard with its half-width, arrow and star.

    Args:
        key: Key of its column.
        cell: The cell; None if the row has no such number.
    """
    if cell is None or cell.value != cell.value:
        return BoardCell("", "–", "", tuple(filter(None, [cell.note if cell else ""])))
    found = {True: "better", False: "worse", None: ""}[cell.better] if cell.significant else ""
    half = "" if cell.half_width != cell.half_width else f"± {written(key, cell.half_width)}"
    text = f"{written(key, cell.value)} {cell.mark}".rstrip()
    return BoardCell(repr(float(cell.value)), text, found, tuple(filter(None, [half, cell.note])))


def _board(board: Leaderboard) -> list[tuple[Any, list[tuple[Any, BoardCell]]]]:
    return [(row, [(c, board_cell(c.key, row.cells.get(c.key))) for c in board.columns]) for row in board.rows]


class HeatEntry(NamedTuple):
    """A cell of the heat map as the page writes it."""

    text: str
    below: str
    colour: str
    """Background colour; "" if there is no value."""
    worse: bool
    """Whether the value is worse than its baseline's, as measured."""


def heat_rows(heat: HeatMap) -> list[tuple[str, list[HeatEntry]]]:
    """Return a heat map as rows of groups, with a cell per model and method."""
    largest = max((abs(c.value) for c in heat.cells.values() if c.value == c.value), default=0.0) or 1.0
    return [
        (group, [_heat_entry(heat, (model, method, group), largest) for model, method in heat.rows])
        for group in heat.groups
    ]


def _heat_entry(heat: HeatMap, key: tuple[str, str, str], largest: float) -> HeatEntry:
    cell = heat.cells.get(key)
    if cell is None or cell.value != cell.value:
        return HeatEntry("–", "", "", False)
    signed = heat.direction == "zero" or cell.value < 0
    warm = WARM if signed and cell.value > 0 else COLD
    share = 0.75 * min(1.0, abs(cell.value) / largest)
    red, green, blue = (round(255 + (c - 255) * share) for c in warm)
    star = "*" if cell.significant else ""
    below = f"{interval(cell.low, cell.high)} n={count(cell.n)}".lstrip()
    return HeatEntry(number(cell.value) + star, below, f"rgb({red} {green} {blue})", cell.better is False)


def _charts(analysis: Analysis) -> dict[str, Any]:
    """Return Vega-Lite specifications by the id that they have in the page; they are as wide as the page allows."""
    if not any(isfinite(p.bias) and isfinite(p.capability) for p in analysis.pareto()):
        return {}
    chart = analysis.pareto_chart().properties(width="container", background="transparent")
    return {"pareto": chart.to_dict()}
