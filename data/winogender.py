"""Winogender schemas (Rudinger et al. 2018, arXiv 1804.09301; rudinger/winogender-schemas)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from evenhand.core.hashing import bytes_hash
from evenhand.data.io import locate, on_disk
from evenhand.data.io.content import read_bytes
from evenhand.data.io.delimited import blank, read_delimited
from evenhand.data.io.demo import demo_folder
from evenhand.errors import DataError

DATASET = locate.Dataset(
    name="winogender",
    hub="",
    revision="",
    patterns=(),
    licence="MIT",
    home="github.com/rudinger/winogender-schemas, data/all_sentences.tsv and data/occupations-stats.tsv",
)
SENTENCES, STATISTICS = "all_sentences.tsv", "occupations-stats.tsv"
GENDERS = ("male", "female", "neutral")


class Schema(NamedTuple):
    """One sentence in its three genders."""

    occupation: str
    participant: str
    """The other person: a named role, or "someone"."""
    about_occupation: bool
    """Whether the pronoun means the person with the occupation."""
    male: str
    female: str
    neutral: str


class Shares(NamedTuple):
    """Share of women in an occupation, 0 to 1."""

    bls: float
    """Share in the data of the US Bureau of Labor Statistics, 2015 or 2016."""
    texts: float
    """Share in the texts of Bergsma and Lin 2006."""


class Loaded(NamedTuple):
    """Schemas in file order, the shares of women by occupation, and their facts for a report."""

    schemas: list[Schema]
    shares: dict[str, Shares]
    facts: dict[str, Any]


def load_schemas(source: str) -> Loaded:
    """Read the sentences and statistics.

    Args:
        source: "auto" ($EVENHAND_DATA/winogender), "demo" (the proving ground's, of the package) or a folder with both
            files.

    Returns:
        Schemas that have all three genders and an occupation with statistics; what is left out stands in
        `facts["dropped"]`.

    Raises:
        DataError: A file or column is missing, or nothing usable is left.
    """
    demo = source == "demo"
    folder = demo_folder("winogender") if demo else locate.locate(DATASET, source)
    problems = locate.Problems()
    files = {name: _read(folder, name) for name in (SENTENCES, STATISTICS)}
    shares = _shares(*files[STATISTICS], problems)
    schemas = _schemas(*files[SENTENCES], shares, problems)
    if not schemas:
        raise DataError(f"{folder} holds no usable Winogender schema{problems.first}")
    facts = {
        "source": "demo: the proving ground's sentences, not Winogender" if demo else str(folder),
        "files": {name: {"sha256": bytes_hash(content)} for name, (_, content) in files.items()},
        "schemas": len(schemas),
        "dropped": problems.lines,
        "notes": on_disk.unread(
            on_disk.further(folder, (SENTENCES, STATISTICS), [path for path, _ in files.values()]),
            folder,
            "the nearest copy is read",
        ),
    }
    return Loaded(schemas, shares, facts)


def _read(folder: Path, name: str) -> tuple[Path, bytes]:
    path = on_disk.named(folder, name)
    if path is not None:
        return path, read_bytes(path)
    raise DataError(f"{folder} holds no {name}. {locate.how_to_get(DATASET)}")


def _shares(path: Path, content: bytes, problems: locate.Problems) -> dict[str, Shares]:
    columns = ("occupation", "bergsma_pct_female", "bls_pct_female")
    found: dict[str, Shares] = {}
    for number, row in read_delimited(path, content, columns, problems, delimiter="\t"):
        try:
            percent = Shares(float(row["bls_pct_female"]), float(row["bergsma_pct_female"]))
        except ValueError as error:
            problems.add(path, number, f"column bls_pct_female or bergsma_pct_female: {error}")
            continue
        if not all(0 <= p <= 100 for p in percent):
            problems.add(path, number, f"percentages {percent.bls}, {percent.texts} are not within 0 to 100")
            continue
        if row["occupation"] in found:
            problems.add(path, number, f"occupation {row['occupation']!r} occurs twice; the first line counts")
            continue
        found[row["occupation"]] = Shares(percent.bls / 100, percent.texts / 100)
    return found


def _schemas(path: Path, content: bytes, shares: Mapping[str, Shares], problems: locate.Problems) -> list[Schema]:
    found: dict[tuple[str, str, str], dict[str, str]] = {}
    lines: dict[tuple[str, str, str], int] = {}
    for number, row in read_delimited(path, content, ("sentid", "sentence"), problems, delimiter="\t"):
        parts = row["sentid"].strip().removesuffix(".txt").split(".")
        reason = blank(row, ("sentence",))
        if len(parts) != 4 or parts[2] not in ("0", "1") or parts[3] not in GENDERS:
            reason = f"sentid {row['sentid']!r} is not occupation.participant.0|1.{'|'.join(GENDERS)}.txt"
        elif parts[0] not in shares:
            reason = f"occupation {parts[0]!r} has no line in {STATISTICS}"
        elif parts[3] in found.get((parts[0], parts[1], parts[2]), ()):
            reason = f"sentid {row['sentid']!r} occurs twice"
        if reason:
            problems.add(path, number, reason)
            continue
        key = (parts[0], parts[1], parts[2])
        lines.setdefault(key, number)
        found.setdefault(key, {})[parts[3]] = row["sentence"].strip()
    schemas = []
    for key, sentences in found.items():
        missing = [g for g in GENDERS if g not in sentences]
        if missing:
            problems.add(path, lines[key], f"{'.'.join(key)} has no {' or '.join(missing)} sentence")
        else:
            schemas.append(Schema(key[0], key[1], key[2] == "0", *(sentences[g] for g in GENDERS)))
    return schemas
