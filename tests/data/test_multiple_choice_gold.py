"""The right option of a row by every form, what is ambiguous, what is repeated, and which files a split is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evenhand.data.multiple_choice_file import Loaded, _is_of_split, load
from evenhand.data.multiple_choice_gold import GoldAs
from evenhand.errors import DataError, SettingsError
from evenhand.evaluation.multiple_choice_file import MultipleChoiceFile

DOWN, LETTERS, WORDS = ["3", "2", "1", "0"], ["B", "A"], ["red", "blue", "green", "grey"]


def row(options: Any, answer: Any, **more: Any) -> dict[str, Any]:
    return {"question": "Which?", "options": options, "answer": answer, **more}


def asked(folder: Path, rows: list[dict[str, Any]], name: str = "all.jsonl", **settings: Any) -> Loaded:
    """The questions of a file with these rows."""
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(json.dumps({"id": f"q{n}", **r}) for n, r in enumerate(rows)))
    return load(str(file), **settings)


def test_columns_with_a_gap_are_refused(tmp_path: Path) -> None:
    gap = {"question": "Which?", "answer0": "red", "answer2": "green", "answer3": "grey", "label": 2}
    found = asked(tmp_path, [gap, {**gap, "answer1": "blue"}])
    assert [(r.options, r.right) for r in found.rows] == [(tuple(WORDS), 2)]
    (line,) = found.facts["dropped"]
    assert "all.jsonl:1: fields answer0, answer2, answer3 have a gap: answer1 is missing" in line


def test_columns_from_one_are_known_by_letter_or_text_alone(tmp_path: Path) -> None:
    columns = {f"answer{n}": option for n, option in enumerate(WORDS, start=1)}
    rows = [{"question": "Which?", **columns, "label": label} for label in ("B", "grey", "1", 1)]
    found = asked(tmp_path, rows)
    assert [r.right for r in found.rows] == [1, 3]
    assert len(found.facts["dropped"]) == 2 and all("count from 0 or from 1" in d for d in found.facts["dropped"])
    assert [r.right for r in asked(tmp_path, rows[2:], gold_as="index").rows] == [1, 1]


@pytest.mark.parametrize(
    ("options", "answer", "other", "by_other", "by_text"),
    [(DOWN, "1", "index", 1, 2), (LETTERS, "A", "letter", 0, 1)],
)
def test_a_label_with_two_meanings_is_refused_unless_a_setting_says_which(
    tmp_path: Path, options: list[str], answer: str, other: GoldAs, by_other: int, by_text: int
) -> None:
    rows = [row(options, answer)]
    with pytest.raises(DataError, match=f"answer '{answer}' is ambiguous: the {other} of option.* set gold_as"):
        asked(tmp_path, rows)
    assert [r.right for r in asked(tmp_path, rows, gold_as=other).rows] == [by_other]
    assert [r.right for r in asked(tmp_path, rows, gold_as="text").rows] == [by_text]


@pytest.mark.parametrize(
    ("clear", "right"),
    [(row(WORDS, "2"), 1), (row(["4", "5", "1"], "5"), 2), (row(["7", "5", "1"], "-1"), 1)],
)
def test_the_other_rows_of_a_file_decide(tmp_path: Path, clear: dict[str, Any], right: int) -> None:
    found = asked(tmp_path, [row(DOWN, "1"), clear])
    assert found.rows[0].right == right
    assert found.facts["gold_decided_by_file"] == 1
    form = "text" if right == 2 else "index"
    assert found.facts["notes"] == [
        f"rows whose 'answer' could mean two options: 1, read as the {form}, the one form that fits all rows of "
        "their file"
    ]


def test_a_column_of_letters_decides_and_one_of_both_forms_does_not(tmp_path: Path) -> None:
    rows = [row(LETTERS, "A"), row(WORDS, "C")]
    assert [r.right for r in asked(tmp_path, rows).rows] == [0, 2]
    found = asked(tmp_path, [*rows, row(WORDS, "blue")])
    assert [r.right for r in found.rows] == [2, 1], "the column has letters and texts, so the first row stays open"
    assert len(found.facts["dropped"]) == 1 and "ambiguous" in found.facts["dropped"][0]


def test_another_file_does_not_decide(tmp_path: Path) -> None:
    asked(tmp_path, [row(WORDS, "2", id="clear")], "one.jsonl")
    with pytest.raises(DataError, match="ambiguous"):
        asked(tmp_path, [row(DOWN, "1")], "two.jsonl")
    found = load(str(tmp_path))
    assert [(r.id, r.right) for r in found.rows] == [("clear", 2)] and len(found.facts["dropped"]) == 1


def test_forms_that_agree_and_numbers_are_read_as_before(tmp_path: Path) -> None:
    rows = [row(["0", "1"], "1"), row(["A", "B"], "B"), row(DOWN, 1), row(WORDS, "blue"), row(WORDS, "d")]
    found = asked(tmp_path, rows)
    assert [r.right for r in found.rows] == [1, 1, 1, 1, 3]
    assert not found.facts["dropped"] and not found.facts["notes"] and found.facts["gold_decided_by_file"] == 0


def test_a_csv_file_has_strings_alone(tmp_path: Path) -> None:
    file = tmp_path / "cosmos.csv"
    file.write_text("id,question,answer0,answer1,answer2,label\na,Which?,2,1,0,2\nb,Which?,red,blue,green,0\n")
    found = load(str(file))
    assert [r.right for r in found.rows] == [2, 0] and found.facts["gold_decided_by_file"] == 1
    file.write_text("id,question,answer0,answer1,answer2,label\na,Which?,2,1,0,2\nb,Which?,red,blue,green,red\n")
    assert [r.right for r in load(str(file)).rows] == [0, 0], "a column of texts"


@pytest.mark.parametrize(("answer", "right"), [("2", 1), (2, 1), ("ice", 0)])
def test_declared_labels_come_before_indices(tmp_path: Path, answer: str | int, right: int) -> None:
    choices = {"text": ["ice", "fire", "air"], "label": ["1", "2", "3"]}
    assert [r.right for r in asked(tmp_path, [row(choices, answer)]).rows] == [right]


def test_labels_that_name_no_single_option_are_refused(tmp_path: Path) -> None:
    choices = {"text": ["ice", "fire", "air"], "label": ["1", "2", "3"]}
    with pytest.raises(DataError, match="'0' is none of the 3 options; it may count from 0 or from 1"):
        asked(tmp_path, [row(choices, "0")])
    for labels in (["A", "A", "B"], ["A", "B"]):
        with pytest.raises(DataError, match="3 different labels"):
            asked(tmp_path, [row({**choices, "label": labels}, "B")])


def test_a_setting_refuses_other_forms(tmp_path: Path) -> None:
    rows = [row(WORDS, "2"), row(WORDS, "B"), row(WORDS, "grey")]
    found = {form: [r.right for r in asked(tmp_path, rows, gold_as=form).rows] for form in ("index", "letter", "text")}
    assert found == {"index": [2], "letter": [1], "text": [3]}
    bench = MultipleChoiceFile.build(source=str(tmp_path / "all.jsonl"), gold_as="text")
    assert [i.right for i in bench.load()] == [3]
    with pytest.raises(SettingsError, match="gold_as"):
        MultipleChoiceFile.build(gold_as="number")


def race(identity: str, answer: str, options: list[str] = WORDS) -> dict[str, Any]:
    return {
        "example_id": identity,
        "article": "A story.",
        "question": "Which?",
        "options": options,
        "answer": answer,
        "id": identity,
    }


def test_questions_of_two_configurations_count_once(tmp_path: Path) -> None:
    """all/ has what high/ and middle/ have; one question of high/ has another right option, and is another question."""
    high, middle = race("high1.txt", "B"), race("middle1.txt", "A", [*WORDS[:3], "pink"])
    asked(tmp_path, [high, middle], "all/test-00000-of-00001.jsonl")
    asked(tmp_path, [high, race("high1.txt", "C")], "high/test-00000-of-00001.jsonl")
    asked(tmp_path, [middle], "middle/test-00000-of-00001.jsonl")
    found = load(str(tmp_path), split="test")
    assert [(r.id, r.right, r.group) for r in found.rows] == [
        ("high1.txt/0", 1, "high"),
        ("middle1.txt/0", 0, "middle"),
        ("high1.txt/2", 2, "high"),
    ]
    assert found.facts["repeated"] == 2 and found.facts["rows"] == 3 and not found.facts["dropped"]
    assert found.facts["notes"] == ["repeated questions left out: 2, with texts and right option of an earlier one"]


def test_repeats_need_the_same_context_and_in_one_file_the_same_id(tmp_path: Path) -> None:
    same = race("high1.txt", "B")
    assert asked(tmp_path, [same, same]).facts["repeated"] == 1
    own = asked(tmp_path, [same, race("high2.txt", "B")])
    assert len(own.rows) == 2 and own.facts["repeated"] == 0
    asked(tmp_path, [{**same, "article": "Another story."}], "other.jsonl")
    assert load(str(tmp_path)).facts["repeated"] == 0


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("train.jsonl", True),
        ("train.json.gz", True),
        ("train-00000-of-00001.parquet", True),
        ("train_high.csv", True),
        ("train/high/1.txt.json", True),
        ("high/train/part.jsonl", True),
        ("training_notes.jsonl", False),
        ("training/notes.jsonl", False),
        ("train-old/1.jsonl", False),
        ("train2.jsonl", False),
        ("test/restrain.jsonl", False),
    ],
)
def test_a_split_is_a_whole_word(name: str, taken: bool) -> None:
    assert _is_of_split(Path(name), "train") is taken


def test_only_files_of_the_split_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "train_copies"
    for name in ("train.jsonl", "training_notes.jsonl", "training/a.jsonl", "train/high/b.jsonl", "c.jsonl"):
        asked(folder, [row([name, "other"], "other", id=name)], name)
    found = load(str(folder), split="train")
    assert [r.id for r in found.rows] == ["train/high/b.jsonl", "train.jsonl"]
    with pytest.raises(DataError, match="no file of the split 'trai'; it has"):
        load(str(folder), split="trai")


def test_what_precedes_a_broken_question_of_a_row_is_kept(tmp_path: Path) -> None:
    raw = {"article": "A story.", "questions": ["One?", "Two?"], "answers": ["B", "B"], "options": [WORDS, ["a", "a"]]}
    found = asked(tmp_path, [raw])
    assert [r.id for r in found.rows] == ["q0/0"] and len(found.facts["dropped"]) == 1
