"""CrowS-Pairs (Nangia et al. 2020, arXiv 2010.00133; nyu-mll/crows-pairs): a test set, and never training data.

Its authors ask that nobody trains on it, so evenhand offers it to no method.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from evenhand.data.io import locate
from evenhand.data.io.checksums import official
from evenhand.data.io.content import read_bytes, sha256
from evenhand.data.io.delimited import blank, read_delimited
from evenhand.data.io.demo import demo_folder
from evenhand.data.io.rows import known, one_line_end
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
BIAS_TYPES = (
    "age", "disability", "gender", "nationality", "physical-appearance", "race-color", "religion", "sexual-orientation",
    "socioeconomic",
)  # fmt: skip
DIRECTIONS = ("stereo", "antistereo")


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
    columns = ("sent_more", "sent_less", "stereo_antistereo", "bias_type")
    pairs: dict[str, Pair] = {}
    for number, row in read_delimited(file, content, columns, problems):
        name = row.get("", "").strip() or str(len(pairs))  # the index column has no heading
        row["stereo_antistereo"] = known(row["stereo_antistereo"].strip(), DIRECTIONS)
        reason = blank(row, columns) or (f"pair {name} occurs twice" if name in pairs else "")
        if row["stereo_antistereo"] not in DIRECTIONS and not reason:
            reason = f"stereo_antistereo {row['stereo_antistereo']!r} is none of {', '.join(DIRECTIONS)}"
        if reason:
            problems.add(file, number, reason)
            continue
        more, less = (one_line_end(row[column]).strip() for column in ("sent_more", "sent_less"))
        pairs[name] = Pair(name, more, less, row["stereo_antistereo"], known(row["bias_type"].strip(), BIAS_TYPES))
    if not pairs:
        first = f"; first problem: {problems.lines[0]}" if problems else ""
        raise DataError(f"{file} holds no usable pair{first}")
    digest = sha256(content)
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


def _file(path: Path) -> Path:
    if path.is_file():
        return path
    for folder in (path, path / "data"):
        found = [folder / FILE] if (folder / FILE).is_file() else sorted(folder.glob("*.csv"))
        if found:
            return found[0]
    raise DataError(f"{path} holds no {FILE}")
