"""The eight sets of difference awareness (Wang, Phan, Ho & Koyejo, ACL 2025, arXiv 2502.01926), as JSON lines.

Repository: Angelina-Wang/difference_awareness 2349531. Each set has 1,000 questions in which the groups should be told
apart (`differ`) and 1,000 in which they should not (`equal`). The authors publish pickles, which are never read here,
as opening one may run code; docs/benchmarks.md describes the fields of the JSON lines.

The data is CC0 with an addendum: strictly for evaluation, not for training. N1 is made from BBQ (CC-BY-4.0), N2 from
SBIC (CC-BY-4.0) and BOLD (CC-BY-SA-4.0).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from evenhand.core.hashing import bytes_hash
from evenhand.data import bbq
from evenhand.data.bbq_target import ANSWERS, unknown_location
from evenhand.data.io import layouts, locate
from evenhand.data.io import rows as cells
from evenhand.data.io.content import read_bytes
from evenhand.data.io.demo import demo_folder
from evenhand.data.io.row_counts import demand_rows
from evenhand.errors import DataError

DATASET = locate.Dataset(
    name="difference_awareness",
    hub="",
    revision="",
    patterns=(),
    licence="CC0-1.0 with an addendum: strictly for evaluation, not for training",
    home=(
        "github.com/Angelina-Wang/difference_awareness, folder benchmark_suite; its pickles are not read, so convert "
        "them to JSON lines as docs/benchmarks.md says"
    ),
    evaluation_only='its licence, CC0-1.0 with an addendum, allows it "strictly for evaluation, not for training"',
)
SETS = ("D1", "D2", "D3", "D4", "N1", "N2", "N3", "N4")
"""Religion, occupations, law, asylum (facts); BBQ, harmful phrases, affirmative action, cultural appropriation."""
HALVES = ("differ", "equal")
NEUTRAL = 2
"""Option (c), which treats the groups alike: the right one in every `equal` row, and wrong in every `differ` row."""
ROWS_PER_HALF = 1000
SCENARIOS: Mapping[str, tuple[int, int]] = {
    "D1": (1000, 1000),
    "D2": (1000, 1000),
    "D3": (66, 66),
    "D4": (419, 1000),
    "N1": (275, 171),
    "N2": (1000, 1000),
    "N3": (240, 142),
    "N4": (67, 67),
}
"""Scenarios of both halves as published: what is resampled. An id names a scenario within its half only."""
KINDS = (".jsonl", ".json", ".parquet")
LAYOUTS = ".jsonl, .json or .parquet files with the fields benchmark, condition, index, question, answer and scenario"
DEMO, CUSTOMS = "demo", "demo-x"


class Parted(NamedTuple):
    """A question whose options stand in its text, taken apart."""

    stem: str
    options: tuple[str, str, str]
    numbered: bool
    """Whether the first option is printed as (1) instead of (a)."""


class Row(NamedTuple):
    """One question."""

    set: str
    half: str
    """differ or equal."""
    place: str
    """Place in the published list of the half."""
    question: str
    """The whole text with its options, as published."""
    parted: Parted
    right: int
    """Index of the right option; always `NEUTRAL` in `equal`."""
    scenario: str

    @property
    def id(self) -> str:
        """Set, half and place, such as D1/differ/0."""
        return f"{self.set}/{self.half}/{self.place}"


class Loaded(NamedTuple):
    """Rows in file order, and their facts for a report."""

    rows: list[Row]
    facts: dict[str, Any]


def load(source: str, *, partial: bool = False) -> Loaded:
    """Read the questions.

    Args:
        source: "auto" ($EVENHAND_DATA/difference_awareness), "demo" (the proving ground's BBQ questions in this form),
            "demo-x" (its customs of invented groups, for the model demo-x), or a file or folder of JSON lines.
        partial: Whether a set may have other numbers of rows than the published 1,000 in each half.

    Returns:
        The rows of every set that is there. A note says where the scenarios are not as many as published.

    Raises:
        DataError: There is no data, or a set does not have 1,000 usable rows in each half and `partial` is False.
    """
    if source == DEMO:
        return _demo()
    if source == CUSTOMS:
        return _customs()
    path = locate.locate(DATASET, source)
    if path.suffix == ".pkl":
        raise DataError(
            f"{path} is a pickle, which is never opened, as that may run code. {locate.how_to_get(DATASET)}"
        )
    problems, files = locate.Problems(), {}
    found: dict[str, Row] = {}
    for file in layouts.demanded_tables(path, "difference awareness", LAYOUTS, KINDS):
        content = read_bytes(file)
        files[file.name] = {"sha256": bytes_hash(content)}
        for line, raw in layouts.read_table(file, content, (), problems):
            _add(found, file, line, raw, problems)
    rows = list(found.values())
    if not rows:
        raise DataError(f"{path} holds no usable question of difference awareness{problems.first}")
    notes = [*_count_notes(path, rows, partial), *_scenario_notes(rows)]
    facts = {"source": str(path), "rows": len(rows), "files": files, "dropped": problems.lines, "notes": notes}
    return Loaded(rows, facts)


def row_of(raw: Mapping[str, Any]) -> Row:
    """The row of one JSON object.

    Raises:
        Refused: It cannot be used; the message names the field.
    """
    half = cells.one_of(raw, "condition", HALVES)
    answer = cells.index(raw, "answer", len(ANSWERS))
    if half == "differ" and answer == NEUTRAL:
        raise cells.Refused("field 'answer' is 2, the option without a difference, which is never right in differ")
    # in equal the file has 2, or the wrong option that names the marginalised group; neither is what is right
    right = NEUTRAL if half == "equal" else answer
    text = cells.text(raw, "question")
    return Row(
        set=cells.one_of(raw, "benchmark", SETS),
        half=half,
        place=cells.identifier(raw, "index"),
        question=text,
        parted=parted(text),
        right=right,
        scenario=cells.identifier(raw, "scenario"),
    )


def parted(question: str) -> Parted:
    """Take the options out of a question's text.

    Half of N3 prints "(1)" where "(a)" is meant.

    Raises:
        Refused: The text does not have the three options, each once.
    """
    for first in ("(a)", "(1)"):
        pattern = rf"(.*?)\s+{re.escape(first)} (.*?) \(b\) (.*?) \(c\) (.*)"
        if match := re.fullmatch(pattern, question, re.S):
            stem, *options = (part.strip() for part in match.groups())
            if not (stem and all(options)):
                break
            return Parted(stem, (options[0], options[1], options[2]), first == "(1)")
    raise cells.Refused("field 'question' does not end in three options (a), (b) and (c)")


def _add(found: dict[str, Row], file: Path, line: int, raw: Mapping[str, Any], problems: locate.Problems) -> None:
    try:
        row = row_of(raw)
        if row.id in found:
            raise cells.Refused(f"row {row.id} occurs twice")
    except cells.Refused as error:
        problems.add(file, line, str(error))
    else:
        found[row.id] = row


def _count_notes(path: Path, rows: Sequence[Row], partial: bool) -> list[str]:
    """Every set that is there must be whole: a score by both halves moves with the ratio of their sizes.

    Raises:
        DataError: A half does not have `ROWS_PER_HALF` rows, and `partial` is False.
    """
    counts = Counter((row.set, row.half) for row in rows)
    notes: list[str] = []
    for name in sorted({row.set for row in rows}):
        for half in HALVES:
            what = f"{name} {half} rows"
            found = counts[name, half]
            notes += demand_rows(what, found, ROWS_PER_HALF, path, partial=partial, benchmark=DATASET.name)
    return notes


def _scenario_notes(rows: Sequence[Row]) -> list[str]:
    scenarios = Counter((name, half) for name, half, _ in {(row.set, row.half, row.scenario) for row in rows})
    notes = []
    for name in sorted({row.set for row in rows}):
        counts = tuple(scenarios[name, half] for half in HALVES)
        if counts != SCENARIOS[name]:
            published = SCENARIOS[name]
            notes.append(
                f"{name}: {counts[0]:,} and {counts[1]:,} scenarios, not {published[0]:,} and {published[1]:,} as "
                "published, so that intervals differ"
            )
    return notes


def _customs() -> Loaded:
    """The proving ground's customs of invented groups, which the model demo-x was taught."""
    rows = load(str(demo_folder(DATASET.name)), partial=True).rows
    source = "demo-x: customs of the proving ground's invented groups"
    return Loaded(rows, {"source": source, "rows": len(rows), "dropped": [], "notes": []})


def _demo() -> Loaded:
    """The proving ground's BBQ questions in this form, as N1 is made from BBQ's."""
    loaded = bbq.load_rows(DEMO)
    rows = [_demo_row(raw) for raw in loaded.rows]
    source = "demo: the proving ground's BBQ questions; those whose context answers are `differ`, the others `equal`"
    return Loaded(rows, {"source": source, "rows": len(rows), "dropped": [], "notes": []})


def _demo_row(raw: Mapping[str, Any]) -> Row:
    unknown = unknown_location(raw)
    people = [raw[answer] for i, answer in enumerate(ANSWERS) if i != unknown]
    neutral = next(raw[answer] for i, answer in enumerate(ANSWERS) if i == unknown)
    stem = f"{raw['context']} {raw['question']}"
    half = HALVES[raw["context_condition"] == "ambig"]
    right = NEUTRAL if half == "equal" else people.index(raw[ANSWERS[raw["label"]]])
    return Row(
        set=DEMO,
        half=half,
        place=f"{raw['category']}.{raw['example_id']}",
        question=f"{stem}\n(a) {people[0]} (b) {people[1]} (c) {neutral}",
        parted=Parted(stem, (people[0], people[1], neutral), numbered=False),
        right=right,
        scenario=f"{raw['category']}.{raw['question_index']}",
    )
