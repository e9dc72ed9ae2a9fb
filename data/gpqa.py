"""GPQA (Rein et al. 2023, arXiv 2311.12022): gated rows, read from the user's files or the hub with the user's token.

The authors ask that no example be put in plain text where it could be crawled. So nothing here writes, and neither
messages nor facts hold any text of a cell: rows are named by file, line, column and Record ID only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from evenhand.core.hashing import bytes_hash, text_hash
from evenhand.data import gpqa_layouts
from evenhand.data.io import layouts, locate, on_disk
from evenhand.data.io.content import read_bytes
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
OPTIONAL = ("Record ID", "High-level domain")


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
    """Rows in file order, and their facts for a report."""

    rows: list[Row]
    facts: dict[str, Any]


def load(source: str, subset: Subset = "main") -> Loaded:
    """Read one of GPQA's files.

    Args:
        source: "auto", "hub", "hub:NAME", "demo", a folder with gpqa_<subset>.csv (or a table of that name in
            another form, or in a folder of that name), or a file.
        subset: Which file; it must be in the name of a file that is called gpqa_<...>.

    Returns:
        Usable rows; the others are listed in `facts["dropped"]` by file, line and column.

    Raises:
        DataError: There is no such file, a column is missing, or no row is usable.
    """
    demo = source == "demo"
    path = demo_folder("gpqa") if demo else locate.locate(DATASET, source)
    contents = {file: read_bytes(file, empty=True) for file in _files(path, subset)}
    problems = locate.Problems()
    rows = _rows(contents, problems)
    place = next(iter(contents)) if len(contents) == 1 else path
    if not rows:
        raise DataError(f"{place} holds no usable GPQA row{problems.first}")
    notes = gpqa_layouts.unread(path, list(contents), subset)
    if not demo and len(rows) != ROWS[subset]:
        notes = [*notes, f"{len(rows)} usable rows; the official gpqa_{subset}.csv has {ROWS[subset]}"]
    facts = {
        "source": "demo: the proving ground's facts, not GPQA" if demo else str(place),
        "subset": subset,
        "rows": len(rows),
        "sha256": bytes_hash(*contents.values()),
        "dropped": problems.lines,
        "notes": notes,
    }
    return Loaded(rows, facts)


def _files(path: Path, subset: str) -> list[Path]:
    name = f"gpqa_{subset}.csv"
    if path.is_file() and (named := gpqa_layouts.subset_of(path)) not in ("", subset):
        raise DataError(f"{path} is not {name}; name the subset that it is: gpqa(subset={named})")
    if found := gpqa_layouts.find(path, subset):
        return found
    there = on_disk.few(file.name for file in layouts.other_tables(path, (), gpqa_layouts.KINDS)[:3]) or "no table"
    raise DataError(f"there is no {name} in {path}, which holds {there}. {locate.how_to_get(DATASET)}")


def _rows(contents: Mapping[Path, bytes], problems: locate.Problems) -> list[Row]:
    rows: dict[str, Row] = {}
    for file, content in contents.items():
        for line, cells in gpqa_layouts.read(file, content, NEEDED, OPTIONAL, problems):
            # blanks around one option alone would show which is the right one
            row = {name: one_line_end(cell).strip() for name, cell in cells.items()}
            empty = [name for name in NEEDED if not row[name]]
            name = row.get("Record ID") or text_hash(row["Question"])[:16]
            if empty:
                problems.add(file, line, f"column {empty[0]!r} is empty")
            elif name in rows:
                problems.add(file, line, f"Record ID {name} occurs twice")
            else:
                correct, *wrong = (row[a] for a in ANSWERS)
                domain = row.get("High-level domain") or "unstated"
                rows[name] = Row(name, domain, row["Question"], (correct, wrong[0], wrong[1], wrong[2]))
    return list(rows.values())
