"""Removal of questions that any row refused, so that all rows of a table are about the same questions.

Gallegos et al. 2025 (arXiv 2402.01981) leave a question out if the model refuses it under any approach. A refusal is
a question without a decision: the reply names no option, or there is no reply.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from evenhand.evaluation.metrics.unanswered import outcome
from evenhand.experiment.cells import Cell
from evenhand.interfaces import Choice


@dataclass(frozen=True)
class Refused:
    """Questions left out of one model's answers to one benchmark."""

    model: str
    benchmark: str
    items: int
    """Questions that are left out of all rows."""
    asked: int
    by_row: Mapping[str, int]
    """Number of refusals by row; for a repeated row, of all repetitions together."""


def drop_refused(cells: Sequence[Cell], items: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Leave out of every cell the questions that any cell of the same model and benchmark refused.

    Rows without numbers do not count, and benchmarks that ask no multiple-choice questions keep all their items.

    Args:
        cells: All cells; those with numbers are tallied again.
        items: The items that were asked, by the benchmark's specification.

    Returns:
        The facts for the manifest, one `Refused` per model and benchmark with refusals.
    """
    sides: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        if cell.tally is not None and cell.benchmark.answer_type is Choice:
            sides.setdefault((cell.model, cell.benchmark.spec), []).append(cell)
    found = []
    for (model, benchmark), mine in sides.items():
        asked = items[benchmark]
        places = [_refused(cell) for cell in mine]
        refused = set().union(*places)
        if not refused:
            continue
        by_row: dict[str, int] = {}
        for cell, own in zip(mine, places, strict=True):
            by_row[cell.row] = by_row.get(cell.row, 0) + len(own)
            _keep(cell, asked, [n for n in range(len(asked)) if n not in refused])
        found.append(asdict(Refused(model, benchmark, len(refused), len(asked), by_row)))
    return found


def _refused(cell: Cell) -> set[int]:
    return {n for n, answer in enumerate(cell.answers) if outcome(answer).status != "answered"}


def _keep(cell: Cell, asked: Sequence[Any], kept: Sequence[int]) -> None:
    """Tally a cell over some of its items."""
    left_out = len(asked) - len(kept)
    if not kept:
        cell.fail(f"drop_refused: each of the {left_out:,} questions was refused by some row")
        return
    cell.finish([asked[n] for n in kept], [cell.answers[n] for n in kept])
    said = f"without {left_out:,} of {len(asked):,} questions, which some row refused"
    cell.remark = "; ".join(filter(None, (cell.remark, said)))
