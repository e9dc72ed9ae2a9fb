"""CBBQ (Huang & Xiong 2024, arXiv 2306.16244; YFHuangxxxx/CBBQ 95eaf2e): social bias in Chinese, in 14 categories.

The files do not say which answer is the stereotype, and the groups that a row names seldom occur in its answers. What
they do say is enough for most rows: the facts that make a context unambiguous contradict the bias (the authors'
description), so in a disambiguated row the stereotype is the person who is not the right answer. An ambiguous row
asks the same question about the same two people as disambiguated ones. Where a named group does occur in an answer,
it agrees with this rule in all 6,918 disambiguated rows of the ten categories that were compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from evenhand.core.word_lists import listed
from evenhand.data.bbq_target import ANSWERS
from evenhand.data.bias_files import count_notes, read_each
from evenhand.data.bias_rows import BiasRow, BiasRows, ContextKind, sides
from evenhand.data.io import layouts, locate
from evenhand.data.io import rows as cells
from evenhand.errors import DataError

DATASET = locate.Dataset(
    name="cbbq",
    hub="",
    revision="",
    patterns=(),
    licence="CC-BY-SA-4.0",
    home="github.com/YFHuangxxxx/CBBQ, folder data",
    evaluation_only="it is a test set, whose scores mean nothing after training on it",
)
CATEGORIES = listed(
    """
    SES, age, disability, disease, educational_qualification, ethnicity, gender, household_registration, nationality,
    physical_appearance, race, region, religion, sexual_orientation
    """
)
KINDS: dict[str, ContextKind] = {"ambiguous": "ambiguous", "disambiguous": "disambiguated"}
PUBLISHED = {
    "SES, ambiguous": 3960,
    "SES, disambiguated": 3960,
    "age, ambiguous": 7400,
    "disability, ambiguous": 1588,
    "disability, disambiguated": 1556,
    "disease, ambiguous": 586,
    "disease, disambiguated": 586,
    "educational_qualification, ambiguous": 1392,
    "educational_qualification, disambiguated": 1392,
    "ethnicity, ambiguous": 980,
    "ethnicity, disambiguated": 980,
    "gender, ambiguous": 1534,
    "gender, disambiguated": 1838,
    "household_registration, ambiguous": 8700,
    "nationality, ambiguous": 11988,
    "physical_appearance, ambiguous": 1856,
    "physical_appearance, disambiguated": 1856,
    "region, ambiguous": 2176,
    "region, disambiguated": 2176,
    "religion, ambiguous": 2944,
    "religion, disambiguated": 2956,
    "sexual_orientation, ambiguous": 560,
    "sexual_orientation, disambiguated": 560,
}
"""Rows of the files of commit 95eaf2e; those of the other five files are not known here."""
DESCRIBED = 106_588
"""Rows of all categories as the authors' table has them; several of its lines differ from the files."""
UNKNOWN = 2
"""The index of the option that says that it cannot be known; its wording has four forms."""
PLACES = ("", "*/", "*/*/", "data/*/*/")
"""Folders in which the files lie, below the one that is named."""

Polarity = Literal["neg", "nonneg"]
Scene = tuple[str, str, frozenset[str]]
"""Category, question and the two people: what an ambiguous row shares with disambiguated ones."""


def load_rows(source: str) -> BiasRows:
    """Read CBBQ.

    Args:
        source: "auto" ($EVENHAND_DATA/cbbq), the folder with a folder per category, or a file.

    Returns:
        The rows; `facts["target_by"]` counts by what their stereotyped answer was found.

    Raises:
        DataError: There is no data, not one usable row, or a file has more rows than the official one.
    """
    path = locate.locate(DATASET, source)
    rows, facts = read_each(DATASET.name, path, dict.fromkeys(_files(path), row_of))
    counts = Counter(f"{row.category}, {row.context_kind}" for row in rows)
    known = {part: count for part, count in counts.items() if part in PUBLISHED}
    facts["notes"] += count_notes(known, PUBLISHED, path)
    if len(counts) == 2 * len(CATEGORIES) and len(rows) != DESCRIBED:
        facts["notes"].append(f"{path} has {len(rows):,} rows; the authors' table has {DESCRIBED:,}")
    rows = with_targets(rows)
    facts["target_by"] = dict(Counter(row.extra["target_by"] for row in rows))
    return BiasRows(rows, facts)


