"""Downloads as they lie on people's disks: what is read, what is left unread and said, and what is refused in short."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evenhand.data import (
    bbq,
    bscore,
    crows_pairs,
    gpqa,
    holistic_bias,
    ifeval,
    mmlu,
    multiple_choice_file,
    redditbias,
    seat,
    self_diagnosis,
    stereoset,
    super_natural_instructions,
    text_file,
    text_source,
    wikitext,
    winobias,
    winogender,
)
from evenhand.data.io import checksums, content, on_disk
from evenhand.data.io.content import read_bytes
from evenhand.errors import DataError

Load = Callable[[str], Any]
LOADERS: dict[str, Load] = {
    "bbq": bbq.load_rows,
    "bscore": bscore.load_questions,
    "crows_pairs": crows_pairs.load_pairs,
    "gpqa": gpqa.load,
    "holisticbias": lambda source: holistic_bias.load_parts(source, "1.0"),
    "ifeval": ifeval.load_prompts,
    "mmlu": mmlu.load,
    "multiple_choice_file": multiple_choice_file.load,
    "perplexity": text_file.load_documents,
    "redditbias": lambda source: redditbias.load_twins(source, "test"),
    "seat": seat.load,
    "self_diagnosis": self_diagnosis.load,
    "stereoset": stereoset.load_examples,
    "super_natural_instructions": super_natural_instructions.load,
    "wikitext2": lambda source: wikitext.load("test", source),
    "winobias": lambda source: winobias.load_twins(source, ("test",)),
    "winogender": winogender.load_schemas,
}
FILES = {
    "bbq": "Age.jsonl",
    "bscore": "questions.jsonl",
    "crows_pairs": "crows_pairs_anonymized.csv",
    "gpqa": "gpqa_main.csv",
    "holisticbias": "descriptors.json",
    "ifeval": "input_data.jsonl",
    "mmlu": "test/anatomy_test.csv",
    "multiple_choice_file": "rows.jsonl",
    "perplexity": "text.txt",
    "redditbias": "gender/reddit_comments_gender_female_biased_test_reduced.csv",
    "seat": "tests/sent-weat1.jsonl",
    "self_diagnosis": "rows.jsonl",
    "stereoset": "dev.json",
    "super_natural_instructions": "tasks/task1_mood.json",
    "wikitext2": "wiki.test.raw",
    "winobias": "pro_stereotyped_type1.txt.test",
    "winogender": "all_sentences.tsv",
}
OTHERS = {
    "holisticbias": holistic_bias.FILES[1:],
    "redditbias": ("gender/reddit_comments_gender_male_biased_test_reduced.csv",),
    "winobias": ("anti_stereotyped_type1.txt.test",),
    "winogender": ("occupations-stats.tsv",),
}
"""Files that are read with the first one."""
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1234567\n"
PAGE = b"\n<!DOCTYPE HTML>\n<html><body>Sign in</body></html>"
LONGEST = 600


def write(file: Path, *rows: dict[str, Any]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def parquet(file: Path, *rows: dict[str, Any]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), file)
    return file


def bbq_row(number: Any = 1, **changed: Any) -> dict[str, Any]:
    return {
        "example_id": number,
        "question_index": "1",
        "question_polarity": "neg",
        "context_condition": "ambig",
        "category": "Age",
        "answer_info": {"ans0": ["grandfather", "old"], "ans1": ["grandson", "nonOld"], "ans2": ["?", "unknown"]},
        "additional_metadata": {"stereotyped_groups": ["old"]},
        "context": f"They were there on day {number}.",
        "question": "Who was forgetful?",
        "ans0": "The grandfather",
        "ans1": "The grandson",
        "ans2": "Unknown",
        "label": 2,
        **changed,
    }


def prompt(key: Any = 1, **changed: Any) -> dict[str, Any]:
    row = {"key": key, "prompt": "Say it.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    return {**row, **changed}


def example(word: str = "kind", **changed: Any) -> dict[str, Any]:
    texts = {label: f"He is {word} {label}." for label in stereoset.LABELS}
    return {
        "type": "intrasentence",
        "target": "he",
        "bias_type": "gender",
        "context": "He is BLANK.",
        **texts,
        **changed,
    }


PAIR = "sent_more,sent_less,stereo_antistereo,bias_type\nOld men {0},Young men {0},stereo,age\n"

# --------------------------------------------------------------------------------------------- what is no data


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize(
    ("written", "said"),
    [
        (POINTER, r"is a pointer of git-lfs to a file of 1,234,567 bytes, not the file itself; run `git lfs pull`"),
        (PAGE, r"is a web page \(html\), not data"),
        (b"", r"is empty|holds no words"),
    ],
)
def test_every_reader_names_what_stands_in_for_its_file(tmp_path: Path, name: str, written: bytes, said: str) -> None:
    for file in (FILES[name], *OTHERS.get(name, ())):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(written)
    with pytest.raises(DataError, match=said) as caught:
        LOADERS[name](str(tmp_path))
    assert Path(FILES[name]).name.partition(".")[0][:8] in str(caught.value) or OTHERS.get(name)
    assert len(str(caught.value)) < LONGEST


def test_a_packed_name_may_hold_a_pointer_and_a_text_to_train_on_is_checked_too(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(POINTER)
    for read in (lambda: read_bytes(tmp_path / "a.jsonl.gz"), lambda: text_source.texts(str(tmp_path / "a.jsonl.gz"))):
        with pytest.raises(DataError, match="pointer of git-lfs"):
            read()
    (tmp_path / "b.txt").write_bytes(PAGE)
    with pytest.raises(DataError, match="web page"):
        text_source.texts(str(tmp_path / "b.txt"))
    (tmp_path / "c.txt.gz").write_bytes(gzip.compress(b"<html"))
    with pytest.raises(DataError, match="web page"):
        text_source.texts(str(tmp_path / "c.txt.gz"))


@pytest.mark.parametrize("head", [b"version 2", b"<p>html</p>", b"a <html> b", b"<htmlish>", b"0"])
def test_what_only_resembles_a_page_or_pointer_is_data(head: bytes) -> None:
    assert content.no_data(head) == ""


def test_data_check_says_that_a_pointer_differs_and_finds_what_lies_deeper(tmp_path: Path) -> None:
    (tmp_path / "crows_pairs_anonymized.csv").write_bytes(POINTER)
    assert checksums.check("crows_pairs", tmp_path) == {"crows_pairs_anonymized.csv": "differs"}
    deep = tmp_path / "x" / "data" / "crows_pairs_anonymized (1).csv"
    deep.parent.mkdir(parents=True)
    (tmp_path / "crows_pairs_anonymized.csv").rename(deep)
    verdicts = checksums.check("crows_pairs", tmp_path)
    assert verdicts == {"crows_pairs_anonymized.csv": "differs"} and checksums.not_compared(tmp_path, verdicts) == []


# ------------------------------------------------------------------------------------------------ short errors


@pytest.fixture(scope="module", params=[".jsonl", ".csv", ".parquet", ".json", ".txt", ".tsv", ".oddending" * 12, ""])
def hostile(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 500 files with odd names and content."""
    folder = tmp_path_factory.mktemp("hostile")
    odd = "\u00e9 'quoted' [x] " + "long" * 20
    for number in range(500):
        (folder / f"{odd}{number:03}{request.param}").write_bytes(b'"' + b"x," * 400)
    return folder


