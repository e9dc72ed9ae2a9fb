"""Multiple-choice questions from any file: RACE, CosmosQA, ReClor, SummEval's pairs, or a table with such columns.

Rows are read by the names of their columns, so that the official file and the hub's copy give the same questions:

| set | columns |
|---|---|
| RACE (ehovy/race, or the official files with several questions each) | article, question, options, answer (a letter) |
| CosmosQA (allenai/cosmos_qa) | context, question, answer0 to answer3, label |
| ReClor | context, question, answers, label, id_string |
| ARC and its like | question, choices (a list, or text and label), answerKey |
| SummEval (mteb/summeval) | text, machine_summaries, and a list of scores per aspect |
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, NamedTuple

from evenhand.core.hashing import bytes_hash
from evenhand.data import mmlu
from evenhand.data.io import locate, rows, tables
from evenhand.errors import DataError

DATASET = locate.Dataset(
    name="multiple_choice_file",
    hub="",
    revision="",
    patterns=(),
    licence="that of your file",
    home="any table of questions with options, such as those of RACE, CosmosQA or ReClor",
)
Layout = Literal["auto", "questions", "summeval"]
Aspect = Literal["coherence", "consistency", "fluency", "relevance"]
ADJECTIVES: dict[str, str] = {
    "coherence": "coherent",
    "consistency": "consistent",
    "fluency": "fluent",
    "relevance": "relevant",
}
CONTEXTS, IDS = ("context", "article", "passage"), ("id", "example_id", "id_string")
OPTIONS, ANSWERS = ("options", "choices", "answers"), ("answer", "label", "gold", "answerKey")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LEVEL = re.compile(r"(high|middle|college)", re.I)


class Row(NamedTuple):
    """One question."""

    id: str
    context: str
    """"" where it has none."""
    question: str
    options: tuple[str, ...]
    right: int
    group: str
    """Part of the set that it is of, such as RACE's level; "" where there are no parts."""


class Loaded(NamedTuple):
    """Questions in file order, and what a report says of them."""

    rows: list[Row]
    facts: dict[str, Any]


def load(source: str, *, layout: Layout = "auto", aspect: Aspect = "coherence", split: str = "") -> Loaded:
    """Read the questions of a file, a folder, or a data set of the hub.

    Args:
        source: "auto" ($EVENHAND_DATA/multiple_choice_file), "demo", a file or folder (`evenhand.data.io.tables`; of a
            folder all files, so that one with RACE's middle, high and college parts is RACE++), or
            "datasets:NAME[@CONFIGURATION][:SPLIT]".
        layout: What rows are: questions, or SummEval's texts; auto finds it out by the columns.
        aspect: Of SummEval: which scores decide.
        split: Of a folder: only files with this word at the beginning of their name or of their folder's; "" is all.

    Returns:
        Usable questions; other rows are listed in `facts["dropped"]`.

    Raises:
        DataError: There is no data, or not one usable question.
    """
    if source == "demo":
        return _demo()
    problems = locate.Problems()
    found: dict[str, Row] = {}
    numbers: Counter[str] = Counter()
    places = [source] if source.startswith(tables.HUB) else [str(f) for f in _files(source, split)]
    for place in places:
        for where, raw in tables.read(place, problems=problems):
            try:
                for row in _questions(raw, where, layout, aspect, len(places) > 1, numbers):
                    if row.id in found:
                        raise rows.Refused(f"id {row.id!r} occurs twice")
                    found[row.id] = row
            except rows.Refused as error:
                problems.lines.append(f"{where}: {error}")
    if not found:
        first = f"; first problem: {problems.lines[0]}" if problems else ""
        raise DataError(f"{source} holds no usable question with options and a right answer{first}")
    return Loaded(list(found.values()), _facts(source, places, list(found.values()), problems))


def _facts(source: str, places: list[str], found: list[Row], problems: locate.Problems) -> dict[str, Any]:
    hub = source.startswith(tables.HUB)
    options = Counter(len(row.options) for row in found)
    return {
        "source": source,
        "files": {} if hub else {place: bytes_hash(Path(place).read_bytes()) for place in places},
        "rows": len(found),
        "questions_by_options": {str(n): options[n] for n in sorted(options)},
        "dropped": problems.lines,
        "notes": [],
    }


def _files(source: str, split: str) -> list[Path]:
    path = locate.locate(DATASET, source)
    found = tables.files(path)
    if not split or path.is_file():
        return found
    kept = [f for f in found if f.name.startswith(split) or f.parent.name.startswith(split)]
    if not kept:
        names = ", ".join(f.name for f in found[:5])
        raise DataError(f"{path} has no file of the split {split!r}; it has {names}")
    return kept


