"""Reading difference awareness: the published rows and their options, a set of one's own, and what is refused."""

from __future__ import annotations

import json
import pickle
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from evenhand.data.difference_awareness import SCENARIOS, Parted, load, parted, row_of
from evenhand.data.io.rows import Refused
from evenhand.errors import DataError

STORED = ("D1", "D2", "D3", "D4", "N2", "N3", "N4")


def raw(name: str, half: str, index: int, **changed: Any) -> dict[str, Any]:
    row = {
        "benchmark": name,
        "condition": half,
        "index": index,
        "question": f"Who was late, number {index}?\n(a) Ann {index} (b) Bob {index} (c) Nobody can know",
        "answer": index % 2,
        "scenario": str(index % (275 if half == "differ" else 171)),
    }
    return row | changed


def whole(name: str) -> list[dict[str, Any]]:
    return [raw(name, half, index) for half in ("differ", "equal") for index in range(1000)]


def written(file: Path, rows: list[dict[str, Any]]) -> str:
    file.write_text("\n".join(map(json.dumps, rows)))
    return str(file)


def test_the_published_rows_are_all_there(real_difference_awareness: Path) -> None:
    loaded = load(str(real_difference_awareness))
    counts = Counter((row.set, row.half) for row in loaded.rows)
    assert counts == {(name, half): 1000 for name in STORED for half in ("differ", "equal")}
    scenarios = {(row.set, row.half, row.scenario) for row in loaded.rows}
    found = Counter((name, half) for name, half, _ in scenarios)
    assert {name: (found[name, "differ"], found[name, "equal"]) for name in STORED} == {n: SCENARIOS[n] for n in STORED}
    assert loaded.facts["notes"] == loaded.facts["dropped"] == [] and loaded.facts["rows"] == 14_000
    assert {row.right for row in loaded.rows if row.half == "equal"} == {2}
    assert {row.right for row in loaded.rows if row.half == "differ"} == {0, 1}


def test_options_are_found_in_every_published_row(real_difference_awareness: Path) -> None:
    rows = load(str(real_difference_awareness)).rows
    assert Counter(row.set for row in rows if row.parted.numbered) == {"N3": 1007}
    for row in rows:
        first = "(1)" if row.parted.numbered else "(a)"
        a, b, c = row.parted.options
        joined = f"{row.parted.stem} {first} {a} (b) {b} (c) {c}"
        assert row.question.split() == joined.split() and len({a, b, c}) == 3, row.id


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("Who?\n(a) x (b) y (c) both", Parted("Who?", ("x", "y", "both"), False)),
        ("Who? (1) x (b) y z (c) both\nof them", Parted("Who?", ("x", "y z", "both\nof them"), True)),
        ("Which (1) of them? (a) x (b) y (c) both", Parted("Which (1) of them?", ("x", "y", "both"), False)),
    ],
)
def test_options_in_both_printed_forms(question: str, expected: Parted) -> None:
    assert parted(question) == expected


@pytest.mark.parametrize("question", ["Who?", "Who? (a) x (c) both", "Who? (b) x (a) y (c) both", "(a) x (b) y (c) z"])
def test_a_text_without_three_options_is_refused(question: str) -> None:
    with pytest.raises(Refused, match="three options"):
        parted(question)


def test_the_stored_answer_of_an_equal_row_is_not_the_right_one() -> None:
    assert [row_of(raw("N1", "equal", 1, answer=a)).right for a in (0, 1, 2)] == [2, 2, 2]
    assert [row_of(raw("N1", "differ", 1, answer=a)).right for a in (0, 1)] == [0, 1]
    with pytest.raises(Refused, match="never right in differ"):
        row_of(raw("N1", "differ", 1, answer=2))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"benchmark": "D9"}, "benchmark 'D9' is none of D1, D2"),
        ({"condition": "other"}, "neither 'differ' nor 'equal'"),
        ({"answer": 3}, "answer 3 is none of 0, 1, 2"),
        ({"scenario": None}, "'scenario' is null"),
        ({"question": " "}, "'question' is empty"),
    ],
)
def test_a_row_that_cannot_be_used_says_why(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(Refused, match=message):
        row_of(raw("N1", "differ", 0, **changed))


def test_no_question_occurs_with_its_groups_exchanged(real_difference_awareness: Path) -> None:
    """But for eight pairs of phrases in N2; so there is no counterfactual consistency to measure."""
    rows = load(str(real_difference_awareness)).rows
    there = {(row.set, row.half, row.parted.stem, row.parted.options) for row in rows}
    turned = Counter()
    for row in rows:
        a, b, c = row.parted.options
        neutral = c.replace(a, "\0").replace(b, a).replace("\0", b)
        keys = {(row.set, row.half, row.parted.stem, (b, a, last)) for last in (c, neutral)}
        turned[row.set] += bool(keys & there)
    assert +turned == {"N2": 16}


def test_a_set_of_ones_own_in_the_same_form(tmp_path: Path) -> None:
    lines = load(written(tmp_path / "N1.jsonl", whole("N1")))
    assert len(lines.rows) == 2000 and lines.facts["notes"] == []
    table = pd.DataFrame(whole("N1"))
    table.to_parquet(tmp_path / "N1.parquet")
    assert load(str(tmp_path / "N1.parquet")).rows == lines.rows, "the same rows from both forms"


def test_other_scenarios_than_published_are_noted(tmp_path: Path) -> None:
    rows = [row | {"scenario": "one"} for row in whole("N1")]
    (note,) = load(written(tmp_path / "N1.jsonl", rows)).facts["notes"]
    assert note.startswith("N1: 1 and 1 scenarios, not 275 and 171 as published")


def test_a_set_that_is_not_whole_is_refused_unless_asked_for(tmp_path: Path) -> None:
    rows = whole("N1")
    source = written(tmp_path / "N1.jsonl", [*rows[:999], *rows[1000:]])
    with pytest.raises(DataError, match=r"has 999 N1 differ rows, the published data 1,000"):
        load(source)
    loaded = load(source, partial=True)
    assert len(loaded.rows) == 1999 and "cannot be compared" in loaded.facts["notes"][0]


def test_a_row_that_is_there_twice_counts_once(tmp_path: Path) -> None:
    loaded = load(written(tmp_path / "N1.jsonl", [*whole("N1"), raw("N1", "equal", 999)]))
    assert len(loaded.rows) == 2000 and "N1/equal/999 occurs twice" in loaded.facts["dropped"][0]


def test_pickles_are_never_read(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "ran",)

    file = tmp_path / "N1_1k.pkl"
    file.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(DataError, match="is a pickle, which is never opened"):
        load(str(file))
    with pytest.raises(DataError, match="in no known layout"):
        load(str(tmp_path))
    assert not (tmp_path / "ran").exists()


def test_sets_may_lie_in_files_of_their_own(real_difference_awareness: Path, tmp_path: Path) -> None:
    for name in ("D4", "N4"):
        shutil.copy(real_difference_awareness / f"{name}.jsonl.gz", tmp_path)
    loaded = load(str(tmp_path))
    assert Counter(row.set for row in loaded.rows) == {"D4": 2000, "N4": 2000}
    assert set(loaded.facts["files"]) == {"D4.jsonl.gz", "N4.jsonl.gz"}
