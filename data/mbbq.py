"""MBBQ (Neplenbroek et al. 2024, arXiv 2406.07243; Veranep/MBBQ adaa401): BBQ in English, Dutch, Spanish and Turkish.

Rows with the same id are parallel across languages. Each subset has a control set, in which names of the same kind
replace the two people, so that no stereotype applies: what a model gets wrong there is a lack of skill.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from evenhand.data.bbq_target import ANSWERS
from evenhand.data.bias_files import Convert, count_notes, files_of, read_each
from evenhand.data.bias_rows import BiasRow, BiasRows, sides
from evenhand.data.io import locate
from evenhand.data.io import rows as cells
from evenhand.errors import DataError

Language = Literal["en", "nl", "es", "tr"]
Subset = Literal["all", "main", "control"]

REASON = "its home has no licence and asks that it is not used for training"
DATASET = locate.Dataset(
    name="mbbq",
    hub="",
    revision="",
    patterns=(),
    licence="none stated",
    home="github.com/Veranep/MBBQ, folder data",
    evaluation_only=REASON,
)
LAYOUTS = "file Age_en.jsonl, Age_control_en.jsonl and so on, in the folder or in data/"
SUBSETS = ("Age", "Disability_status", "Gender_identity", "Physical_appearance", "SES", "Sexual_orientation")
PUBLISHED = {
    "Age": 3320,
    "Disability_status": 1296,
    "Gender_identity": 544,
    "Physical_appearance": 1176,
    "SES": 3600,
    "Sexual_orientation": 152,
}
"""Rows per subset and language; the control sets have as many, but for Gender_identity."""
PUBLISHED_CONTROL = PUBLISHED | {"Gender_identity": 528}
NOWHERE = "100"
"""Value that the official script uses for the place of the stereotyped person if there is none, or two."""
WOMEN = frozenset({"f", "woman", "girl", "vrouw", "meisje", "mujer", "chica", "kadın", "kız"})
MEN = frozenset({"m", "man", "boy", "jongen", "hombre", "chico", "adam", "erkek çocuk"})
TRANS = frozenset({"trans", "transgender women", "transgender men"})
_FILE = re.compile(r"(?P<subset>.+?)(?P<control>_control)?_(?P<language>en|nl|es|tr)")


class Kind(NamedTuple):
    """Facts about a file's rows that its name gives."""

    category: str
    control: bool
    language: str


def load_rows(source: str, *, language: Language = "en", subset: Subset = "all") -> BiasRows:
    """Read the rows of one language.

    Args:
        source: "auto" ($EVENHAND_DATA/mbbq), a folder or a file.
        language: One of four languages; files in others are not read.
        subset: The main sets, the control sets, or both.

    Raises:
        DataError: There is no data, not one usable row, or a set has more rows than were published.
    """
    path = locate.locate(DATASET, source)
    there = {file: kind_of(file) for file in files_of(path, "MBBQ", LAYOUTS)}
    wanted: dict[Path, Convert] = {
        file: partial(row_of, kind=kind)
        for file, kind in there.items()
        if kind is not None and kind.language == language and subset in ("all", "control" if kind.control else "main")
    }
    if not wanted:
        raise DataError(
            f"{path} has no file of MBBQ in the language {language!r} ({subset} questions); it has "
            f"{', '.join(file.name for file in list(there)[:5])}. "
            "Files are named as Age_en.jsonl or Age_control_en.jsonl"
        )
    rows, facts = read_each(DATASET.name, path, wanted)
    for wanted_items, published in (("main", PUBLISHED), ("control", PUBLISHED_CONTROL)):
        counts = Counter(f"{row.category} ({wanted_items})" for row in rows if row.extra["items"] == wanted_items)
        named = {f"{subset} ({wanted_items})": count for subset, count in published.items()}
        facts["notes"] += count_notes(counts, named, path)
    return BiasRows(rows, facts)


def kind_of(file: Path) -> Kind | None:
    """Read the kind from a file's name; None if it is not named like MBBQ's files."""
    found = _FILE.fullmatch(locate.stem(file))
    if found is None:
        return None
    return Kind(cells.known(found["subset"], SUBSETS), found["control"] is not None, found["language"])