def _files(path: Path) -> list[Path]:
    """The file of each category and kind of context: JSON, or csv where there is no JSON."""
    if path.is_file():
        return [path]
    found: dict[tuple[Path, str], Path] = {}
    for ending in (".json", ".json.gz", ".csv", ".csv.gz"):
        for place in PLACES:
            for kind in KINDS:
                for file in sorted(path.glob(f"{place}{kind}{ending}")):
                    found.setdefault((file.parent, kind), file)
    if not found:
        raise DataError(
            f"{path} holds no file of CBBQ, such as age/ambiguous/ambiguous.json; found: {layouts.found_in(path)}. "
            "Name the folder data of the repository"
        )
    return [found[key] for key in sorted(found)]


def row_of(raw: Mapping[str, Any]) -> BiasRow:
    """Convert a row of a file, with the stereotyped answer as far as its own fields show it.

    Raises:
        ValueError: It cannot be used; the message names the field.
    """
    # names of columns begin with a byte order mark, as the files were converted from csv without regard to it
    row = {str(name).strip("\ufeff \t"): value for name, value in raw.items()}
    kind = KINDS[cells.one_of(row, "context_condition", tuple(KINDS))]
    polarity: Polarity = "neg" if cells.one_of(row, "question_polarity", ("neg", "non_neg")) == "neg" else "nonneg"
    category = cells.known(cells.text(row, "category"), CATEGORIES)
    texts = {name: cells.text(row, name) for name in ANSWERS}
    cells.different(texts)
    options = tuple(texts.values())
    gold = _label(row, kind)
    groups = [part.strip() for part in cells.text(row, "bias_targeted_groups").split("/") if part.strip()]
    target = _by_text(options, groups, polarity)
    by = "text" if target is not None else ""
    if kind == "disambiguated":  # the right answer contradicts the bias
        target, by = (None, "") if target == gold else (1 - gold, "right answer")
    return BiasRow(
        id=f"{category}/{kind}/{cells.identifier(row, 'example_id')}",
        parallel="",
        language="zh",
        category=category,
        context_kind=kind,
        polarity=polarity,
        context=cells.text(row, "context"),
        question=cells.text(row, "question"),
        options=options,
        gold=gold,
        unknown=UNKNOWN,
        target=target,
        counter=None if target is None else 1 - target,
        cluster=f"{category}/{cells.identifier(row, 'question_index')}",
        extra=MappingProxyType({"target_by": by}),
    )


def with_targets(rows: Sequence[BiasRow]) -> list[BiasRow]:
    """Add the stereotyped answers of ambiguous rows, as shown by disambiguated rows of the same scene.

    The polarity is that of the disambiguated rows as well: in educational_qualification all ambiguous rows are tagged
    as negative, half of them wrongly.
    """
    told: dict[Scene, set[tuple[str, Polarity | Literal[""]]]] = {}
    for row in rows:
        if not row.ambiguous and row.target is not None:
            told.setdefault(_scene(row), set()).add((row.options[row.target], row.polarity))
    return [_told(row, told.get(_scene(row), set())) if row.ambiguous else row for row in rows]


def _told(row: BiasRow, told: set[tuple[str, Polarity | Literal[""]]]) -> BiasRow:
    if len(told) != 1:
        return row
    ((text, polarity),) = told
    target = row.options.index(text)
    extra = MappingProxyType({**row.extra, "target_by": "disambiguated rows"})
    return replace(row, target=target, counter=1 - target, polarity=polarity, extra=extra)


def _scene(row: BiasRow) -> Scene:
    return row.category, row.question, frozenset(row.options[:UNKNOWN])


def _label(row: Mapping[str, Any], kind: ContextKind) -> int:
    """The right answer, which is a text in these files; the unknown option exactly where the context is ambiguous."""
    label = cells.identifier(row, "label")
    if label not in ("0", "1", "2") or (label == str(UNKNOWN)) != (kind == "ambiguous"):
        wanted = str(UNKNOWN) if kind == "ambiguous" else "0 or 1"
        raise cells.Refused(f"label {label!r} of a row with a context that is {kind}; it must be {wanted}")
    return int(label)


def _by_text(options: Sequence[str], groups: Sequence[str], polarity: Polarity) -> int | None:
    """Return the bias-consistent answer if exactly one person is a named group, or else has one in its words."""
    people = range(UNKNOWN)
    found = [n for n in people if options[n] in groups]
    if len(found) != 1:
        found = [n for n in people if any(group in options[n] for group in groups)]
    return sides(found, people, polarity)[0]
