"""GPQA (Rein et al. 2023, arXiv 2311.12022): gated rows, read from the user's files or the hub with the user's token.

The authors ask that no example be put in plain text where it could be crawled. So nothing here writes, and neither
messages nor facts hold any text of a cell: rows are named by file, line, column and Record ID only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from evenhand.core.hashing import bytes_hash, text_hash
from evenhand.data.io import locate
from evenhand.data.io.content import read_bytes
from evenhand.data.io.csv import read_csv, refuse_twice
from evenhand.data.io.demo import demo_folder
from evenhand.data.io.rows import one_line_end
from evenhand.errors import DataError

DATASET = locate.Dataset(
    name="gpqa",
    hub="Idavidrein/gpqa",
    revision="main",
    patterns=("gpqa_*.csv",),
    licence="CC-BY-4.0",
    home="github.com/idavidrein/gpqa",
    gated=True,
)
Subset = Literal["diamond", "main", "extended"]
ROWS = {"diamond": 198, "main": 448, "extended": 546}
"""Rows of the official files."""
ANSWERS = ("Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")
NEEDED = ("Question", *ANSWERS)


@dataclass(frozen=True, slots=True)
class Row:
    """One question; its texts are left out of `repr`, which logs and tracebacks print."""

    id: str
    """Record ID, or a hash of the question where there is none."""
    domain: str
    """High-level domain, or "unstated"."""
    question: str = field(repr=False)
    answers: tuple[str, str, str, str] = field(repr=False)
    """The right one first."""


class Loaded(NamedTuple):
    """Rows in file order, and what a report says of them."""

    rows: list[Row]
    facts: dict[str, Any]


def load(source: str, subset: Subset = "main") -> Loaded:
    """Read one of GPQA's files.

    Args:
        source: "auto", "hub", "hub:NAME", "demo", a folder with gpqa_<subset>.csv, or a csv file.
        subset: Which file; it must be in a file's name where a file is named gpqa_<...>.csv.

    Returns:
        Usable rows; the others are listed in `facts["dropped"]` by file, line and column.

    Raises:
        DataError: There is no such file, a column is missing, or no row is usable.
    """
    demo = source == "demo"
    path = demo_folder("gpqa") if demo else locate.locate(DATASET, source)
    file = _file(path, subset)
    problems = locate.Problems()
    content = read_bytes(file)
    rows = _rows(file, content, problems)
    if not rows:
        raise DataError(f"{file} holds no usable GPQA row{problems.first}")
    notes = []
    if not demo and len(rows) != ROWS[subset]:
        notes = [f"{len(rows)} usable rows; the official gpqa_{subset}.csv has {ROWS[subset]}"]
    facts = {
        "source": "demo: the proving ground's facts, not GPQA" if demo else str(file),
        "subset": subset,
        "rows": len(rows),
        "sha256": bytes_hash(content),
        "dropped": problems.lines,
        "notes": notes,
    }
    return Loaded(rows, facts)


def _file(path: Path, subset: str) -> Path:
    name = f"gpqa_{subset}.csv"
    if path.is_file():
        if path.stem.startswith("gpqa_") and path.name != name:
            raise DataError(f"{path} is not {name}; name the subset that it is: gpqa(subset={path.stem[5:]})")
        return path
    for folder in (path, path / "dataset"):
        if (folder / name).is_file():
            return folder / name
    there = ", ".join(sorted(f.name for f in path.glob("*.csv"))) or "no csv file"
    raise DataError(f"there is no {name} in {path}, which holds {there}. {locate.how_to_get(DATASET)}")


def _rows(file: Path, content: bytes, problems: locate.Problems) -> list[Row]:
    lines = read_csv(file, content, problems)
    _, head = next(lines, (1, []))
    if not head:
        return []
    head = [name.strip() for name in head]
    missing = [name for name in NEEDED if name not in head]
    if missing:
        raise DataError(f"{file}:1: column {missing[0]!r} is missing; GPQA's files have {', '.join(NEEDED)}")
    refuse_twice(file, head, (*NEEDED, "Record ID", "High-level domain"))
    rows: list[Row] = []
    seen: set[str] = set()
    for line, cells in lines:
        if len(cells) != len(head):
            problems.add(file, line, f"{len(cells)} columns; the first line has {len(head)}")
            continue
        # blanks around one option alone would show which is the right one
        row = {name: one_line_end(cell).strip() for name, cell in zip(head, cells, strict=True)}
        empty = [name for name in NEEDED if not row[name]]
        name = row.get("Record ID") or text_hash(row["Question"])[:16]
        if empty:
            problems.add(file, line, f"column {empty[0]!r} is empty")
        elif name in seen:
            problems.add(file, line, f"Record ID {name} occurs twice")
        else:
            seen.add(name)
            correct, *wrong = (row[a] for a in ANSWERS)
            domain = row.get("High-level domain") or "unstated"
            rows.append(Row(name, domain, row["Question"], (correct, wrong[0], wrong[1], wrong[2])))
    return rows
