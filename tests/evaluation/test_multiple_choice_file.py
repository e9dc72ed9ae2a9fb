"""Questions of any file: every published layout in both forms, SummEval's pairs, and the metrics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from evenhand.core import registry
from evenhand.data.multiple_choice_file import Row, load
from evenhand.errors import DataError, SettingsError
from evenhand.evaluation.multiple_choice_file import MultipleChoiceFile
from evenhand.interfaces import Choice
from evenhand.testing import check_benchmark

FOUR = ["red", "blue", "green", "grey"]
RACE = [
    {"example_id": "high1.txt", "article": "A story.", "answer": "B", "question": "Which colour?", "options": FOUR},
    {"example_id": "high1.txt", "article": "A story.", "answer": "D", "question": "Which other?", "options": FOUR},
    {"example_id": "middle2.txt", "article": "A tale.", "answer": "A", "question": "Which?", "options": FOUR},
]
COSMOS = [
    {
        "id": f"q{n}",
        "context": "It rained.",
        "question": f"Why {n}?",
        **{f"answer{i}": FOUR[i] for i in range(4)},
        "label": n,
    }
    for n in range(3)
]
RECLOR = [
    {"context": "All x are y.", "question": "So?", "answers": FOUR, "label": label, "id_string": f"train_{n}"}
    for n, label in enumerate(("0", "3", 2))
]
ARC = [
    {
        "id": "a",
        "question": "Which?",
        "choices": {"text": ["ice", "fire", "air"], "label": ["1", "2", "3"]},
        "answerKey": "2",
    }
]
EXPECTED = {
    "race": [
        Row("high1.txt/0", "A story.", "Which colour?", tuple(FOUR), 1, "high"),
        Row("high1.txt/1", "A story.", "Which other?", tuple(FOUR), 3, "high"),
        Row("middle2.txt/0", "A tale.", "Which?", tuple(FOUR), 0, "middle"),
    ],
    "cosmos": [Row(f"q{n}", "It rained.", f"Why {n}?", tuple(FOUR), n, "") for n in range(3)],
    "reclor": [Row(f"train_{n}", "All x are y.", "So?", tuple(FOUR), r, "") for n, r in enumerate((0, 3, 2))],
    "arc": [Row("a", "", "Which?", ("ice", "fire", "air"), 1, "")],
}
RAW: dict[str, list[dict[str, Any]]] = {
    "race": RACE,
    "cosmos": COSMOS,
    "reclor": [{**row, "label": str(row["label"])} for row in RECLOR],
    "arc": ARC,
}


def written(folder: Path, rows: list[dict[str, Any]], name: str) -> str:
    file = folder / name
    if name.endswith(".parquet"):
        pd.DataFrame(rows).to_parquet(file)
    elif name.endswith(".json"):
        file.write_text(json.dumps(rows))
    else:
        file.write_text("\n".join(map(json.dumps, rows)))
    return str(file)


@pytest.mark.parametrize("name", EXPECTED)
def test_the_same_questions_from_every_form(tmp_path: Path, name: str) -> None:
    for kind in ("jsonl", "json", "parquet"):
        found = load(written(tmp_path, RAW[name], f"{name}.{kind}"))
        assert found.rows == EXPECTED[name], kind
        assert not found.facts["dropped"]


def test_official_files_of_race_have_several_questions_of_an_article(tmp_path: Path) -> None:
    folder = tmp_path / "test" / "high"
    folder.mkdir(parents=True)
    raw = {"article": "A story.", "questions": ["One?", "Two?"], "options": [FOUR, FOUR], "answers": ["A", "C"]}
    (folder / "1.txt.json").write_text(json.dumps({**raw, "id": "high1.txt"}))
    (tmp_path / "train.jsonl").write_text(json.dumps({**RACE[2]}))
    assert [(r.id, r.right) for r in load(str(tmp_path / "test")).rows] == [("high1.txt/0", 0), ("high1.txt/1", 2)]
    assert len(load(str(tmp_path)).rows) == 3
    assert [r.id for r in load(str(tmp_path), split="train").rows] == ["middle2.txt/0"]
    with pytest.raises(DataError, match="no file of the split 'dev'"):
        load(str(tmp_path), split="dev")


def test_what_cannot_be_used_is_left_out_with_its_place(tmp_path: Path) -> None:
    rows = [
        RACE[0],
        {**RACE[1], "answer": "E"},
        {**COSMOS[0], "label": -1},
        {"question": "No options?", "answer": 0},
        {"question": "Twice?", "options": ["a", "a"], "answer": 0},
        {"question": "Which?", "options": ["a", "b"]},
        {"id": "q", "question": "By text?", "options": ["no", "yes"], "answer": "yes"},
        {"id": "q", "question": "Again?", "options": ["no", "yes"], "answer": "yes"},
    ]
    found = load(written(tmp_path, rows, "mixed.jsonl"))
    assert [(r.id, r.right) for r in found.rows] == [("high1.txt/0", 1), ("q", 1)]
    reasons = ["'E' is none of the 4", "not published", "no options", "both 'a'", "no right answer", "'q' occurs twice"]
    assert len(found.facts["dropped"]) == len(reasons)
    for reason, line in zip(reasons, found.facts["dropped"], strict=True):
        assert reason in line and "mixed.jsonl:" in line
    with pytest.raises(DataError, match="no usable question"):
        load(written(tmp_path, rows[3:4], "none.jsonl"))


SUMMARIES = {
    "id": "t1",
    "text": "A long report.",
    "machine_summaries": ["Good.", "Fair.", "Fine.", "Poor."],
    "coherence": [5.0, 3.0, 3.0, 1.0],
    "fluency": [1.0, 1.0, 1.0, 1.0],
}


def test_pairs_of_summaries_without_ties(tmp_path: Path) -> None:
    source = written(tmp_path, [SUMMARIES], "summeval.parquet")
    rows = load(source).rows
    assert [r.id for r in rows] == ["t1/0-1", "t1/0-2", "t1/0-3", "t1/1-3", "t1/2-3"], "1 and 2 are equal"
    assert {r.right for r in rows} == {0} and rows[0].options == ("Good.", "Fair.")
    assert {(r.context, r.question) for r in rows} == {("A long report.", "Which summary is more coherent?")}
    with pytest.raises(DataError, match="no usable question"):
        load(source, aspect="fluency")
    turned = {**SUMMARIES, "coherence": [1.0, 3.0, 3.0, 5.0]}
    assert {r.right for r in load(written(tmp_path, [turned], "turned.jsonl")).rows} == {1}


def test_the_benchmark_counts_by_context_group_and_position(tmp_path: Path) -> None:
    bench = MultipleChoiceFile.build(source=written(tmp_path, [*RACE, *ARC], "mixed.jsonl"))
    items = bench.load()
    assert [i.cluster for i in items] == ["high1.txt/0", "high1.txt/0", "middle2.txt/0", "a"]
    answers = [Choice(1), Choice(0), Choice(0), Choice(None, status="unparsed")]
    tally = bench.tally(items, answers)
    got = {name: m.value for name, m in bench.compute(tally.total).items()}
    assert tally.groups == ("overall", "high", "middle")
    assert got["accuracy"] == pytest.approx([0.5, 0.5, 1.0]) and got["unparsed"] == pytest.approx([0.25, 0, 0])
    assert got["position_1"][0] == pytest.approx(2 / 3), "the question with three options does not count"
    assert any("1 of 4 questions do not have 4 options" in note for note in bench.facts()["notes"])
    assert bench.gold(items) == [1, 3, 0, 1]


def test_two_options_have_two_positions_and_both_orders(tmp_path: Path) -> None:
    source = written(tmp_path, [SUMMARIES], "summeval.jsonl")
    bench = MultipleChoiceFile.build(preset="summeval", source=source)
    assert [m.name for m in bench.metrics if m.name.startswith("position_") and m.name[-1].isdigit()] == [
        "position_1",
        "position_2",
    ]
    check_benchmark(bench)
    spec = f"option_order(of=\"multiple_choice_file(preset=summeval,source='{source}')\")"
    assert [len(i.orders) for i in registry.build_benchmark(spec).load()] == [2] * 5
    with pytest.raises(SettingsError, match="options=1 must be 2"):
        MultipleChoiceFile.build(options=1)


def test_the_demo_keeps_the_contract() -> None:
    check_benchmark(MultipleChoiceFile.build(source="demo"))
