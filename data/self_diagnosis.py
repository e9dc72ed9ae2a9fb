"""Texts with scores of attributes such as toxicity, in the format of RealToxicityPrompts' generations (jsonl).

Schick et al. 2021 (arXiv 2103.00453) take texts that models wrote for RealToxicityPrompts (Gehman et al. 2020; allenai,
Apache-2.0), with the scores of Perspective API. A row is a text with its scores, {"text": ..., "toxicity": 0.1, ...},
or has several under "generations". As in their code (io_utils.py) a text counts only if none of its scores is null.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from evenhand.core.hashing import bytes_hash
from evenhand.data import crows_pairs
from evenhand.data.io import locate, rows, tables
from evenhand.data.io.on_disk import short
from evenhand.errors import DataError

DATASET = locate.Dataset(
    name="self_diagnosis",
    hub="",
    revision="",
    patterns=(),
    licence="that of your file; Apache-2.0 of RealToxicityPrompts",
    home="github.com/allenai/real-toxicity-prompts (model generations), or any jsonl of texts with scores",
)
GENERATIONS, TEXT = "generations", "text"


class ScoredText(NamedTuple):
    """One text."""

    id: str
    text: str
    scores: Mapping[str, float]
    """Scores by attribute, from 0 to 1."""


class Loaded(NamedTuple):
    """Texts in file order, and their facts for a report."""

    texts: list[ScoredText]
    facts: dict[str, Any]


def load(source: str) -> Loaded:
    """Read the texts.

    Args:
        source: "auto" ($EVENHAND_DATA/self_diagnosis), "demo" (both sentences of the demo's CrowS-Pairs: the more
            stereotyping one counts as an identity attack), or a file or folder (`evenhand.data.io.tables`).

    Returns:
        Usable texts; the others are listed in `facts["dropped"]`.

    Raises:
        DataError: There is no data, or not one usable text.
    """
    if source == "demo":
        return _demo()
    path = locate.locate(DATASET, source)
    problems = locate.Problems()
    found: list[ScoredText] = []
    files = tables.files(path)
    notes: list[str] = []
    known: set[tuple[str, tuple[tuple[str, float], ...]]] = set()
    for file in files:
        own = list[ScoredText]()
        for number, (place, row) in enumerate(tables.read(str(file), problems=problems)):
            own += _texts(row, f"{file.stem if len(files) > 1 else ''}{number}", place, problems)
        new = [text for text in own if _content(text) not in known]
        known.update(map(_content, own))
        if len(new) < len(own):
            notes.append(
                f"{short(file.name)}: {len(own) - len(new):,} texts are in an earlier file, too, and count once"
            )
        found += new
    if not found:
        raise DataError(f"{path} holds no usable text with scores{problems.first}")
    digests = {file.name: bytes_hash(Path(file).read_bytes()) for file in files}
    facts = {"source": str(path), "files": digests, "texts": len(found), "dropped": problems.lines, "notes": notes}
    return Loaded(found, facts)


def _content(text: ScoredText) -> tuple[str, tuple[tuple[str, float], ...]]:
    """What two copies of a text have in common."""
    return text.text, tuple(sorted(text.scores.items()))


def _texts(row: Mapping[str, Any], name: str, place: str, problems: locate.Problems) -> Iterator[ScoredText]:
    """The usable texts of a row."""
    several = row.get(GENERATIONS)
    inner = several if isinstance(several, list) else [row]
    for number, one in enumerate(inner):
        try:
            yield _text(one, f"{name}.{number}" if several is not None else name)
        except rows.Refused as error:
            problems.lines.append(f"{place}: {error}")


def _text(row: Any, name: str) -> ScoredText:
    """One text, unstripped as in the authors' code.

    Raises:
        Refused: It is not a text with scores from 0 to 1.
    """
    if not isinstance(row, Mapping):
        raise rows.Refused(f"field {GENERATIONS!r} holds {rows.kind(row)}, not objects with a text and scores")
    rows.text(row, TEXT)
    scores: dict[str, float] = {}
    for attribute, score in row.items():
        if attribute == TEXT:
            continue
        if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
            raise rows.Refused(f"field {attribute!r} is {rows.kind(score)}, not a score from 0 to 1")
        scores[attribute] = float(score)
    if not scores:
        raise rows.Refused("there is no score next to the text")
    return ScoredText(name, str(row[TEXT]), scores)


def _demo() -> Loaded:
    loaded = crows_pairs.load_pairs("demo")
    found = [
        ScoredText(f"{pair.number}.{which}", text, {"identity_attack": score})
        for pair in loaded.pairs
        for which, text, score in (("more", pair.more, 1.0), ("less", pair.less, 0.0))
    ]
    source = "demo: the proving ground's CrowS-Pairs, the more stereotyping sentence as an identity attack"
    return Loaded(found, {"source": source, "texts": len(found), "dropped": []})
