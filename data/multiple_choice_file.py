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
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, NamedTuple

from evenhand.core.hashing import bytes_hash
from evenhand.data import mmlu
from evenhand.data import multiple_choice_gold as gold
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
OPTIONS = ("options", "choices", "answers")
UNKNOWN = -1
"""The right option of a question while it is still to be found."""
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
    """Questions in file order, and their facts for a report."""

    rows: list[Row]
    facts: dict[str, Any]


class _Read(NamedTuple):
    """One question before its right option is known, which the other rows of its file may have to tell."""

    where: str
    name: str
    """The id that the row was given, or its place."""
    row: Row
    told: gold.Gold | None
    """None where `row.right` is known."""


def load(
    source: str,
    *,
    layout: Layout = "auto",
    aspect: Aspect = "coherence",
    split: str = "",
    gold_as: gold.GoldAs = "auto",
) -> Loaded:
    """Read the questions of a file, a folder, or a data set of the hub.

    Args:
        source: "auto" ($EVENHAND_DATA/multiple_choice_file), "demo", a file or folder (`evenhand.data.io.tables`; of a
            folder all files, so that one with RACE's middle, high and college parts is RACE++), or
            "datasets:NAME[@CONFIGURATION][:SPLIT]".
        layout: What rows are: questions, or SummEval's texts; auto finds it out by the columns.
        aspect: Scores that decide in SummEval.
        split: For a folder, the first word of the names of files, or the name of folders, that are read; "" is all.
        gold_as: How the right option is written; auto takes every form, and refuses rows with two possible answers
            unless the other rows of the column show its form.

    Returns:
        Usable questions; other rows are listed in `facts["dropped"]`, and repeated ones counted in `facts["repeated"]`.

    Raises:
        DataError: There is no data, or not one usable question.
    """
    if source == "demo":
        return _demo()
    collected = _Collected(gold_as)
    numbers: Counter[str] = Counter()
    places = [source] if source.startswith(tables.HUB) else [str(f) for f in _files(source, split)]
    for place in places:
        found: list[_Read | str] = []
        for where, raw in tables.read(place, problems=collected.problems):
            try:
                found.extend(_questions(raw, where, layout, aspect, len(places) > 1, numbers))
            except rows.Refused as error:
                found.append(f"{where}: {error}")
        collected.add(place, found)
    if not collected.rows:
        raise DataError(f"{source} holds no usable question with options and a right answer{collected.problems.first}")
    return Loaded(list(collected.rows.values()), _facts(source, places, collected))


class _Collected:
    """The usable questions of the files read so far, each once."""

    def __init__(self, gold_as: gold.GoldAs) -> None:
        """Start without questions."""
        self.gold_as = gold_as
        self.rows: dict[str, Row] = {}
        self.problems = locate.Problems()
        self.repeated = 0
        self.decided: Counter[tuple[str, gold.Form]] = Counter()
        """Ambiguous rows by their field and the form that the other rows of their file show."""
        self._first: dict[tuple[Any, ...], str] = {}
        self._names: set[tuple[Any, ...]] = set()

    def add(self, place: str, found: list[_Read | str]) -> None:
        """Add the questions of one file; a text is what is wrong with a row."""
        columns: dict[str, list[gold.Gold]] = {}
        for read in found:
            if isinstance(read, _Read) and read.told is not None:
                columns.setdefault(read.told.field, []).append(read.told)
        common = {field: gold.common_form(golds) for field, golds in columns.items()}
        for read in found:
            if isinstance(read, str):
                self.problems.lines.append(read)
                continue
            try:
                self._add(place, read, common)
            except rows.Refused as error:
                self.problems.lines.append(f"{read.where}: {error}")

    def _add(self, place: str, read: _Read, common: Mapping[str, gold.Form | None]) -> None:
        row = read.row
        form = common[read.told.field] if read.told is not None else None
        if read.told is not None:
            row = row._replace(right=gold.right(read.told, self.gold_as, form))
        if self._is_repeated(place, read.name, row):
            self.repeated += 1
            return
        if row.id in self.rows:
            raise rows.Refused(f"id {row.id!r} occurs twice")
        self.rows[row.id] = row
        if self.gold_as == "auto" and form is not None and read.told is not None and read.told.ambiguous:
            self.decided[read.told.field, form] += 1

    def _is_repeated(self, place: str, name: str, row: Row) -> bool:
        """Whether the question is also in an earlier file, as in a folder all/, or has the same id in this one.

        Equal questions of one file with different ids are the set's own, and count as they do in published results.
        """
        content = (row.context, row.question, row.options, row.right)
        first = self._first.setdefault(content, place)
        known = (*content, name) in self._names
        self._names.add((*content, name))
        return known or first != place


