"""StereoSet (Nadeem et al. 2021, arXiv 2004.09456; moinnadeem/StereoSet): the development set, flat or as released."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from evenhand.core.hashing import bytes_hash
from evenhand.data.io import layouts, locate, on_disk, rows
from evenhand.data.io.content import read_bytes
from evenhand.data.io.demo import demo_folder
from evenhand.errors import DataError

DATASET = locate.Dataset(
    name="stereoset",
    hub="",
    revision="",
    patterns=(),
    licence="CC-BY-SA-4.0",
    home="github.com/moinnadeem/StereoSet, data/dev.json (or one JSON object a line, see the documentation)",
)
TYPES = ("intrasentence", "intersentence")
BIAS_TYPES = ("gender", "profession", "race", "religion")
LABELS = ("stereotype", "anti-stereotype", "unrelated")
COUNTS = {"intersentence": 2_123, "intrasentence": 2_106}
"""Examples of each kind in the published development set."""


TWICE = ["given twice"]
"""Stands for the sentence of a label that an example has twice."""
HUB_LABELS = ("anti-stereotype", "stereotype", "unrelated")
"""What the numbers of `gold_label` stand for in the hub's copy (McGill-NLP/stereoset)."""
KINDS = (".jsonl", ".json", ".parquet", ".arrow")
_SPLIT = re.compile(r"(train|validation|valid|val|dev|test)(?![a-z])", re.IGNORECASE)
LAYOUTS = (
    "the released dev.json, a jsonl file with type, target, bias_type, context and the three sentences, or the hub's "
    "parquet or arrow files with a column sentences"
)


class Example(NamedTuple):
    """One context with its three continuations."""

    kind: str
    """"intrasentence" or "intersentence"."""
    target: str
    """The term that the stereotype is about."""
    bias_type: str
    context: str
    """The sentence before (intersentence), or the sentence with BLANK in it."""
    stereotype: str
    anti_stereotype: str
    unrelated: str


class Loaded(NamedTuple):
    """Examples in file order, and their facts for a report."""

    examples: list[Example]
    facts: dict[str, Any]


def load_examples(source: str) -> Loaded:
    """Read StereoSet's examples.

    Args:
        source: "auto" ($EVENHAND_DATA/stereoset), "demo" (the proving ground's, of the package) or a path: the released
            dev.json, a .jsonl file with the fields type, target, bias_type, context, stereotype, anti-stereotype and
            unrelated, the hub's parquet or arrow files, or a folder that holds one of them.

    Returns:
        Usable examples; the others are listed in `facts["dropped"]`.

    Raises:
        DataError: There is no data, or not one usable example.
    """
    demo = source == "demo"
    path = demo_folder("stereoset") if demo else locate.locate(DATASET, source)
    contents = {file: read_bytes(file) for file in _files(path)}
    problems = locate.Problems()
    notes = on_disk.unread(layouts.other_tables(path, contents, KINDS), path, "one set is read")
    examples = _once({file: list(_usable(file, contents[file], problems)) for file in contents}, notes)
    place = next(iter(contents)) if len(contents) == 1 else path
    if not examples:
        raise DataError(f"{place} holds no usable StereoSet example{problems.first}")
    kinds = {example.kind for example in examples}
    if len(kinds) == 1:
        notes.append(f"only {kinds.pop()} examples; StereoSet has both kinds")
    facts = {
        "source": "demo: the proving ground's sentences, not StereoSet" if demo else str(place),
        "sha256": bytes_hash(*contents.values()),
        "examples": len(examples),
        "dropped": problems.lines,
        **({"notes": notes} if notes else {}),
    }
    return Loaded(examples, facts)


def check_count(found: int, kinds: Sequence[str], source: str) -> None:
    """Refuse a copy without the published number of examples, after which training sets are named (TV-2k).

    Args:
        found: Number of examples read.
        kinds: The kinds that they are of.
        source: Where they were read, for the message.

    Raises:
        DataError: Names both numbers.
    """
    wanted = sum(COUNTS[kind] for kind in kinds)
    if found != wanted:
        raise DataError(
            f"{source} has {found:,} examples of the kind {' and '.join(kinds)}, but StereoSet's development set has "
            f"{wanted:,}; take the published file, or train on a file of texts of your own"
        )


def _usable(file: Path, content: bytes, problems: locate.Problems) -> Iterator[Example]:
    """The examples of one file that can be used."""
    listed = re.match(rb"(\xef\xbb\xbf)?\s*\[\s*\{", content) is not None
    found: Iterable[tuple[int, dict[str, Any]]]
    if layouts.kind_of(file) in layouts.TABLES and (layouts.kind_of(file) != ".json" or listed):
        found = ((n, _flat(row, file)) for n, row in layouts.read_table(file, content, (), problems))
    else:
        found = _released(file, content)
    for number, row in found:
        if reason := _wrong(row):
            problems.add(file, number, reason)
        else:
            yield _example(row)