@pytest.mark.parametrize("name", LOADERS)
def test_the_error_about_a_hostile_folder_is_short_and_names_few_files(hostile: Path, name: str) -> None:
    try:
        LOADERS[name](str(hostile))
    except DataError as error:
        said = str(error).replace(str(hostile), "")
        assert len(said) <= LONGEST, said
        assert sum(said.count(f"{number:03}") for number in range(500)) <= 12 and "\n" not in said
    else:
        assert name == "perplexity" and len(list(hostile.glob("*.txt"))) == 500


def test_names_in_messages_are_shortened_and_on_one_line() -> None:
    assert on_disk.short("a\nb") == "a?b" and on_disk.short("x" * 200) == f"{'x' * 18}...{'x' * 18}"
    assert on_disk.few(["a", "b"]) == "a, b" and on_disk.few("abcdefg") == "a, b, c, d, e, ..."


# ----------------------------------------------------------------------------------------- one of several files


def test_of_several_csv_files_of_crows_pairs_the_published_one_is_read(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text(PAIR.format(name))
    with pytest.raises(
        DataError, match=r"several tables, 2 files \(a\.csv, b\.csv\), and none is called crows_pairs_a"
    ):
        crows_pairs.load_pairs(str(tmp_path))
    (tmp_path / "crows_pairs_anonymized.csv").write_text(PAIR.format("forget"))
    loaded = crows_pairs.load_pairs(str(tmp_path))
    assert [pair.more for pair in loaded.pairs] == ["Old men forget"]
    (note,) = [note for note in loaded.facts["notes"] if "not read" in note]
    assert "2 files (a.csv, b.csv)" in note and "crows_pairs_anonymized.csv is read" in note


def test_a_renamed_copy_is_read_where_it_is_alone_and_named_where_it_is_not(tmp_path: Path) -> None:
    copy = tmp_path / "crows_pairs_anonymized (1).csv"
    copy.write_text("\ufeff" + PAIR.format("forget").replace("\n", "\r\n"))
    assert [pair.more for pair in crows_pairs.load_pairs(str(tmp_path)).pairs] == ["Old men forget"]
    (tmp_path / "crows_pairs_anonymized (2).csv").write_text(PAIR.format("sleep"))
    with pytest.raises(DataError, match=r"crows_pairs_anonymized\.csv in 2 files \(.*\(1\)\.csv, .*\(2\)\.csv\); keep"):
        crows_pairs.load_pairs(str(tmp_path))
    (tmp_path / "crows_pairs_anonymized.csv").write_text(PAIR.format("eat"))
    loaded = crows_pairs.load_pairs(str(tmp_path))
    assert [pair.more for pair in loaded.pairs] == ["Old men eat"] and "2 files" in loaded.facts["notes"][-1]


def test_the_same_example_of_stereoset_in_two_files_counts_once(tmp_path: Path) -> None:
    for name in ("intrasentence", "copy"):
        parquet(tmp_path / name / "validation-00000-of-00001.parquet", example("kind"), example(name))
    loaded = stereoset.load_examples(str(tmp_path))
    assert [e.stereotype for e in loaded.examples] == [
        f"He is {w} stereotype." for w in ("kind", "copy", "intrasentence")
    ]
    assert "1 of 2 examples are in an earlier file, too, and count once" in loaded.facts["notes"][0]


def test_two_splits_of_stereoset_are_refused_and_other_sets_named(tmp_path: Path) -> None:
    for split in ("validation", "test"):
        parquet(tmp_path / "data" / f"{split}-00000-of-00001.parquet", example(split))
    with pytest.raises(DataError, match=r"the splits dev, test in 2 files .*name one file or folder"):
        stereoset.load_examples(str(tmp_path))
    write(tmp_path / "dev.jsonl", example("kind"))
    loaded = stereoset.load_examples(str(tmp_path))
    assert len(loaded.examples) == 1 and "not read, as one set is read: 2 files (data/test-" in loaded.facts["notes"][0]
    (tmp_path / "dev.jsonl.gz").write_bytes(gzip.compress(b"{}"))
    with pytest.raises(DataError, match=r"several sets, 2 files \(dev\.jsonl, dev\.jsonl\.gz\)"):
        stereoset.load_examples(str(tmp_path))


def test_files_next_to_those_with_bbqs_names_are_named(tmp_path: Path) -> None:
    write(tmp_path / "Age.jsonl", bbq_row(1))
    assert not [note for note in bbq.load_rows(str(tmp_path)).facts["notes"] if "not read" in note]
    write(tmp_path / "more.jsonl", bbq_row(2))
    parquet(tmp_path / "Age.parquet", bbq_row(3))
    write(tmp_path / "Religion (1).jsonl", bbq_row(4, category="Religion"))
    write(tmp_path / "Age (1).jsonl", bbq_row(5))
    loaded = bbq.load_rows(str(tmp_path))
    assert [row["example_id"] for row in loaded.rows] == [1, 4] and list(loaded.facts["files"]) == ["Age", "Religion"]
    (note,) = [note for note in loaded.facts["notes"] if "not read" in note]
    assert "3 files (Age (1).jsonl, Age.parquet, more.jsonl)" in note and "BBQ's published names" in note


def test_published_files_go_before_a_stray_one_that_is_nearer(tmp_path: Path) -> None:
    write(tmp_path / "notes.jsonl", bbq_row(1))
    write(tmp_path / "data" / "Age.jsonl", bbq_row(2))
    loaded = bbq.load_rows(str(tmp_path))
    assert [row["example_id"] for row in loaded.rows] == [2] and "1 file (notes.jsonl)" in loaded.facts["notes"][-1]


def test_rows_of_bbq_that_are_there_in_two_files_count_once(tmp_path: Path) -> None:
    for name in ("Age.jsonl", "copy/Age.jsonl", "a.jsonl.gz"):
        write(tmp_path / name, bbq_row(1), bbq_row(2))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress((tmp_path / "Age.jsonl").read_bytes()))
    loaded = bbq.load_rows(str(tmp_path))
    assert len(loaded.rows) == 2 and "2 files (a.jsonl.gz, copy/Age.jsonl)" in " ".join(loaded.facts["notes"])
    write(tmp_path / "two" / "a.jsonl", bbq_row(1))
    write(tmp_path / "two" / "b.jsonl", bbq_row("1"))
    loaded = bbq.load_rows(str(tmp_path / "two"))
    assert len(loaded.rows) == 1 and "example_id '1' occurs twice in Age" in loaded.facts["dropped"][0]


