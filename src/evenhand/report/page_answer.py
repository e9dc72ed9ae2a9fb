"""The short answer: for each model, the method with the least bias, its price, and the groups on which it got worse."""

from __future__ import annotations

from collections.abc import Iterator
from math import isnan
from typing import NamedTuple

from evenhand.core.text_output import number
from evenhand.report.board import written
from evenhand.report.leaderboard import Cell, Column, GroupLoss, Leaderboard, Row
from evenhand.report.pareto import badness
from evenhand.report.text import metric_name
from evenhand.report.verdict import turned_wrong

PRICES = ("capability", "disambiguated_accuracy", "right_to_wrong", "calls", "seconds")
"""Columns that show the price of lower bias."""
QUALITY = ("capability", "disambiguated_accuracy")
MAX_LOSSES = 3


class Finding(NamedTuple):
    """What a reader should know first about one method."""

    model: str
    method: str
    """"" where no method is shown to lower bias."""
    claim: str
    prices: tuple[str, ...] = ()
    """Changes that come with it, one phrase per column; starred if a test shows the change."""
    losses: tuple[GroupLoss, ...] = ()
    """Groups on which it is worse than its baseline, the clearest first."""
    more: int = 0
    """Number of further such groups."""


def findings(board: Leaderboard) -> list[Finding]:
    """Find, per model, the method with the least bias not shown to lose ability, and one with less bias that is.

    Args:
        board: The leaderboard. Only methods that are shown to have less bias than their baseline are named.
    """
    return [found for model in board.models for found in _of_model(board, model)]


def _of_model(board: Leaderboard, model: str) -> Iterator[Finding]:
    bias = board.column("bias")
    rows = [row for row in board.rows if row.model == model and row.rank is not None]
    if bias is None or not rows:
        return
    fairer = sorted((row for row in rows if _shown(row.cells["bias"], True)), key=lambda row: row.rank or 0)
    if not fairer:
        yield Finding(model, "", f"no method is shown to lower {bias.title}")
        return
    least = min(fairer, key=lambda row: _size(bias, row))
    kept = [row for row in fairer if not _loses(row)]
    if not kept:
        yield _finding(board, least, f"has the least {bias.title}, and is shown to lose ability, as all that lower it")
        return
    best = min(kept, key=lambda row: _size(bias, row))
    alone = (
        "has the least" if best is least else "is best: of the methods that are not shown to lose ability, the least"
    )
    yield _finding(board, best, f"{alone} {bias.title}")
    if best is not least:
        yield _finding(board, least, f"has still less {bias.title}, and is shown to lose ability")


def _size(bias: Column, row: Row) -> float:
    """Return how much bias a row has, in the metric's own direction."""
    return badness(row.cells["bias"].value, bias.direction)


def _shown(cell: Cell | None, better: bool) -> bool:
    return cell is not None and cell.significant and cell.better is better


def _loses(row: Row) -> bool:
    return any(_shown(row.cells.get(key), False) for key in QUALITY)


def _finding(board: Leaderboard, row: Row, claim: str) -> Finding:
    base = next((r for r in board.rows if (r.model, r.method) == (row.model, row.baseline)), None)
    bias = board.column("bias")
    moved = "" if bias is None else _moved(row.cells["bias"], base, bias)
    prices = [phrase for c in board.columns if c.key in PRICES and (phrase := _price(row, base, c))]
    losses, more = row.got_worse[:MAX_LOSSES], max(0, len(row.got_worse) - MAX_LOSSES)
    return Finding(row.model, row.method, f"{claim} ({moved})", tuple(prices), losses, more)


def _price(row: Row, base: Row | None, column: Column) -> str:
    cell = row.cells.get(column.key)
    if cell is None or isnan(cell.value):
        return ""
    if column.key == "right_to_wrong":
        return turned_wrong(column.metric, cell.value)
    unit = {"calls": "calls per item", "seconds": "per item"}.get(column.key, "")
    moved = _moved(cell, base, column)
    return f"{moved} {unit}".strip() if unit else f"{column.title} {moved}"


def _moved(cell: Cell, base: Row | None, column: Column) -> str:
    """Show the baseline's value and this one, with a star if they are shown to differ."""
    own = written(column.key, cell.value)
    before = NO_VALUE if base is None else base.cells.get(column.key, NO_VALUE)
    star = "*" if cell.significant else ""
    return own + star if isnan(before.value) else f"{written(column.key, before.value)} → {own}{star}"


NO_VALUE = Cell()


def told(loss: GroupLoss) -> str:
    """Describe a group on which a method is worse."""
    star = "*" if loss.significant else ""
    return f"{loss.group} ({metric_name(loss.metric)} {number(loss.before)} → {number(loss.after)}{star})"