def _files(path: Path) -> list[Path]:
    """One file; of the hub's copy those of both kinds.

    Raises:
        DataError: There is none, or these are several sets; the message names them.
    """
    if path.is_file():
        return [path]
    lines = on_disk.visible(path, "*.jsonl", "*.jsonl.gz")
    if len(lines) > 1:
        raise DataError(f"{path} holds several sets, {on_disk.listed(lines, path)}; name one file as the source")
    if lines:
        return lines
    if released := on_disk.named(path, "dev.json"):
        return [released]
    found = layouts.demanded_tables(path, "StereoSet", LAYOUTS, (".parquet", ".arrow", ".json", ".jsonl"))
    splits = sorted({split for file in found if (split := _split(file.relative_to(path)))})
    if len(splits) > 1:
        raise DataError(
            f"{path} holds the splits {', '.join(splits)} in {on_disk.listed(found, path)}, and scores are of one "
            "split; name one file or folder as the source"
        )
    return found


def _split(file: Path) -> str:
    """The split that a file's name or folders begin with, under one name; "" where they name none."""
    found = next((m for part in reversed(file.parts) if (m := _SPLIT.match(part))), None)
    return "" if found is None else "test" if found[1] == "test" else "train" if found[1] == "train" else "dev"


def _once(found: Mapping[Path, list[Example]], notes: list[str]) -> list[Example]:
    """The examples of all files; what an earlier file has already is left out, with a note that counts it.

    Examples that one file has twice are the set's own, and count as they do in published results.
    """
    examples: list[Example] = []
    seen: set[Example] = set()
    for file, own in found.items():
        new = [example for example in own if example not in seen]
        if len(new) < len(own):
            notes.append(
                f"{on_disk.short(file.name)}: {len(own) - len(new):,} of {len(own):,} examples are in an earlier file, "
                "too, and count once"
            )
        examples += new
        seen.update(own)
    return examples


def _released(file: Path, content: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of the released, nested file, in the form of the flat one; numbered by example."""
    try:
        data = rows.from_json(rows.decoded(content))["data"]
        if not isinstance(data, Mapping) or not any(kind in data for kind in TYPES):
            raise KeyError(" and ".join(TYPES))
        nested = [(kind, example) for kind in TYPES for example in data.get(kind, [])]
    except (ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__} {error}"[:200]
        raise DataError(f"{file} is not StereoSet's dev.json: {reason}. Known are {LAYOUTS}") from error
    for number, (kind, example) in enumerate(nested, start=1):
        if not isinstance(example, Mapping):
            yield number, {}
            continue
        row: dict[str, Any] = {"type": kind, **{k: example.get(k) for k in ("target", "bias_type", "context")}}
        sentences = example.get("sentences")
        for sentence in sentences if isinstance(sentences, list) else ():
            label = sentence.get("gold_label") if isinstance(sentence, Mapping) else None
            if isinstance(label, str) and label in LABELS:  # of a label that is there twice neither sentence is taken
                row[label] = TWICE if label in row else sentence.get("sentence")
        yield number, row


def _flat(row: dict[str, Any], file: Path) -> dict[str, Any]:
    """A row of the hub's copy in the form of the flat file, whose rows stay as they are.

    The kind is that of a column, or of the folder of the configuration.
    """
    sentences = row.get("sentences")
    if not isinstance(sentences, Mapping):
        return row
    named = row.get("type") or next((part for part in file.parts[-3:] for k in TYPES if part == k), None)
    kind = named or next((k for k in TYPES if k in file.name), None) or _by_context(row)
    found: dict[str, Any] = {"type": kind, **{k: row.get(k) for k in ("target", "bias_type", "context")}}
    texts, labels = sentences.get("sentence"), sentences.get("gold_label")
    if isinstance(texts, list) and isinstance(labels, list):
        for text, label in zip(texts, labels, strict=False):
            name = HUB_LABELS[label] if type(label) is int and label in (0, 1, 2) else label
            if isinstance(name, str) and name in LABELS:
                found[name] = TWICE if name in found else text
    return found


def _by_context(row: Mapping[str, Any]) -> str:
    """Return the kind of an example by its context: only an intrasentence example has a blank."""
    return "intrasentence" if "BLANK" in str(row.get("context")) else "intersentence"


def _wrong(row: Mapping[str, Any]) -> str:
    """Return why a row cannot be used, or ""."""
    for name in ("type", "target", "bias_type", "context", *LABELS):
        if row.get(name) == TWICE:
            return f"field {name!r} is a list: two sentences have this label"
        try:
            rows.text(row, name)
        except rows.Refused as error:
            return str(error) if row.get(name) else f"field {name!r} is missing or empty"
    return "" if row["type"] in TYPES else f"type {row['type']!r} is none of {', '.join(TYPES)}"


def _example(row: Mapping[str, Any]) -> Example:
    target, bias_type, *texts = (rows.text(row, name) for name in ("target", "bias_type", "context", *LABELS))
    return Example(row["type"], target, rows.known(bias_type, BIAS_TYPES), *texts)