def _questions(
    raw: Mapping[str, Any], where: str, layout: Layout, aspect: Aspect, several: bool, numbers: Counter[str]
) -> Iterator[Row]:
    """The questions of one row.

    Raises:
        Refused: It cannot be used.
    """
    if layout == "summeval" or (layout == "auto" and "machine_summaries" in raw):
        yield from summary_pairs(raw, where, aspect)
        return
    folder, _, line = where.rpartition(":")
    name = next((rows.identifier(raw, n) for n in IDS if raw.get(n) is not None), f"{Path(folder).name}:{line}")
    level = _LEVEL.match(name) or (_LEVEL.search(where) if several else None)
    group = level[1].lower() if level else Path(folder).name.partition(".")[0] if several else ""
    context = next((rows.text(raw, c) for c in CONTEXTS if raw.get(c)), "")
    for question in _each(raw):
        count = numbers[name]
        numbers[name] += 1
        own = "article" in raw or "questions" in raw  # RACE's ids are those of the article
        options, labels = _options(question)
        right = _right(question, options, labels)
        yield Row(f"{name}/{count}" if own else name, context, rows.text(question, "question"), options, right, group)


def _each(raw: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The questions of an official file of RACE, which has several of an article; otherwise the row itself."""
    if "questions" not in raw:
        yield raw
        return
    asked = rows.texts(raw["questions"], "questions")
    options, answers = raw.get("options"), raw.get("answers")
    if not isinstance(options, list) or not isinstance(answers, list) or {len(options), len(answers)} != {len(asked)}:
        raise rows.Refused("fields 'questions', 'options' and 'answers' must be lists of the same length")
    for question, own, answer in zip(asked, options, answers, strict=True):
        yield {"question": question, "options": own, "answer": answer}


def _options(raw: Mapping[str, Any]) -> tuple[tuple[str, ...], list[str]]:
    """The options, and the labels by which the right one may be named."""
    numbered = [n for n in (f"answer{i}" for i in range(len(LETTERS))) if n in raw]
    if numbered:
        found, labels = [rows.text(raw, n) for n in numbered], []
    else:
        name = next((n for n in OPTIONS if n in raw), "")
        if not name:
            raise rows.Refused(f"no options: a field {', '.join(OPTIONS)} or answer0, answer1 ... is needed")
        value = raw[name]
        labels = rows.texts(value["label"], f"{name}.label") if isinstance(value, dict) and "label" in value else []
        found = rows.texts(value.get("text") if isinstance(value, dict) else value, name, at_least=2)
    rows.different({f"option {n}": option for n, option in enumerate(found)}, case=True)
    return tuple(found), labels


def _right(raw: Mapping[str, Any], options: tuple[str, ...], labels: list[str]) -> int:
    """The right option: a letter, a number from 0, one of the labels, or the text of an option."""
    name = next((n for n in ANSWERS if raw.get(n) is not None), "")
    if not name:
        raise rows.Refused(f"no right answer: a field {', '.join(ANSWERS)} is needed")
    value = raw[name]
    if isinstance(value, str):
        told = value.strip()
        ways: tuple[Callable[[], int], ...] = (
            lambda: labels.index(told),
            lambda: options.index(told),
            lambda: LETTERS.index(told.upper()) if len(told) == 1 else -1,
            lambda: int(told),
        )
        for way in ways:
            try:
                index = way()
            except ValueError:
                continue
            if 0 <= index < len(options):
                return index
        raise rows.Refused(f"{name} {told[:40]!r} is none of the {len(options)} options")
    if value == -1:
        raise rows.Refused(f"{name} is -1: the right answers of this part are not published")
    return rows.index(raw, name, len(options))


def summary_pairs(raw: Mapping[str, Any], where: str, aspect: Aspect) -> Iterator[Row]:
    """All pairs of a text's summaries of which raters found one better; of equal scores neither is right.

    Raises:
        Refused: The row has no summaries, or not one score per summary.
    """
    context, summaries = rows.text(raw, "text"), rows.texts(raw.get("machine_summaries"), "machine_summaries", 2)
    scores = raw.get(aspect)
    if not isinstance(scores, list) or len(scores) != len(summaries):
        raise rows.Refused(f"field {aspect!r} must have one score for each of the {len(summaries)} summaries")
    if not all(isinstance(s, int | float) and not isinstance(s, bool) and s == s for s in scores):
        raise rows.Refused(f"field {aspect!r} has a score that is not a number")
    name = rows.identifier(raw, "id") if raw.get("id") is not None else where.rpartition("/")[2]
    question = f"Which summary is more {ADJECTIVES[aspect]}?"
    for one, other in combinations(range(len(summaries)), 2):
        pair = (summaries[one], summaries[other])
        if scores[one] != scores[other] and pair[0] != pair[1]:
            right = int(scores[other] > scores[one])
            yield Row(f"{name}/{one}-{other}", context, question, pair, right, "")


def _demo() -> Loaded:
    """The proving ground's facts, which are MMLU's demo, as such a file."""
    loaded = mmlu.load("demo")
    found = [Row(f"{r.subject}/{r.number}", "", r.question, r.choices, r.right, r.subject) for r in loaded.rows]
    facts = {"source": "demo: the proving ground's facts", "rows": len(found), "dropped": [], "notes": []}
    return Loaded(found, facts)
