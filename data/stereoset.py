"""StereoSet (Nadeem et al. 2021, arXiv 2004.09456; moinnadeem/StereoSet): the development set, flat or as released."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from evenhand.core.hashing import bytes_hash
from evenhand.data.io import locate, rows
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
    """Examples in file order, and what a report says of them."""

    examples: list[Example]
    facts: dict[str, Any]


def load_examples(source: str) -> Loaded:
    """Read StereoSet's examples.

    Args:
        source: "auto" ($EVENHAND_DATA/stereoset), "demo" (the proving ground's, of the package) or a path: the released
            dev.json, a .jsonl file with the fields type, target, bias_type, context, stereotype, anti-stereotype and
            unrelated, or a folder that holds one of them.

    Returns:
        Usable examples; the others are listed in `facts["dropped"]`.

    Raises:
        DataError: There is no data, or not one usable example.
    """
    demo = source == "demo"
    file = _file(demo_folder("stereoset") if demo else locate.locate(DATASET, source))
    content = read_bytes(file)
    problems = locate.Problems()
    found = _released(file, content) if ".jsonl" not in file.name else locate.read_jsonl(file, content, problems)
    examples = []
    for number, row in found:
        reason = _wrong(row)
        if reason:
            problems.add(file, number, reason)
        else:
            examples.append(_example(row))
    if not examples:
        first = f"; first problem: {problems.lines[0]}" if problems else ""
        raise DataError(f"{file} holds no usable StereoSet example{first}")
    facts = {
        "source": "demo: the proving ground's sentences, not StereoSet" if demo else str(file),
        "sha256": bytes_hash(content),
        "examples": len(examples),
        "dropped": problems.lines,
    }
    return Loaded(examples, facts)


def _file(path: Path) -> Path:
    if path.is_file():
        return path
    for pattern in ("*.jsonl", "*.jsonl.gz", "data/dev.json", "dev.json"):
        found = sorted(path.glob(pattern))
        if len(found) > 1:
            raise DataError(f"{path} holds several sets ({', '.join(f.name for f in found)}); name one file")
        if found:
            return found[0]
    raise DataError(f"{path} holds no .jsonl file and no dev.json")


def _released(file: Path, content: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of the released, nested file, in the form of the flat one; numbered by example."""
    try:
        data = rows.from_json(rows.decoded(content))["data"]
        nested = [(kind, example) for kind in TYPES for example in data[kind]]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file} is not StereoSet's dev.json: {type(error).__name__} {error}") from error
    for number, (kind, example) in enumerate(nested, start=1):
        if not isinstance(example, Mapping):
            yield number, {}
            continue
        row: dict[str, Any] = {"type": kind, **{k: example.get(k) for k in ("target", "bias_type", "context")}}
        sentences = example.get("sentences")
        for sentence in sentences if isinstance(sentences, list) else ():
            label = sentence.get("gold_label") if isinstance(sentence, Mapping) else None
            if label in LABELS:  # of a label that is there twice neither sentence is taken
                row[label] = ["given twice"] if label in row else sentence.get("sentence")
        yield number, row


def _wrong(row: Mapping[str, Any]) -> str:
    """What keeps a row from being used, or ""."""
    for name in ("type", "target", "bias_type", "context", *LABELS):
        try:
            rows.text(row, name)
        except rows.Refused as error:
            return str(error) if row.get(name) else f"field {name!r} is missing or empty"
    return "" if row["type"] in TYPES else f"type {row['type']!r} is none of {', '.join(TYPES)}"


def _example(row: Mapping[str, Any]) -> Example:
    target, bias_type, *texts = (rows.text(row, name) for name in ("target", "bias_type", "context", *LABELS))
    return Example(row["type"], target, rows.known(bias_type, BIAS_TYPES), *texts)
