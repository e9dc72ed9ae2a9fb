"""CrowS-Pairs (Nangia et al. 2020, arXiv 2010.00133; nyu-mll/crows-pairs): a test set, and never training data.

Its authors ask that nobody trains on it, so evenhand offers it to no method.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from evenhand.core.hashing import bytes_hash
from evenhand.core.word_lists import listed
from evenhand.data.io import locate
from evenhand.data.io.checksums import official
from evenhand.data.io.content import read_bytes
from evenhand.data.io.delimited import blank, read_delimited
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
COLUMNS = ("sent_more", "sent_less", "stereo_antistereo", "bias_type")


class Pair(NamedTuple):
    """Two sentences that differ in the group they are about."""

    number: str
    """As in the file's first column, or the number of the row."""
    more: str
    """The more stereotyping sentence, whichever the direction."""
    less: str
    direction: str
    """"stereo": `more` shows a stereotype; "antistereo": `less` violates one."""
    bias_type: str


class Loaded(NamedTuple):
    """Pairs in file order, and what a report says of them."""

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
    demo = source == "demo"
    file = _file(demo_folder("crows_pairs") if demo else locate.locate(DATASET, source))
    content = read_bytes(file)
    problems = locate.Problems()
    pairs: dict[str, Pair] = {}
    for number, row in read_delimited(file, content, COLUMNS, problems):
        name = row.get("", "").strip() or str(len(pairs))  # the index column has no heading
        try:
            pair = pair_of(row, name)
            if name in pairs:
                raise Refused(f"pair {name} occurs twice")
        except Refused as error:
            problems.add(file, number, str(error))
        else:
            pairs[name] = pair
    if not pairs:
        first = f"; first problem: {problems.lines[0]}" if problems else ""
        raise DataError(f"{file} holds no usable pair{first}")
    digest = bytes_hash(content)
    if demo:  # the name of the file is CrowS-Pairs's, the content is ours
        said = {"source": "demo: the proving ground's statements, not CrowS-Pairs", "sha256": digest}
        return Loaded(list(pairs.values()), {**said, "pairs": len(pairs), "dropped": problems.lines})
    verdict = "official" if digest == official("crows_pairs").files[FILE] else "differs from official"
    notes = [] if verdict == "official" else [f"{file.name}: not the official content (SHA-256 differs)"]
    facts = {
        "source": str(file),
        "sha256": digest,
        "is": verdict,
        "pairs": len(pairs),
        "dropped": problems.lines,
        "notes": notes,
    }
    return Loaded(list(pairs.values()), facts)


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


def _file(path: Path) -> Path:
    if path.is_file():
        return path
    for folder in (path, path / "data"):
        found = [folder / FILE] if (folder / FILE).is_file() else sorted(folder.glob("*.csv"))
        if found:
            return found[0]
    raise DataError(f"{path} holds no {FILE}")