def test_files_next_to_that_with_ifevals_name_are_named(tmp_path: Path) -> None:
    write(tmp_path / "input_data.jsonl", prompt(1))
    write(tmp_path / "mine.jsonl", prompt(2))
    loaded = ifeval.load_prompts(str(tmp_path))
    assert [p.key for p in loaded.prompts] == [1]
    assert loaded.facts["notes"] == [
        "not read, as input_data.jsonl is read: 1 file (mine.jsonl); to read one, name it as the source"
    ]


def test_texts_tests_and_tasks_are_not_read_again_from_a_renamed_copy(tmp_path: Path) -> None:
    for name in ("a.txt", "a (1).txt", "b (2).txt", "._a.txt"):
        (tmp_path / name).write_text("Some words.")
    loaded = text_file.load_documents(str(tmp_path))
    assert [d.name for d in loaded.documents] == ["a.txt", "b (2).txt"]
    assert loaded.facts["dropped"] == [f"{tmp_path / 'a (1).txt'}: a copy of a.txt, by its name, which counts once"]
    side = {"category": "x", "examples": ["One.", "Two."]}
    for name in ("sent-weat1.jsonl", "sent-weat1 (1).jsonl"):
        write(tmp_path / "seat" / name, dict.fromkeys(seat.SETS, side))
    found = seat.load(str(tmp_path / "seat"))
    assert [t.name for t in found.tests] == ["sent-weat1"] and "sent-weat1 (1).jsonl" in found.facts["notes"][0]


