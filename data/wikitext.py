"""WikiText-2 (Merity et al. 2016, arXiv 1609.07843) as one text: its rows, joined as published perplexities join them.

Two versions exist. The raw one (hub Salesforce/wikitext, wikitext-2-raw-v1) has all words; in the tokenised one
(wikitext-2-v1) rare words are "<unk>", so perplexities of the two cannot be compared. Common code joins the hub's rows
by two line feeds. A row is a line with its line feed, or "" where the line is blank; a file of lines gives the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple

from evenhand.core.hashing import bytes_hash
from evenhand.data.io import locate, on_disk, tables
from evenhand.data.io.content import read_bytes, text_of
from evenhand.errors import DataError

DATASET = locate.Dataset(
    name="wikitext2",
    hub="Salesforce/wikitext",
    revision="main",
    patterns=("wikitext-2-raw-v1/test-*.parquet", "wikitext-2-raw-v1/validation-*.parquet"),
    licence="CC-BY-SA-3.0 and GFDL",
    home="the hub's Salesforce/wikitext, configuration wikitext-2-raw-v1",
    benchmark="perplexity",
    prefix="wikitext2:",
)
Split = Literal["test", "validation"]
ROWS: dict[str, int] = {"test": 4_358, "validation": 3_760}
"""Rows of each part, in both versions."""
_FILES: dict[str, tuple[str, ...]] = {
    "test": ("test.txt", "wiki.test.raw", "wiki.test.tokens"),
    "validation": ("valid.txt", "validation.txt", "wiki.valid.raw", "wiki.valid.tokens"),
}


class Loaded(NamedTuple):
    """The joined text, and its facts for a report."""

    text: str
    facts: dict[str, Any]


def load(split: Split, source: str = "auto") -> Loaded:
    """Read a part.

    Args:
        split: Which one.
        source: "auto" ($EVENHAND_DATA/wikitext2, else the hub), "hub", a folder or a file: lines of text (also .gz), or
            the hub's parquet files.

    Raises:
        DataError: There is no such part.
    """
    path = locate.locate(DATASET, source)
    file = path if path.is_file() else _file(path, split)
    content = read_bytes(file)
    rows = (
        [str(r.get("text") or "") for _, r in tables.read(str(file))]
        if file.suffix == ".parquet"
        else lines(text_of(file, content))
    )
    version = "tokenised" if any("<unk>" in row for row in rows) else "raw"
    notes = []
    if version == "tokenised":
        notes.append(
            "the tokenised version of WikiText-2 (rare words are <unk>); published perplexities are of the raw"
        )
    if len(rows) != ROWS[split]:
        notes.append(f"{len(rows):,} rows, but WikiText-2's part {split!r} has {ROWS[split]:,}")
    further = on_disk.visible(path, f"**/{split}-*.parquet") if path.is_dir() else []
    others = [f for f in (*on_disk.further(path, _FILES[split], [file]), *further) if f != file]
    notes += on_disk.unread(others, path, f"{on_disk.short(file.name)} is read")
    facts = {
        "source": str(file),
        "files": {file.name: bytes_hash(content)},
        "dropped": [],
        "notes": notes,
        "version": version,
        "rows": len(rows),
        "joined": "rows by two line feeds",
    }
    return Loaded(join(rows), facts)


def lines(text: str) -> list[str]:
    """The rows of a text of lines."""
    return text.removesuffix("\n").split("\n")


def join(rows: list[str]) -> str:
    """The rows as one text: those with words end in a line feed, blank ones are empty, and two line feeds part them."""
    return "\n\n".join(row.rstrip("\n") + "\n" if row.strip() else "" for row in rows)


def _file(folder: Path, split: str) -> Path:
    for name in _FILES[split]:
        if file := on_disk.named(folder, name):
            return file
    found = on_disk.visible(folder, f"**/{split}-*.parquet")
    raw = [file for file in found if "raw" in file.parent.name] or found
    if len(raw) == 1:
        return raw[0]
    raise DataError(
        f"{folder} has {'several files' if raw else 'no file'} of WikiText-2's part {split!r} "
        f"({', '.join(_FILES[split])}, or one {split}-*.parquet). {locate.how_to_get(DATASET)}"
    )
