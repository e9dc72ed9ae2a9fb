"""Data sets as they lie on a disk after a download: each layout gives the same rows, or a line says what was found."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evenhand.data import bbq, crows_pairs, ifeval, mmlu, stereoset
from evenhand.data.io import layouts
from evenhand.data.io.content import read_bytes
from evenhand.data.io.locate import Problems
from evenhand.errors import DataError
from evenhand.evaluation.mmlu import MMLU

Rows = list[dict[str, Any]]
Writer = Callable[[Path, Rows], None]


def jsonl(file: Path, rows: Rows) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def listed(file: Path, rows: Rows) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(rows))


def parquet(file: Path, rows: Rows) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), file)


def arrow(file: Path, rows: Rows) -> None:
    """As `Dataset.save_to_disk` writes: a stream, with JSON files beside it that are no rows."""
    file.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(rows)
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    (file.parent / "dataset_info.json").write_text("{}")
    (file.parent / "state.json").write_text("{}")


def delimited(file: Path, rows: Rows, delimiter: str = ",") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def bbq_row(number: int, category: str = "Age") -> dict[str, Any]:
    return {
        "example_id": number,
        "question_index": "1",
        "question_polarity": "neg",
        "context_condition": "ambig",
        "category": category,
        "answer_info": {"ans0": ["grandfather", "old"], "ans1": ["grandson", "nonOld"], "ans2": ["Unknown", "unknown"]},
        "additional_metadata": {"stereotyped_groups": ["old"], "version": "a", "source": "b", "subcategory": "None"},
        "context": "A man and his grandson were there.",
        "question": "Who was forgetful?",
        "ans0": "The grandfather",
        "ans1": "The grandson",
        "ans2": "Unknown",
        "label": 2,
    }


@pytest.mark.parametrize(
    ("place", "write"),
    [
        ("Age.jsonl", jsonl),
        ("data/Age.jsonl", jsonl),
        ("Age/test-00000-of-00001.parquet", parquet),
        ("data/age-00000-of-00001.parquet", parquet),
        ("Age/test/data-00000-of-00001.arrow", arrow),
        ("rows.json", listed),
    ],
)
def test_every_layout_of_bbq_gives_the_same_rows(tmp_path: Path, place: str, write: Writer) -> None:
    jsonl(tmp_path / "plain" / "Age.jsonl", [bbq_row(1), bbq_row(2)])
    write(tmp_path / "copy" / place, [bbq_row(1), bbq_row(2)])
    found, plain = (bbq.load_rows(str(tmp_path / name)) for name in ("copy", "plain"))
    assert found.rows == plain.rows
    assert [row["example_id"] for row in found.rows] == [1, 2]
    assert found.facts["dropped"] == []


def test_configurations_of_bbq_are_read_together_and_named(tmp_path: Path) -> None:
    for number, config in enumerate(("Age_ambig", "Age_disambig")):
        parquet(tmp_path / config / "test-00000-of-00001.parquet", [bbq_row(number)])
    loaded = bbq.load_rows(str(tmp_path))
    assert [row["example_id"] for row in loaded.rows] == [0, 1]
    assert list(loaded.facts["files"]) == [
        "Age_ambig/test-00000-of-00001",
        "Age_disambig/test-00000-of-00001",
    ]


def test_a_renamed_label_of_bbq_is_the_label(tmp_path: Path) -> None:
    row = bbq_row(1)
    row["answer_label"] = row.pop("label")
    parquet(tmp_path / "data" / "age.parquet", [row])
    assert bbq.load_rows(str(tmp_path)).rows[0]["label"] == 2


@pytest.mark.parametrize("load", [bbq.load_rows, crows_pairs.load_pairs, stereoset.load_examples, ifeval.load_prompts])
def test_a_folder_without_tables_is_told_what_was_found(tmp_path: Path, load: Callable[[str], Any]) -> None:
    for number in range(300):
        (tmp_path / f"{'long' * 20}{number}.bin").write_text("")
    with pytest.raises(DataError, match=r"known .*found: 300 \.bin") as error:
        load(str(tmp_path))
    assert len(str(error.value).splitlines()) == 1
    assert len(str(error.value)) < 1200


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_a_broken_table_is_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"not a table" * 1000)
    with pytest.raises(DataError, match=f"{name} is not {name[2:]}") as error:
        bbq.load_rows(str(tmp_path))
    assert len(str(error.value)) < 500


# ------------------------------------------------------------------------------------------------ CrowS-Pairs

PAIRS: Rows = [
    {
        "sent_more": "She, who; cooks",
        "sent_less": "He, who; cooks",
        "stereo_antistereo": "stereo",
        "bias_type": "gender",
    },
    {
        "sent_more": "Old men forget",
        "sent_less": "Young men forget",
        "stereo_antistereo": "antistereo",
        "bias_type": "age",
    },
]


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("pairs.csv", delimited),
        ("pairs.csv", lambda file, rows: delimited(file, rows, ";")),
        ("pairs.tsv", lambda file, rows: delimited(file, rows, "\t")),
        ("pairs.jsonl", jsonl),
        ("data/test-00000-of-00001.parquet", parquet),
    ],
)
def test_every_layout_of_crows_pairs_gives_the_same_pairs(tmp_path: Path, name: str, write: Writer) -> None:
    write(tmp_path / name, PAIRS)
    pairs = crows_pairs.load_pairs(str(tmp_path)).pairs
    assert [(p.number, p.more, p.direction, p.bias_type) for p in pairs] == [
        ("0", "She, who; cooks", "stereo", "gender"),
        ("1", "Old men forget", "antistereo", "age"),
    ]


def test_numbers_of_the_hub_stand_for_the_labels_of_crows_pairs(tmp_path: Path) -> None:
    rows = [
        {**PAIRS[0], "id": 7, "stereo_antistereo": 1, "bias_type": 8},
        {**PAIRS[1], "id": 8, "stereo_antistereo": 5},
    ]
    jsonl(tmp_path / "pairs.jsonl", rows)
    loaded = crows_pairs.load_pairs(str(tmp_path))
    assert [(p.number, p.direction, p.bias_type) for p in loaded.pairs] == [("7", "antistereo", "age")]
    assert "'stereo_antistereo' is 5" in loaded.facts["dropped"][0]


# ------------------------------------------------------------------------------------------------ StereoSet


def hub_example(kind: str, labels: list[int]) -> dict[str, Any]:
    context = "He is BLANK." if kind == "intrasentence" else "He came in."
    sentences = {"sentence": ["He is kind.", "He is rude.", "He is fish."], "gold_label": labels}
    return {"id": kind, "target": "he", "bias_type": "gender", "context": context, "sentences": sentences}


def test_the_hubs_columns_of_stereoset_are_read_from_both_kinds(tmp_path: Path) -> None:
    for kind in stereoset.TYPES:
        parquet(tmp_path / kind / "validation-00000-of-00001.parquet", [hub_example(kind, [0, 1, 2])])
    loaded = stereoset.load_examples(str(tmp_path))
    assert {e.kind for e in loaded.examples} == set(stereoset.TYPES)
    assert loaded.examples[0].anti_stereotype == "He is kind."
    assert loaded.examples[0].stereotype == "He is rude."
    assert "notes" not in loaded.facts


def test_one_kind_of_stereoset_is_read_and_a_label_that_is_there_twice_is_named(tmp_path: Path) -> None:
    rows = [hub_example("intrasentence", [0, 1, 2]), hub_example("intrasentence", [1, 1, 2])]
    jsonl(tmp_path / "dev.jsonl", rows)
    loaded = stereoset.load_examples(str(tmp_path))
    assert [e.kind for e in loaded.examples] == ["intrasentence"]
    assert loaded.facts["notes"] == ["only intrasentence examples; StereoSet has both kinds"]
    assert "'stereotype' is a list: two sentences have this label" in loaded.facts["dropped"][0]


def test_a_released_file_with_one_kind_is_read(tmp_path: Path) -> None:
    sentences = [{"sentence": f"He is {label}.", "gold_label": label} for label in stereoset.LABELS]
    example = {"target": "he", "bias_type": "race", "context": "He is BLANK.", "sentences": sentences}
    (tmp_path / "dev.json").write_text(json.dumps({"data": {"intrasentence": [example]}}))
    assert [e.stereotype for e in stereoset.load_examples(str(tmp_path)).examples] == ["He is stereotype."]


# ------------------------------------------------------------------------------------------------ MMLU


def question(text: str, **more: Any) -> dict[str, Any]:
    return {"question": text, "subject": "anatomy", "choices": ["a", "b", "c", "d"], "answer": 1, **more}


def test_one_table_with_all_subjects_of_mmlu_is_parted_by_its_column(tmp_path: Path) -> None:
    rows = [question("One?"), question("Two?", subject="virology", answer=3), question("Three?")]
    parquet(tmp_path / "all" / "test-00000-of-00001.parquet", rows)
    parquet(tmp_path / "all" / "dev-00000-of-00001.parquet", rows[:1])
    loaded = mmlu.load(str(tmp_path))
    assert [(r.subject, r.number, r.question, r.right) for r in loaded.rows] == [
        ("anatomy", 0, "One?", 1),
        ("virology", 0, "Two?", 3),
        ("anatomy", 1, "Three?", 1),
    ]
    assert list(loaded.dev) == ["anatomy"]


def test_a_header_of_mmlus_csv_is_no_question(tmp_path: Path) -> None:
    for split in ("test", "dev"):
        (tmp_path / split).mkdir()
        (tmp_path / split / f"anatomy_{split}.csv").write_text("question,A,B,C,D,answer\nWhich?,w,x,y,z,C\n")
    loaded = mmlu.load(str(tmp_path))
    assert [(r.question, r.number, r.right) for r in loaded.rows] == [("Which?", 0, 2)]
    assert loaded.facts["dropped"] == []


def test_mmlu_pro_has_up_to_ten_options(tmp_path: Path) -> None:
    row = {
        "question": "Which?",
        "options": list("abcdefghij"),
        "answer": "J",
        "answer_index": 9,
        "category": "computer science",
    }
    parquet(tmp_path / "data" / "test-00000-of-00001.parquet", [row, {**row, "answer_index": 10}])
    parquet(tmp_path / "data" / "validation-00000-of-00001.parquet", [row])
    loaded = mmlu.load(str(tmp_path))
    assert [(r.subject, len(r.choices), r.right) for r in loaded.rows] == [("computer_science", 10, 9)]
    assert "answer is 10" in loaded.facts["dropped"][0]
    assert len(loaded.dev["computer_science"]) == 1


def test_questions_that_mmlu_redux_found_faulty_are_left_out(tmp_path: Path) -> None:
    rows = [question("One?", error_type="ok"), question("Two?", error_type="wrong_groundtruth")]
    arrow(
        tmp_path / "anatomy" / "data-00000-of-00001.arrow",
        [{k: v for k, v in r.items() if k != "subject"} for r in rows],
    )
    loaded = mmlu.load(str(tmp_path))
    assert [(r.subject, r.question) for r in loaded.rows] == [("anatomy", "One?")]
    assert "'wrong_groundtruth'" in loaded.facts["dropped"][0]


def test_of_global_mmlu_one_language_is_named(tmp_path: Path) -> None:
    row = {"subject": "anatomy", "question": "Q?", **{f"option_{x}": x for x in "abcd"}, "answer": "D"}
    for language in ("de", "en"):
        parquet(tmp_path / language / "test-00000-of-00001.parquet", [row])
    with pytest.raises(DataError, match="languages de, en: name one"):
        mmlu.load(str(tmp_path))
    assert [(r.subject, r.choices, r.right) for r in mmlu.load(str(tmp_path / "en")).rows] == [
        ("anatomy", ("a", "b", "c", "d"), 3)
    ]


def texts(source: Path, split: mmlu.Split = "test") -> list[tuple[str, str]]:
    return [(r.subject, r.question) for r in mmlu.load(str(source), split).rows]


def csv_of_anatomy(folder: Path, split: str, *questions: str) -> None:
    (folder / split).mkdir(exist_ok=True)
    lines = "".join(f"{q},a,b,c,d,B\n" for q in questions)
    (folder / split / f"anatomy_{split}.csv").write_text(lines)


def test_a_split_that_is_missing_is_refused_with_those_that_are_there(tmp_path: Path) -> None:
    parquet(tmp_path / "data" / "validation-00000-of-00001.parquet", [question("One?")])
    with pytest.raises(DataError, match=r"'test'; splits found: validation \(data/validation-00000-of-00001.parquet\)"):
        mmlu.load(str(tmp_path))
    arrow(tmp_path / "other" / "validation" / "data-00000-of-00001.arrow", [question("Two?")])
    with pytest.raises(DataError, match="row of the split 'test'; splits found: validation"):
        mmlu.load(str(tmp_path / "other"))
    assert texts(tmp_path / "other", "val") == [("anatomy", "Two?")], "a split's folder counts before the file's name"


def test_demonstrations_are_never_the_tested_files(tmp_path: Path) -> None:
    for name in ("test", "validation"):
        parquet(tmp_path / "data" / f"{name}-00000-of-00001.parquet", [question(f"{name}?")])
    assert [r.question for r in mmlu.load(str(tmp_path)).dev["anatomy"]] == ["validation?"]
    loaded = mmlu.load(str(tmp_path), "val")
    reason = "the files of the demonstrations are those of the tested split 'val'"
    assert [r.question for r in loaded.rows] == ["validation?"] and loaded.dev == {}
    assert loaded.facts["notes"][1:] == [f"no demonstrations: {reason}"]
    with pytest.raises(DataError, match=rf"0 usable dev rows \({reason}\), shots=1 needs more; lower shots or test an"):
        MMLU(source=str(tmp_path), split="val", shots=1).load()
    assert [i.id for i in MMLU(source=str(tmp_path), split="val", shots=0).load()] == ["anatomy/0"]


def test_demonstrations_that_are_tested_rows_in_other_files_are_noted(tmp_path: Path) -> None:
    csv_of_anatomy(tmp_path, "test", "One?", "Two?", "Two?")
    csv_of_anatomy(tmp_path, "dev", "Two?", "Three?")
    (tmp_path / "dev" / "virology_dev.csv").write_text("Four?,a,b,c,d,B\n")
    loaded = mmlu.load(str(tmp_path))
    assert len(loaded.rows) == 3, "rows that the publisher has twice are kept, as the official files have some"
    assert loaded.facts["notes"][1:] == [
        "rows that repeat another row of their file (same question and options): 1 of 3",
        "demonstrations that are tested rows, too, so that their answers are shown: 1 of 3",
        "subjects with demonstrations but no tested row: virology",
    ]


@pytest.mark.parametrize("names", [("en", "fil"), ("EN_US", "pt-BR"), ("english", "filipino"), ("ceb", "fil")])
def test_two_languages_of_mmlu_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    for name in names:
        parquet(tmp_path / name / "test-00000-of-00001.parquet", [question(f"{name}?")])
    with pytest.raises(DataError, match=r"languages.*name one of them"):
        mmlu.load(str(tmp_path))
    assert texts(tmp_path / names[1]) == [("anatomy", f"{names[1]}?")]


@pytest.mark.parametrize("other", ["fil", "filipino"])
def test_demonstrations_in_another_language_are_refused(tmp_path: Path, other: str) -> None:
    parquet(tmp_path / "en" / "test-00000-of-00001.parquet", [question("One?")])
    parquet(tmp_path / other / "dev-00000-of-00001.parquet", [question("Isa?")])
    with pytest.raises(DataError, match=r"languages.*name one of them"):
        mmlu.load(str(tmp_path))


def test_subjects_with_three_letters_are_no_languages(tmp_path: Path) -> None:
    for name in ("law", "art"):
        parquet(tmp_path / name / "test-00000-of-00001.parquet", [question("One?", subject=name)])
    assert texts(tmp_path) == [("art", "One?"), ("law", "One?")]


def test_of_two_layouts_of_mmlu_one_is_read_and_the_other_named(tmp_path: Path) -> None:
    csv_of_anatomy(tmp_path, "test", "One?")
    parquet(tmp_path / "all" / "test-00000-of-00001.parquet", [question("One?"), question("Two?")])
    loaded = mmlu.load(str(tmp_path))
    assert [(r.subject, r.question) for r in loaded.rows] == [("anatomy", "One?")]
    assert loaded.facts["layout"] == "csv files" and loaded.facts["notes"][1:] == [
        "one layout is read, csv files; not read: 1 file (all/test-00000-of-00001.parquet)"
    ]


def test_no_subject_is_lost_where_some_have_a_folder_of_their_own(tmp_path: Path) -> None:
    rows = [question("One?"), question("Two?", subject="virology")]
    parquet(tmp_path / "all" / "test-00000-of-00001.parquet", rows)
    parquet(tmp_path / "anatomy" / "test-00000-of-00001.parquet", rows[:1])
    loaded = mmlu.load(str(tmp_path))
    assert [(r.subject, r.question) for r in loaded.rows] == [("anatomy", "One?"), ("virology", "Two?")]
    assert loaded.facts["layout"] == "all/" and "not read: 1 file (anatomy/test-" in loaded.facts["notes"][-1]
    parquet(tmp_path / "virology" / "test-00000-of-00001.parquet", rows[1:])
    loaded = mmlu.load(str(tmp_path))
    assert len(loaded.rows) == 2 and loaded.facts["layout"] == "folders by subject"
    assert "not read: 1 file (all/test-" in loaded.facts["notes"][-1]


def test_a_row_that_two_tables_have_is_read_once_and_counted(tmp_path: Path) -> None:
    first, second = (tmp_path / "anatomy" / f"test-{n}.parquet" for n in ("00000-of-00001", "copy"))
    parquet(first, [question("One?"), question("Two?")])
    parquet(second, [question("Two? "), question("Three?"), question("One?", choices=["a", "b", "c", "e"])])
    loaded = mmlu.load(str(tmp_path))
    assert [(r.number, r.question, r.choices[3]) for r in loaded.rows] == [
        (0, "One?", "d"),
        (1, "Two?", "d"),
        (3, "Three?", "d"),
        (4, "One?", "e"),
    ], "rows that were left out count, and no number comes twice"
    assert loaded.facts["dropped"] == [f"{second}:0: rows left out as copies of rows of {first}: 1"]


# ------------------------------------------------------------------------------------------------ others


def test_ifeval_is_read_from_parquet_and_m_ifeval_is_named(tmp_path: Path) -> None:
    row = {"key": 1, "prompt": "No commas, please.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    other = {**row, "key": 2, "instruction_id_list": ["es:special_character:tildes"]}
    jsonl(tmp_path / "rows.jsonl", [row, other])
    loaded = ifeval.load_prompts(str(tmp_path))
    assert [p.key for p in loaded.prompts] == [1]
    assert "M-IFEval" in loaded.facts["dropped"][0]
    parquet(tmp_path / "copy" / "train.parquet", [{**row, "kwargs": [{"num_words": None}]}])
    assert [p.key for p in ifeval.load_prompts(str(tmp_path / "copy")).prompts] == [1]


@pytest.mark.parametrize(("head", "mark"), [("a,b,c\n1,2,3", ","), ('a;"b,c";d', ";"), ("a\tb\tc", "\t"), ("a", ",")])
def test_the_delimiter_is_that_of_the_first_line(head: str, mark: str) -> None:
    assert layouts.delimiter_of(head.encode()) == mark


def test_a_gzipped_table_is_read(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl.gz"
    file.write_bytes(gzip.compress(b'{"a": 1}\n'))
    assert layouts.tables(tmp_path) == [file]
    assert list(layouts.read_table(file, read_bytes(file), (), Problems())) == [(1, {"a": 1})]
