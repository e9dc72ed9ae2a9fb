"""CrowS-Pairs (Nangia et al. 2020, arXiv 2010.00133; nyu-mll/crows-pairs): a test set, and never training data.

Its authors ask that nobody trains on it, so evenhand offers it to no method.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from evenhand.core.hashing import bytes_hash
from evenhand.core.word_lists import listed
from evenhand.data.io import layouts, locate, on_disk
from evenhand.data.io.checksums import official
from evenhand.data.io.content import read_bytes
from evenhand.data.io.delimited import blank
from evenhand.data.io.demo import demo_folder
from evenhand.data.io.rows import Refused, known, one_line_end
from evenhand.errors import DataError

DATASET = locate.Dataset(
    name="crows_pairs",
    hub="",
    revision="",
    patterns=(),
    licence="CC-BY-SA-4.0",
    home="github.com/nyu-mll/crows-pairs, data/crows_pairs_anonymized.csv",
)
FILE = "crows_pairs_anonymized.csv"
BIAS_TYPES = listed(
    """
    age, disability, gender, nationality, physical-appearance, race-color, religion, sexual-orientation, socioeconomic
    """
)
DIRECTIONS = ("stereo", "antistereo")
HUB_LABELS = {
    "stereo_antistereo": DIRECTIONS,
    "bias_type": listed(
        """
        race-color, socioeconomic, gender, disability, nationality, sexual-orientation, physical-appearance, religion,
        age
        """
    ),
}
"""What the numbers of the hub's copy (nyu-mll/crows_pairs, whose loader names them in this order) stand for."""
KINDS = (".csv", ".tsv", ".jsonl", ".parquet", ".arrow", ".json")
"""Kinds of tables, the first that a folder has before the others."""
COLUMNS = ("sent_more", "sent_less", "stereo_antistereo", "bias_type")


class Pair(NamedTuple):
    """Two sentences that differ in the group they are about."""

    number: str
    """Number in the file's first column, or the number of the row."""
    more: str
    """The more stereotyping sentence, whichever the direction."""
    less: str
    direction: str
    """"stereo": `more` shows a stereotype; "antistereo": `less` violates one."""
    bias_type: str


class Loaded(NamedTuple):
    """Pairs in file order, and their facts for a report."""

    pairs: list[Pair]
    facts: dict[str, Any]


def load_pairs(source: str) -> Loaded:
    """Read the pairs.

    Args:
        source: "auto" ($EVENHAND_DATA/crows_pairs), "demo" (the proving ground's, of the package), a folder or a file.

    Returns:
        Usable pairs; the others are listed in `facts["dropped"]`.

    Raises:
        DataError: There is no data, a column is missing, or no pair can be used.
    """
    path = demo_folder("crows_pairs") if source == "demo" else locate.locate(DATASET, source)
    file = layouts.only_table(path, FILE, "CrowS-Pairs", COLUMNS, KINDS)
    content = read_bytes(file)
    problems = locate.Problems()
    pairs: dict[str, Pair] = {}
    for number, raw in layouts.read_table(file, content, COLUMNS, problems):
        try:
            row = _in_words(raw)
            name = row.get("", "").strip() or row.get("id", "").strip() or str(len(pairs))  # the index has no heading
            pair = pair_of(row, name)
            if name in pairs:
                raise Refused(f"pair {name} occurs twice")
        except Refused as error:
            problems.add(file, number, str(error))
        else:
            pairs[name] = pair
    if not pairs:
        raise DataError(f"{file} holds no usable pair{problems.first}")
    return Loaded(list(pairs.values()), _facts(path, file, bytes_hash(content), len(pairs), problems))


def _facts(path: Path, file: Path, digest: str, pairs: int, problems: locate.Problems) -> dict[str, Any]:
    """What a report says of the file that was read in the data set's folder."""
    if path == demo_folder("crows_pairs"):  # the name of the file is CrowS-Pairs's, the content is ours
        source = "demo: the proving ground's statements, not CrowS-Pairs"
        return {"source": source, "sha256": digest, "pairs": pairs, "dropped": problems.lines}
    verdict = "official" if digest == official("crows_pairs").files[FILE] else "differs from official"
    notes = [] if verdict == "official" else [f"{file.name}: not the official content (SHA-256 differs)"]
    notes += on_disk.unread(layouts.other_tables(path, [file]), path, f"{on_disk.short(file.name)} is read")
    return {
        "source": str(file),
        "sha256": digest,
        "is": verdict,
        "pairs": pairs,
        "dropped": problems.lines,
        "notes": notes,
    }


def _in_words(row: Mapping[str, Any]) -> dict[str, str]:
    """A row whose cells are texts: numbers, of ids and of the hub's class labels, are written out.

    Raises:
        Refused: A column is missing, or holds something else; the message names it.
    """
    found = {name: str(v) if isinstance(v, int) and not isinstance(v, bool) else v for name, v in row.items()}
    for name, labels in HUB_LABELS.items():
        value = row.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            if not 0 <= value < len(labels):
                raise Refused(f"column {name!r} is {value}, and its labels are 0 to {len(labels) - 1}")
            found[name] = labels[value]
    for name in COLUMNS:
        if not isinstance(found.get(name), str):
            raise Refused(f"column {name!r} is missing" if name not in found else f"column {name!r} is not a text")
    return {name: value for name, value in found.items() if isinstance(value, str)}


def pair_of(row: Mapping[str, str], name: str) -> Pair:
    """A row of the file as a pair.

    Raises:
        Refused: It cannot be used; the message names the column.
    """
    if reason := blank(dict(row), COLUMNS):
        raise Refused(reason)
    direction = known(row["stereo_antistereo"].strip(), DIRECTIONS)
    if direction not in DIRECTIONS:
        raise Refused(f"stereo_antistereo {direction!r} is none of {', '.join(DIRECTIONS)}")
    more, less = (one_line_end(row[column]).strip() for column in ("sent_more", "sent_less"))
    return Pair(name, more, less, direction, known(row["bias_type"].strip(), BIAS_TYPES))
