"""GG-BBQ (Satheesh et al. 2025, arXiv 2507.16410; shalakasatheesh/GG-BBQ): gender bias in German, after BBQ.

Subset 1 calls people by group terms ("die Frau"), subset 2 by first names. Of every context there are ambiguous and
disambiguated rows at the same index. Many ambiguous rows repeat another one word for word, since templates that differ
only in what disambiguates them have the same beginning.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from evenhand.data.bias_files import count_notes, files_of, read_each
from evenhand.data.bias_rows import BiasRow, BiasRows, ContextKind, sides
from evenhand.data.io import locate
from evenhand.data.io import rows as cells
from evenhand.data.io.checksums import official
from evenhand.errors import DataError

Subset = Literal["all", "groups", "names"]
Repeats = Literal["drop", "keep"]

DATASET = locate.Dataset(
    name="gg_bbq",
    hub="shalakasatheesh/GG-BBQ",
    revision="main",
    patterns=("*.jsonl", "*.json", "*.parquet"),
    licence="CC-BY-4.0",
    home="github.com/shalakasatheesh/GG-BBQ",
    evaluation_only="it is a test set, whose scores mean nothing after training on it",
)
LAYOUTS = ".jsonl or parquet files with GG-BBQ's fields, in the folder or in folders of subsets"
CATEGORY = "Gender_identity"
"""BBQ's name of the axis whose templates were used."""
PUBLISHED = {
    "groups, ambiguous": 484,
    "groups, disambiguated": 484,
    "names, ambiguous": 5450,
    "names, disambiguated": 5450,
}
KINDS: dict[str, ContextKind] = {"ambiguous_context": "ambiguous", "disambiguous_context": "disambiguated"}
POLARITIES: dict[str, Literal["neg", "nonneg"]] = {"negative": "neg", "non_negative": "nonneg"}
GROUPS = ("F", "M", "non_binary", "unknown")
STEREOTYPED = {
    "f": "F",
    "m": "M",
    "trans": "non_binary",
    "transgender women": "non_binary",
    "transgender men": "non_binary",
}
"""Tag of a person by stereotyped group: in these files trans people are tagged non_binary."""


class _Person(NamedTuple):
    text: str
    group: str


def load_rows(source: str, *, subset: Subset = "all", repeats: Repeats = "drop") -> BiasRows:
    """Read GG-BBQ.

    Args:
        source: "auto" ($EVENHAND_DATA/gg_bbq, else the hub), "hub", "hub:NAME", a folder or a file.
        subset: "groups" (people by group terms), "names" (by first names), or "all".
        repeats: Treatment of rows that repeat an earlier one word for word: left out ("drop"), or asked again, so that
            a question weighs as much as it has rows, as in the official files ("keep").

    Raises:
        DataError: There is no data, not one usable row, or more rows than were published.
    """
    path = locate.locate(DATASET, source)
    files = {file: _named(file) for file in files_of(path, "GG-BBQ", LAYOUTS)}
    wanted = {file: partial(row_of, named=named) for file, named in files.items() if _in(subset, named=named)}
    if not wanted:
        raise DataError(
            f"{path} holds no file of GG-BBQ's subset {subset!r}; it has {', '.join(f.name for f in files)}"
        )
    published = {Path(name).stem: digest for name, digest in official(DATASET.name).files.items()}
    rows, facts = read_each(DATASET.name, path, wanted, published)
    counts = Counter(f"{row.extra['subset']}, {row.context_kind}" for row in rows)
    facts["notes"] += count_notes(counts, PUBLISHED, path)
    rows = _clustered(rows)
    kept = _distinct(rows) if repeats == "drop" else rows
    return BiasRows(kept, {**facts, "rows": len(kept), "repeated": len(rows) - len(_distinct(rows))})