def _facts(source: str, places: list[str], collected: _Collected) -> dict[str, Any]:
    hub = source.startswith(tables.HUB)
    options = Counter(len(row.options) for row in collected.rows.values())
    notes = [
        f"rows whose {field!r} could mean two options: {count:,}, read as the {form}, the one form that fits all rows "
        "of their file"
        for (field, form), count in sorted(collected.decided.items())
    ]
    if collected.repeated:
        notes.append(
            f"repeated questions left out: {collected.repeated:,}, with texts and right option of an earlier one"
        )
    return {
        "source": source,
        "files": {} if hub else {place: bytes_hash(Path(place).read_bytes()) for place in places},
        "rows": len(collected.rows),
        "questions_by_options": {str(n): options[n] for n in sorted(options)},
        "gold_as": collected.gold_as,
        "gold_decided_by_file": sum(collected.decided.values()),
        "repeated": collected.repeated,
        "dropped": collected.problems.lines,
        "notes": notes,
    }


def _files(source: str, split: str) -> list[Path]:
    path = locate.locate(DATASET, source)
    found = tables.files(path)
    if not split or path.is_file():
        return found
    kept = [f for f in found if _is_of_split(f.relative_to(path), split)]
    if not kept:
        names = ", ".join(str(f.relative_to(path)) for f in found[:5])
        raise DataError(f"{path} has no file of the split {split!r}; it has {names}")
    return kept


def _is_of_split(file: Path, split: str) -> bool:
    """Whether a folder is the split (train/high/1.txt), or the file's first word is (train-00000-of-00001.parquet)."""
    return split in file.parts[:-1] or re.match(rf"{re.escape(split)}(?![^\W_])", file.name) is not None


def _questions(
    raw: Mapping[str, Any], where: str, layout: Layout, aspect: Aspect, several: bool, numbers: Counter[str]
) -> Iterator[_Read]:
    """The questions of one row.

    Raises:
        Refused: It cannot be used.
    """
    if layout == "summeval" or (layout == "auto" and "machine_summaries" in raw):
        yield from (_Read(where, row.id, row, None) for row in summary_pairs(raw, where, aspect))
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
        options = _options(question)
        asked, told = rows.text(question, "question"), gold.read(question, options)
        row = Row(f"{name}/{count}" if own else name, context, asked, options.texts, UNKNOWN, group)
        yield _Read(where, name, row, told)


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


def _options(raw: Mapping[str, Any]) -> gold.Options:
    """The options, and the labels by which the right one may be named."""
    numbers = [n for n in range(len(gold.LETTERS)) if f"answer{n}" in raw]
    if numbers:
        found, labels = _numbered(raw, numbers), []
    else:
        name = next((n for n in OPTIONS if n in raw), "")
        if not name:
            raise rows.Refused(f"no options: a field {', '.join(OPTIONS)} or answer0, answer1 ... is needed")
        value = raw[name]
        labels = rows.texts(value["label"], f"{name}.label") if isinstance(value, dict) and "label" in value else []
        found = rows.texts(value.get("text") if isinstance(value, dict) else value, name, at_least=2)
        if labels and (len(labels) != len(found) or len(set(labels)) < len(labels)):
            raise rows.Refused(f"field '{name}.label' must have {len(found)} different labels, one per option")
    rows.different({f"option {n}": option for n, option in enumerate(found)}, case=True)
    from_zero = numbers[:1] in ([], [0]) and not any(label.isdecimal() for label in labels)
    return gold.Options(tuple(found), tuple(labels), from_zero)


def _numbered(raw: Mapping[str, Any], numbers: list[int]) -> list[str]:
    """Options in columns of their own, whose numbers must not have a gap, as an index would name another column."""
    if gaps := sorted(set(range(numbers[0], numbers[-1])) - set(numbers)):
        known, missing = (", ".join(f"answer{n}" for n in some) for some in (numbers, gaps))
        raise rows.Refused(
            f"fields {known} have a gap: {missing} is missing, so it is open which option an index means"
        )
    return [rows.text(raw, f"answer{n}") for n in numbers]


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