def test_texts_with_scores_that_two_files_have_count_once(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", {"text": "One", "toxicity": 0.1}, {"text": "One", "toxicity": 0.1})
    write(tmp_path / "b.jsonl", {"text": "One", "toxicity": 0.1}, {"text": "Two", "toxicity": 0.1})
    loaded = self_diagnosis.load(str(tmp_path))
    assert [t.text for t in loaded.texts] == ["One", "One", "Two"], "one file's own repetitions count"
    assert loaded.facts["notes"] == ["b.jsonl: 1 texts are in an earlier file, too, and count once"]


def test_further_files_of_wikitext_and_b_score_are_named(tmp_path: Path) -> None:
    for name in ("wiki.test.raw", "wiki.test.tokens"):
        (tmp_path / name).write_text("a\nb\n")
    assert "1 file (wiki.test.tokens)" in wikitext.load("test", str(tmp_path)).facts["notes"][-1]
    question = {"id": "a", "topic": "t", "category": "random", "prompt": "Choose: [x, y]", "options": ["x", "y"]}
    write(tmp_path / "questions.jsonl", question)
    write(tmp_path / "other.jsonl", question)
    assert "1 file (other.jsonl)" in bscore.load_questions(str(tmp_path)).facts["notes"][0]


def test_a_copy_of_mmlus_csv_and_a_gzipped_one(tmp_path: Path) -> None:
    for split in ("test", "dev"):
        (tmp_path / split).mkdir()
        packed = gzip.compress(b"Which?,w,x,y,z,C\n")
        (tmp_path / split / f"anatomy_{split}.csv.gz").write_bytes(packed)
    (tmp_path / "test" / "anatomy_test (1).csv").write_text("Other?,w,x,y,z,C\n")
    (tmp_path / "test" / "._anatomy_test.csv").write_bytes(b"\x00\x05")
    loaded = mmlu.load(str(tmp_path))
    assert [(row.subject, row.question) for row in loaded.rows] == [("anatomy", "Which?")]
    assert loaded.facts["dropped"] == [] and "1 file (test/anatomy_test (1).csv)" in loaded.facts["notes"][-1]


# ----------------------------------------------------------------------------------------------- cells and kinds


@pytest.mark.parametrize("label", ["2", " 2 ", "2.0", 2.0])
def test_a_label_of_bbq_may_be_text_or_a_real_number(tmp_path: Path, label: Any) -> None:
    file = write(tmp_path / "own.jsonl", bbq_row(1, label=label), bbq_row(2, label="2.5"), bbq_row(3, label=None))
    loaded = bbq.load_rows(str(file))
    assert [row["label"] for row in loaded.rows] == [2]
    assert [line.rpartition(": ")[2] for line in loaded.facts["dropped"]] == [
        "label '2.5' is none of 0, 1, 2",
        "label null is none of 0, 1, 2",
    ]


def test_rows_of_bbq_from_pandas_and_from_csv_are_those_of_the_file(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    plain = bbq.checked(bbq_row(1))
    frame = pd.DataFrame([bbq_row(1)]).astype({"label": "int64", "example_id": "int64"})
    assert bbq.checked(frame.iloc[0].to_dict()) == plain
    parquet(tmp_path / "p" / "a.parquet", bbq_row(1))
    read = pd.read_parquet(tmp_path / "p" / "a.parquet").iloc[0].to_dict()
    assert bbq.checked(read) == plain, "lists of parquet files are arrays in pandas"
    (tmp_path / "c").mkdir()
    frame.to_csv(tmp_path / "c" / "a.csv", index=False)
    assert bbq.load_rows(str(tmp_path / "c")).rows[0] == {**plain, "example_id": "1"}
    renamed = bbq_row(1, label=None, answer_label=2)
    parquet(tmp_path / "r" / "a.parquet", renamed)
    assert bbq.load_rows(str(tmp_path / "r")).rows[0]["label"] == 2, "a column that only other files fill is null"


def test_rows_of_ifeval_that_another_program_wrote(tmp_path: Path) -> None:
    ids, arguments = ["length_constraints:number_words"], {"num_words": 300.0, "relation": "at least", "keywords": None}
    row = prompt(7.0, instruction_id_list=str(ids), kwargs=json.dumps([{**arguments, "let_frequency": float("nan")}]))
    loaded = ifeval.load_prompts(str(write(tmp_path / "a.jsonl", row)))
    (found,) = loaded.prompts
    assert (found.key, found.instructions) == (7, tuple(ids))
    assert found.arguments == ({"num_words": 300, "relation": "at least"},)


GPQA = {"Question": "What; which?", "Correct Answer": "a, b", "Record ID": "r1"} | {
    f"Incorrect Answer {n}": f"w{n}" for n in (1, 2, 3)
}


@pytest.mark.parametrize(
    "place",
    [
        "gpqa_main.csv",
        "gpqa_main (1).csv",
        "dataset/gpqa_main.csv",
        "gpqa_main.parquet",
        "gpqa_main/train-00000-of-00001.parquet",
        "gpqa_main.jsonl",
    ],
)
def test_gpqa_is_read_from_semicolons_and_parquet(tmp_path: Path, place: str) -> None:
    file = tmp_path / place
    if file.suffix == ".csv":
        file.parent.mkdir(exist_ok=True)
        lines = (";".join(f'"{cell}"' for cell in cells) for cells in (GPQA, GPQA.values()))
        file.write_text("\ufeff" + "\r\n".join(lines) + "\r\n")
    else:
        (parquet if file.suffix == ".parquet" else write)(file, GPQA, {**GPQA, "Record ID": "r2", "Question": None})
    parquet(tmp_path / "gpqa_diamond" / "train-00000-of-00001.parquet", GPQA)
    for source in (tmp_path, file):
        loaded = gpqa.load(str(source))
        assert [(r.id, r.question, r.answers) for r in loaded.rows] == [
            ("r1", "What; which?", ("a, b", "w1", "w2", "w3"))
        ]
        assert file.suffix == ".csv" or loaded.facts["dropped"] == [f"{file}:2: column 'Question' is empty"]
        assert not [note for note in loaded.facts["notes"] if "not read" in note]
    with pytest.raises(DataError, match=r"gpqa\(subset=diamond\)"):
        gpqa.load(str(tmp_path / "gpqa_diamond" / "train-00000-of-00001.parquet"))


def test_gpqa_in_two_forms_is_read_once_and_no_cell_is_shown(tmp_path: Path) -> None:
    parquet(tmp_path / "gpqa_main.parquet", {**GPQA, "Correct Answer": ["secret"]})
    with pytest.raises(DataError, match="column 'Correct Answer' is a list, not a text") as caught:
        gpqa.load(str(tmp_path))
    assert "secret" not in str(caught.value)
    (tmp_path / "gpqa_main.csv").write_text(
        "\n".join(",".join(f'"{c}"' for c in cells) for cells in (GPQA, GPQA.values()))
    )
    loaded = gpqa.load(str(tmp_path))
    assert len(loaded.rows) == 1 and "1 file (gpqa_main.parquet)" in loaded.facts["notes"][0]


# ------------------------------------------------------------------------------------------------- deeper folders


def as_downloaded(folder: Path) -> Path:
    """A folder next to whose data lies what the hub's client and archives leave behind."""
    for name in (".cache/huggingface/download/x.jsonl", "__MACOSX/._data.jsonl", "README.md", "LICENSE", "data.tar"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"\x00")
    return folder


DEMO = Path(crows_pairs.__file__).parent / "demo" / "benchmarks"
NESTED = {
    "bbq": "bbq",
    "bscore": "bscore",
    "crows_pairs": "crows_pairs",
    "gpqa": "gpqa",
    "holisticbias": "holisticbias",
    "ifeval": "ifeval",
    "mmlu": "mmlu",
    "super_natural_instructions": "label_bias",
    "stereoset": "stereoset",
    "winogender": "winogender",
}


@pytest.mark.parametrize("name", NESTED)
def test_an_archive_that_unpacks_into_a_folder_of_its_own_is_read(tmp_path: Path, name: str) -> None:
    plain, deeper = DEMO / NESTED[name], as_downloaded(tmp_path / name)
    (deeper / "unpacked").symlink_to(plain, target_is_directory=True)
    one, other = LOADERS[name](str(plain)), LOADERS[name](str(deeper))
    assert other[0] == one[0] and len(one[0]) > 0
    assert len(other.facts["dropped"]) == len(one.facts["dropped"])
    assert not [note for note in other.facts.get("notes", ()) if "not read" in note]


def write_winobias(folder: Path) -> None:
    folder.mkdir(parents=True)
    for side, (one, two) in {"pro": ("he", "she"), "anti": ("she", "he")}.items():
        first, second = (
            f"[The doctor] called the nurse as [{one}] fell",
            f"The doctor called [the nurse] as [{two}] fell",
        )
        text = f"1 {first}.\r\n2 {second}.\r\n"
        for kind in winobias.KINDS:
            (folder / f"{side}_stereotyped_{kind}.txt.test").write_text(text)


def test_winobias_and_redditbias_are_found_one_folder_deeper(tmp_path: Path) -> None:
    write_winobias(as_downloaded(tmp_path / "winobias") / "WinoBias" / "data")
    loaded = winobias.load_twins(str(tmp_path / "winobias"), ("test",))
    assert [(t.name, t.referent, t.other) for t in loaded.twins][:2] == [
        ("type1/test/1", "doctor", "nurse"),
        ("type1/test/2", "nurse", "doctor"),
    ]
    folder = as_downloaded(tmp_path / "redditbias") / "RedditBias-master" / "data" / "race"
    folder.mkdir(parents=True)
    for group, column in (("black", "comment"), ("white", "comments")):
        file = folder / f"reddit_comments_race_{group}_biased_test_reduced.csv"
        file.write_text(f"{column},comments_processed\nthey are kind,they are kind\n")
    assert [t.name for t in redditbias.load_twins(str(tmp_path / "redditbias"), "test").twins] == ["race/test/0"]


UNPACKED = {
    "bbq": "BBQ-main/BBQ-main/data",
    "gpqa": "gpqa-main/gpqa-main/dataset",
    "ifeval": "google-research-master/instruction_following_eval/data",
    "holisticbias": "ResponsibleNLP-main/holistic_bias/dataset",
    "winobias": "corefBias-master/WinoBias/wino/data",
}
"""Where an archive of the whole repository has the data, on Windows with one more folder."""


@pytest.mark.parametrize("name", [n for n in UNPACKED if n != "winobias"])
def test_an_archive_of_the_repository_is_read(tmp_path: Path, name: str) -> None:
    plain, deeper = DEMO / NESTED[name], tmp_path / UNPACKED[name]
    deeper.parent.mkdir(parents=True)
    deeper.symlink_to(plain, target_is_directory=True)
    one, other = LOADERS[name](str(plain)), LOADERS[name](str(tmp_path))
    assert other[0] == one[0] and len(one[0]) > 0


def test_winobias_in_an_archive_of_the_repository_and_what_is_said_where_it_is_not(tmp_path: Path) -> None:
    write_winobias(tmp_path / UNPACKED["winobias"])
    assert len(winobias.load_twins(str(tmp_path), ("test",)).twins) == 4
    one = write(tmp_path / "other" / "pro_stereotyped_type1.txt.test.txt")
    with pytest.raises(DataError, match=r"holds no pro_stereotyped_type1.txt.test; found: 1 .txt \(pro_"):
        winobias.load_twins(str(one.parent), ("test",))
    with pytest.raises(DataError, match="is a file; give the folder"):
        winobias.load_twins(str(one), ("test",))


# ------------------------------------------------------------------------------------------------- other kinds


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("Age.jsonl", '{"a": 1}'.encode("utf-16"), "UTF-16, as Excel and PowerShell write it; save it as UTF-8"),
        ("Age.jsonl", b"\xfe\xff\x00{", "UTF-16"),
        ("Age.jsonl", gzip.compress(b"{}", mtime=0), "is packed by gzip; add .gz to its name"),
        ("Age.jsonl.gz", b"{}", "not packed by gzip; take .gz off its name"),
        ("Age.jsonl", b"PK\x03\x04", "zip archive"),
        ("BBQ.zip", b"PK\x03\x04", "; unpack BBQ.zip first"),
        ("Age.jsonl.txt", b"{}", "; rename Age.jsonl.txt so that it ends in .jsonl"),
    ],
)
def test_a_file_of_another_kind_is_named_with_what_to_do(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=re.escape(said)):
        bbq.load_rows(str(tmp_path))


@pytest.mark.parametrize(
    ("condition", "label", "reason"),
    [
        ("ambig", 1, "label 1 is not the answer 'unknown', which is right where context_condition is 'ambig'"),
        ("disambig", 2, "label 2 is not a person, which is right where context_condition is 'disambig'"),
    ],
)
def test_a_label_of_bbq_that_counts_from_one_is_seen(tmp_path: Path, condition: str, label: int, reason: str) -> None:
    good = bbq_row(1)
    write(tmp_path / "Age.jsonl", good, bbq_row(2, context_condition=condition, label=label))
    loaded = bbq.load_rows(str(tmp_path))
    assert len(loaded.rows) == 1 and reason in loaded.facts["dropped"][0]


def test_a_key_of_ifeval_may_be_text(tmp_path: Path) -> None:
    write(tmp_path / "input_data.jsonl", prompt("7"), prompt("seven"))
    loaded = ifeval.load_prompts(str(tmp_path))
    assert [p.key for p in loaded.prompts] == [7] and "key 'seven'" in loaded.facts["dropped"][0]