def row_of(raw: Mapping[str, Any], named: bool = False) -> BiasRow:
    """Convert a row of a file.

    Args:
        raw: Its fields.
        named: Whether the file is of subset 2, whose people have names.

    Raises:
        ValueError: It cannot be used; the message names the field.
    """
    kind = KINDS[cells.one_of(raw, "context_type", tuple(KINDS))]
    polarity = POLARITIES[cells.one_of(raw, "question_type", tuple(POLARITIES))]
    people = _people(raw)
    unknown = [n for n, person in enumerate(people) if person.group == "unknown"]
    if len(unknown) != 1:
        raise cells.Refused("field 'choice_info' must have the group 'unknown' exactly once")
    stereotyped, others = _stereotyped(raw), [n for n in range(len(people)) if n not in unknown]
    target, counter = sides([n for n in others if people[n].group in stereotyped], others, polarity)
    subset, number = "names" if named else "groups", cells.identifier(raw, "index")
    return BiasRow(
        id=f"{subset}/{kind}/{number}",
        parallel="",
        language="de",
        category=CATEGORY,
        context_kind=kind,
        polarity=polarity,
        context=cells.text(raw, "context"),
        question=cells.text(raw, "question"),
        options=tuple(person.text for person in people),
        gold=cells.index(raw, "label", len(people)),
        unknown=unknown[0],
        target=target,
        counter=counter,
        cluster=f"{subset}/{number}",
        extra=MappingProxyType({"subset": subset, "number": number}),
    )


def _in(subset: Subset, *, named: bool) -> bool:
    return subset == "all" or named == (subset == "names")


def _named(file: Path) -> bool:
    """Whether a file is of the subset with first names, by its own name or its folder's."""
    return any(
        cells.spelling(word) in cells.spelling(f"{file.parent.name} {file.name}") for word in ("proper", "subset2")
    )


def _people(raw: Mapping[str, Any]) -> list[_Person]:
    """Text and group per option, from `choice_info`, whose texts must be those of the options."""
    info = raw.get("choice_info")
    if isinstance(info, str):
        try:
            info = ast.literal_eval(info)
        except cells.UNREADABLE:
            raise cells.Refused(f"field 'choice_info' is {info[:40]!r}, not an object of [text, group]") from None
    if not isinstance(info, Mapping):
        raise cells.Refused(f"field 'choice_info' is {cells.kind(info)}, not an object of [text, group]")
    entries = {str(key): value for key, value in info.items()}
    texts = {f"choice_{n}": cells.text(raw, f"choice_{n}") for n in range(3)}
    cells.different(texts)
    return [_person(entries.get(str(n)), n, text) for n, text in enumerate(texts.values())]


def _person(entry: object, number: int, text: str) -> _Person:
    found = cells.texts(list(entry) if isinstance(entry, list | tuple) else entry, f"choice_info.{number}", 2)
    if found[0] != text:
        raise cells.Refused(f"field 'choice_info.{number}' is of {found[0]!r}, but 'choice_{number}' is {text!r}")
    group = cells.known(found[1], GROUPS)
    if group not in GROUPS:
        raise cells.Refused(f"field 'choice_info.{number}' has the group {group!r}, none of {', '.join(GROUPS)}")
    return _Person(text, group)


def _stereotyped(raw: Mapping[str, Any]) -> set[str]:
    """The tags of the stereotyped groups."""
    names = cells.texts(raw.get("known_stereotyped_groups"), "known_stereotyped_groups")
    strange = [name for name in names if name.casefold() not in STEREOTYPED]
    if strange:
        raise cells.Refused(
            f"field 'known_stereotyped_groups' has {strange[0]!r}; known are {', '.join(STEREOTYPED)} in any case"
        )
    return {STEREOTYPED[name.casefold()] for name in names}


def _clustered(rows: Sequence[BiasRow]) -> list[BiasRow]:
    """Cluster rows with the same ambiguous context and question; a cluster is named by the number of its first row."""
    first: dict[tuple[str, str, str], str] = {}
    cluster: dict[tuple[str, str], str] = {}
    for row in rows:
        if row.ambiguous:
            scene = (row.extra["subset"], row.context, row.question)
            cluster[row.extra["subset"], row.extra["number"]] = first.setdefault(scene, row.cluster)
    return [replace(row, cluster=cluster.get((row.extra["subset"], row.extra["number"]), row.cluster)) for row in rows]


def _distinct(rows: Sequence[BiasRow]) -> list[BiasRow]:
    """Keep the first of all rows with the same words and groups."""
    first: dict[tuple[object, ...], BiasRow] = {}
    for row in rows:
        key = (row.extra["subset"], row.context, row.question, row.options, row.gold, row.target)
        first.setdefault(key, row)
    return list(first.values())