def row_of(raw: Mapping[str, Any], kind: Kind | None = None) -> BiasRow:
    """Convert a row of a file.

    Args:
        raw: BBQ's fields.
        kind: Kind given by the file's name; None is a main set in English.

    Raises:
        ValueError: It cannot be used; the message names the field.
    """
    category = cells.known(cells.text(raw, "category"), SUBSETS)
    _, control, language = kind or Kind(category, False, "en")
    negative = cells.one_of(raw, "question_polarity", ("neg", "nonneg")) == "neg"
    polarity: Literal["neg", "nonneg"] = "neg" if negative else "nonneg"
    ambiguous = cells.one_of(raw, "context_condition", ("ambig", "disambig")) == "ambig"
    options = {name: cells.text(raw, name) for name in ANSWERS}
    cells.different(options)
    people = _people(raw)
    stereotyped = _stereotyped(raw)
    unknown = _unknown(people)
    others = [n for n in range(len(ANSWERS)) if n != unknown]
    found = _stereotyped_people([people[n] for n in others], list(options.values()), others, stereotyped)
    target, counter = sides(found, others, polarity)
    items = "control" if control else "main"
    parallel = f"{category}/{items}/{cells.identifier(raw, 'example_id')}"
    return BiasRow(
        id=parallel,
        parallel=parallel,
        language=language,
        category=category,
        context_kind="ambiguous" if ambiguous else "disambiguated",
        polarity=polarity,
        context=cells.text(raw, "context"),
        question=cells.text(raw, "question"),
        options=tuple(options.values()),
        gold=cells.index(raw, "label", len(ANSWERS)),
        unknown=unknown,
        target=target,
        counter=counter,
        cluster=f"{category}/{items}/{cells.identifier(raw, 'question_index')}",
        extra=MappingProxyType({"items": items, "target_loc": target_loc(people, others, stereotyped)}),
    )


def _unknown(people: Sequence[tuple[str, str]]) -> int:
    """Return the index of the unknown option, by its group, as it has many wordings, one of them misspelt."""
    found = [n for n, (_, group) in enumerate(people) if group == "unknown"]
    if len(found) != 1:
        raise cells.Refused(f"field 'answer_info' has the group 'unknown' {len(found)} times, not once")
    return found[0]


def target_loc(people: Sequence[tuple[str, str]], others: Sequence[int], stereotyped: frozenset[str]) -> str:
    """Return the official script's place of the stereotyped person, by groups alone; "100" if none or both are."""
    found = [n for n in others if canonical(people[n][1]) in stereotyped]
    return str(found[0]) if len(found) == 1 else NOWHERE


def canonical(group: str) -> str:
    """Return a group's canonical name: F, M or trans for their translations, else the name in lower case."""
    plain = group.strip().casefold()
    plain = "lowses" if plain == "low ses" else plain
    return "F" if plain in WOMEN else "M" if plain in MEN else "trans" if plain in TRANS else plain


def _stereotyped_people(
    people: Sequence[tuple[str, str]], options: Sequence[str], places: Sequence[int], stereotyped: frozenset[str]
) -> list[int]:
    """Return the indices of stereotyped people, by the options' words if both have the same group.

    Six questions in Spanish, twelve rows, tag both a girl and a boy as "chico".
    """
    groups = [canonical(group) for _, group in people]
    if groups[0] == groups[1]:
        groups = [canonical(options[place].split()[-1]) for place in places]
    return [place for place, group in zip(places, groups, strict=True) if group in stereotyped]


def _people(raw: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Text and group of each answer."""
    info = raw.get("answer_info")
    if not isinstance(info, Mapping):
        raise cells.Refused(f"field 'answer_info' is {cells.kind(info)}, not an object with ans0, ans1 and ans2")
    found = [cells.texts(info.get(name), f"answer_info.{name}", 2) for name in ANSWERS]
    return [(entry[0], entry[-1]) for entry in found]


def _stereotyped(raw: Mapping[str, Any]) -> frozenset[str]:
    metadata = raw.get("additional_metadata")
    if not isinstance(metadata, Mapping):
        raise cells.Refused(f"field 'additional_metadata' is {cells.kind(metadata)}, not an object")
    where = "additional_metadata.stereotyped_groups"
    return frozenset(canonical(group) for group in cells.texts(metadata.get("stereotyped_groups"), where))
