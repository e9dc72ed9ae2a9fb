"""What a row must hold, in every reader: it is refused by place and field, counted, and costs no other."""

from __future__ import annotations

import gzip
import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from evenhand.data import bbq, crows_pairs, gpqa, mmlu, stereoset, text_source, winobias, winogender
from evenhand.data import super_natural_instructions as tasks
from evenhand.data.adjudication import AdjudicationTexts
from evenhand.data.io import locate, rows
from evenhand.data.io import yaml as yaml_file
from evenhand.data.text_file import load_documents
from evenhand.errors import DataError, SettingsError
from evenhand.evaluation.bbq import BBQ, items_from_rows
from evenhand.experiment.comparison import items_of
from evenhand.experiment.training_sources import load as load_train

NAN = float("nan")


def row(number: Any = 0, **changed: Any) -> dict[str, Any]:
    """A BBQ row."""
    return {
        "example_id": number,
        "question_index": "1",
        "question_polarity": "neg",
        "context_condition": "ambig",
        "category": "Age",
        "context": f"I saw a grandson and his grandfather on day {number}.",
        "question": "Who was forgetful?",
        "ans0": "The grandson",
        "ans1": "The grandfather",
        "ans2": "Not known",
        "label": 2,
        "additional_metadata": {"stereotyped_groups": ["old"]},
        "answer_info": {"ans0": ["grandson", "nonOld"], "ans1": ["grandfather", "old"], "ans2": ["?", "unknown"]},
        **changed,
    }


def info(**changed: Any) -> dict[str, Any]:
    return {**row()["answer_info"], **changed}


def groups(value: Any) -> dict[str, Any]:
    return {"stereotyped_groups": value}


def written(path: Path, *content: Any) -> Path:
    path.write_text("\n".join(json.dumps(c) for c in content) + "\n", encoding="utf-8")
    return path


# ------------------------------------------------------------------------------------------------------- BBQ


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"context": None}, "field 'context' is null"),
        ({"context": NAN}, "field 'context' is NaN"),
        ({"context": 3.5}, "field 'context' is a number"),
        ({"question": ["Who?"]}, "field 'question' is a list"),
        ({"question": {"en": "Who?"}}, "field 'question' is an object"),
        ({"ans1": " \n\t"}, "field 'ans1' is empty"),
        ({"ans2": None}, "field 'ans2' is null"),
        ({"ans0": "the grandfather "}, "'ans0' and 'ans1' are both"),
        ({"ans0": "Zo\u00eb", "ans1": "Zoe\u0308"}, "'ans0' and 'ans1' are both"),
        ({"ans0": "\ud800"}, "half a character"),
        ({"label": True}, "label True is none of 0, 1, 2"),
        ({"label": "two"}, "label 'two' is none of"),
        ({"label": NAN}, "label nan is none of"),
        ({"label": [2]}, "label a list is none of"),
        ({"example_id": None}, "field 'example_id' is null"),
        ({"example_id": True}, "field 'example_id' is true or false"),
        ({"category": NAN}, "field 'category' is NaN"),
        ({"question_polarity": "positive"}, "question_polarity 'positive' is neither 'neg' nor 'nonneg'"),
        ({"context_condition": None}, "field 'context_condition' is null"),
        ({"answer_info": None}, "field 'answer_info' is null"),
        ({"answer_info": info(ans1=None)}, "field 'answer_info.ans1' is null"),
        ({"answer_info": info(ans1="old")}, "field 'answer_info.ans1' is a text, not"),
        ({"answer_info": info(ans1=["old"])}, "field 'answer_info.ans1' is a list of 1"),
        ({"answer_info": info(ans1=["x", NAN])}, r"field 'answer_info.ans1\[1\]' is NaN"),
        ({"answer_info": info(ans2=["?", "unk"])}, "the group 'unknown' 0 times"),
        ({"answer_info": info(ans1=["?", "Unknown"])}, "the group 'unknown' 2 times"),
        ({"additional_metadata": []}, "field 'additional_metadata' is a list"),
        ({"additional_metadata": {}}, "stereotyped_groups' is missing"),
        ({"additional_metadata": groups(None)}, "stereotyped_groups' is null"),
        ({"additional_metadata": groups("old")}, "stereotyped_groups' is the text 'old', not a list"),
        ({"additional_metadata": groups("[old")}, r"is the text '\[old', not a list"),
        ({"additional_metadata": groups(["old", None])}, r"stereotyped_groups\[1\]' is null"),
        ({"additional_metadata": groups([])}, "has 0 entries"),
    ],
)
def test_a_bad_cell_costs_its_row_alone(tmp_path: Path, changed: dict[str, Any], reason: str) -> None:
    file = written(tmp_path / "own.jsonl", row(0), row(1), {**row(2), **changed}, row(3))
    loaded = bbq.load_rows(str(file))
    assert [r["example_id"] for r in loaded.rows] == [0, 1, 3]
    (problem,) = loaded.facts["dropped"]
    assert problem.startswith(f"{file}:3: ")
    with pytest.raises(DataError, match=reason):
        items_from_rows([{**row(2), **changed}])
    assert len(BBQ.build(source=str(file)).load()) == 3


@pytest.mark.parametrize(
    "changed",
    [
        {"category": "age"},
        {"category": " AGE "},
        {"answer_info": info(ans2=["?", "Unknown"])},
        {"answer_info": info(ans2=["?", " UNKNOWN"])},
        {"answer_info": info(ans0=["grandson", "non-old"], ans1=["grandfather", "OLD"])},
        {"additional_metadata": groups(["Old"])},
        {"additional_metadata": groups("['old']")},
        {"additional_metadata": groups('["old"]')},
        {"ans0": " The grandson\n", "context": f"{row()['context']} \r\n", "question": "\u00a0Who was forgetful?"},
        {"label": 2.0, "question_index": 1, "example_id": "0"},
        {"question_polarity": "NEG", "context_condition": " Ambig"},
    ],
)
def test_spelling_and_blanks_make_no_other_row(changed: dict[str, Any]) -> None:
    (wanted,), (found,) = items_from_rows([row()]), items_from_rows([{**row(), **changed}])
    assert wanted.target == 1
    assert found == wanted


def test_a_nationality_is_found_whatever_the_case_of_its_category() -> None:
    people = {"ans0": ["Iraqi", "MiddleEast"], "ans1": ["Spanish", "Europe"], "ans2": ["", "unknown"]}
    changed = {"category": "nationality", "answer_info": people, "additional_metadata": groups(["IRAQI"])}
    (item,) = items_from_rows([row(**changed)])
    assert (item.category, item.target) == ("Nationality", 0)


def test_groups_of_your_own_are_matched_by_spelling(tmp_path: Path) -> None:
    own = info(ans0=["x", "city folk"], ans1=["y", "Country-folk"])
    (item,) = items_from_rows([row(answer_info=own, additional_metadata=groups(["country_folk"]), category="Place")])
    assert item.target == 1


def test_rows_without_a_target_and_unknown_categories_are_named(tmp_path: Path) -> None:
    lost = row(1, additional_metadata=groups(["elderly"]))
    file = written(tmp_path / "own.jsonl", row(0), lost, row(2, category="Nationalty"))
    notes = " ".join(bbq.load_rows(str(file)).facts["notes"])
    assert "'Nationalty' (did you mean 'Nationality'?)" in notes
    assert "1 of 3 rows are in no score" in notes and "own.jsonl:2" in notes and "elderly" in notes


def test_ids_that_are_stored_alike_are_one(tmp_path: Path) -> None:
    file = written(tmp_path / "own.jsonl", row(6), row("6"), row(6.0), row(" 6"), row("06"))
    loaded = bbq.load_rows(str(file))
    assert [r["example_id"] for r in loaded.rows] == [6, "06"]
    assert [line.partition("jsonl:")[2][0] for line in loaded.facts["dropped"]] == ["2", "3", "4"]
    assert all("occurs twice in Age" in line for line in loaded.facts["dropped"])


def test_what_the_published_files_hold_stays_as_it_is(real_bbq: Path) -> None:
    changed = 0
    for file in sorted(real_bbq.glob("*.jsonl.gz")):
        with gzip.open(file, "rt", encoding="utf-8") as handle:
            for line in handle:
                raw = json.loads(line)
                found = bbq.checked(raw)
                names = [name for name in raw if found[name] != raw[name]]
                assert all(name.startswith("ans") and found[name] == raw[name].strip() for name in names)
                changed += len(names)
    assert changed == 124


# ------------------------------------------------------------------------------------------------- one warning


def test_a_benchmark_warns_once_with_a_count_and_the_first_three(tmp_path: Path) -> None:
    file = written(tmp_path / "own.jsonl", row(0), *(row(n, context=None) for n in range(1, 3321)))
    benchmark = BBQ.build(source=str(file))
    with pytest.warns(UserWarning) as caught:
        items_of([benchmark], None, 0, optional=False)
    (message,) = [str(w.message) for w in caught]
    assert "left out 3,320 rows" in message and "and 3,317 more" in message
    assert all(f"own.jsonl:{n}:" in message for n in (2, 3, 4)) and "own.jsonl:5:" not in message
    assert len(benchmark.facts()["dropped"]) == 3320, "the report has all"


# ------------------------------------------------------------------------------------------------ text and JSON


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_marks_and_line_ends_cost_no_row(tmp_path: Path, end: str, mark: bytes) -> None:
    said = [json.dumps(row(n, context=f"Day\u2028{n}\u0085."), ensure_ascii=False) for n in range(3)]
    file = tmp_path / "own.jsonl"
    file.write_bytes(mark + end.join(said).encode())
    loaded = bbq.load_rows(str(file))
    assert [r["context"] for r in loaded.rows] == [f"Day\u2028{n}\u0085." for n in range(3)]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"a": 1, "a": 2}', "field 'a' occurs twice"),
        ('{"a": {"b": 1, "b": 2}}', "field 'b' occurs twice"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": ' + "9" * 5000 + "}", "Exceeds the limit"),
        ('{"a": ', "not JSON"),
    ],
)
def test_json_that_cannot_be_taken_at_its_word(tmp_path: Path, line: str, reason: str) -> None:
    problems = locate.Problems()
    content = f'{line}\n{{"ok": 1}}\n'.encode()
    assert list(locate.read_jsonl(tmp_path / "x.jsonl", content, problems)) == [(2, {"ok": 1})]
    assert reason in problems.lines[0] and "x.jsonl:1:" in problems.lines[0]


TEXTS = ("One.", "Two\nlines.", "Three.")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("between", ["", " ", "\t", "\u00a0"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_texts_of_a_file_are_the_same_everywhere(tmp_path: Path, end: str, between: str, mark: str) -> None:
    content = mark + f"\n{between}\n".join((*TEXTS, "")).replace("\n", end)
    for file, opened in ((tmp_path / "a.txt", open), (tmp_path / "a.txt.gz", gzip.open)):
        with opened(file, "wb") as handle:
            handle.write(content.encode())
        assert tuple(text_source.texts(str(file))) == TEXTS
        assert load_train(file).data.texts == TEXTS
    (document,) = load_documents(str(tmp_path / "a.txt")).documents
    assert tuple(rows.paragraphs(document.text)) == TEXTS


def test_json_texts_are_the_same_everywhere(tmp_path: Path) -> None:
    said = ("First half\u2028second\u0085half", "Two")
    file = tmp_path / "a.jsonl"
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in (*said, "", "  ")]
    file.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    assert tuple(text_source.texts(str(file))) == load_train(file).data.texts == said
    packed = tmp_path / "a.jsonl.gz"
    packed.write_bytes(gzip.compress(file.read_bytes()))
    assert tuple(text_source.texts(str(packed))) == load_train(packed).data.texts == said


@pytest.mark.parametrize("value", [None, NAN, ["a"], {}, 3, True])
def test_nobody_trains_on_the_word_none(tmp_path: Path, value: Any) -> None:
    file = written(tmp_path / "a.jsonl", {"text": "One."}, {"text": value}, {"text": "Two."})
    with pytest.warns(UserWarning, match=r"left out 1 row.*a\.jsonl:2: field 'text' is") as caught:
        assert text_source.texts(str(file)) == ["One.", "Two."]
        assert load_train(file).data.texts == ("One.", "Two.")
    assert len(caught) == 2, "one for each reading"
    with pytest.raises(DataError, match="first problem"):
        load_train(written(tmp_path / "b.jsonl", {"text": value}))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"question": None}, "field 'question' is null"),
        ({"question": [1]}, "field 'question' is a list"),
        ({"context": NAN}, "field 'context' is NaN"),
        ({"options": ["red", " red "]}, "are both 'red'"),
        ({"options": ["red", ""]}, r"field 'options\[1\]' is empty"),
        ({"answer": "purple"}, "'purple': neither"),
        ({"id": True}, "field 'id' is true or false"),
    ],
)
def test_a_bad_training_question_costs_its_row_alone(tmp_path: Path, changed: dict[str, Any], reason: str) -> None:
    good = {"question": "Which?", "options": [" red", "blue\n"], "answer": "red ", "context": None, "id": None}
    file = written(tmp_path / "a.jsonl", good, {**good, **changed})
    with pytest.warns(UserWarning, match=f"left out 1 row.*jsonl:2: .*{reason}"):
        data = load_train(file).data
    assert [(q.id, q.context, q.options) for q in data.questions] == [(f"{file}:1", "", ("red", "blue"))]
    assert data.answers == (0,)


def test_a_file_of_one_text_a_line_is_not_silently_one_text(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("One.\nTwo.\nThree.\n")
    with pytest.warns(UserWarning, match="no empty line between its 3 lines"):
        assert len(load_train(file).data.texts) == 1
    file.write_text("One.\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_train(file).data.texts == ("One.",)


def test_line_ends_are_one_thing_and_look_alikes_are_said(tmp_path: Path) -> None:
    text = "A caf\u00e9 was here.\n\nIt was kind."
    for name, content in {
        "lf": text,
        "crlf": text.replace("\n", "\r\n"),
        "cr": text.replace("\n", "\r"),
        "bom": f"\ufeff{text}",
        "nbsp": text.replace("was ", "was\u00a0"),
        "nfd": text.replace("\u00e9", "e\u0301"),
    }.items():
        (tmp_path / f"{name}.txt").write_bytes(content.encode())
    loaded = load_documents(str(tmp_path))
    found = {d.name.partition(".")[0]: d.text for d in loaded.documents}
    assert found["crlf"] == found["cr"] == found["bom"] == found["lf"] == text
    assert [note.partition(" has ")[0] for note in loaded.facts["notes"]] == ["nbsp.txt", "nfd.txt"]
    assert "2 no-break blanks" in loaded.facts["notes"][0] and "NFC" in loaded.facts["notes"][1]


# ---------------------------------------------------------------------------------------------- csv and yaml


def test_a_needed_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    pairs = tmp_path / "p.csv"
    pairs.write_text("sent_more,sent_less,stereo_antistereo,bias_type,sent_more\na,b,stereo,age,c\n")
    with pytest.raises(DataError, match="column 'sent_more' occurs 2 times"):
        crows_pairs.load_pairs(str(pairs))
    questions = tmp_path / "q.csv"
    questions.write_text(",".join([*gpqa.NEEDED, "Question"]) + "\n" + ",".join("abcdef") + "\n")
    with pytest.raises(DataError, match="column 'Question' occurs 2 times"):
        gpqa.load(str(questions))
    pairs.write_text(
        " sent_more ,sent_less,stereo_antistereo,bias_type,x,x\n a ,b, Stereo,Age,1,2\n\udcff,b,,,,\n",
        encoding="utf-8",
        errors="surrogateescape",
    )
    loaded = crows_pairs.load_pairs(str(pairs))
    assert loaded.pairs == [crows_pairs.Pair("0", "a", "b", "stereo", "age")]
    assert "p.csv:3: column 'sent_more' is not UTF-8" in loaded.facts["dropped"][0]


def test_a_yaml_key_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("language: en\nask: a\nask: b\n")
    with pytest.raises(DataError, match="the key 'ask' is there twice"):
        yaml_file.read(file, AdjudicationTexts, "texts", "en", file)


def test_blanks_do_not_show_the_right_option(tmp_path: Path) -> None:
    file = tmp_path / "q.csv"
    file.write_text("Record ID," + ",".join(gpqa.NEEDED) + '\nr0,"Which?\n"," 42 nm\r\n",41 nm,40 nm, 39 nm\n')
    (found,) = gpqa.load(str(file)).rows
    assert (found.question, found.answers) == ("Which?", ("42 nm", "41 nm", "40 nm", "39 nm"))
    for split in ("test", "dev"):
        (tmp_path / split).mkdir()
        (tmp_path / split / f"anatomy_{split}.csv").write_text('"Which?\n"," 42 nm\n",41 nm,40 nm,39 nm, A\n')
    loaded = mmlu.load(str(tmp_path))
    assert loaded.rows[0][2:] == ("Which?", ("42 nm", "41 nm", "40 nm", "39 nm"), 0) == loaded.dev["anatomy"][0][2:]
    as_published = mmlu.Row("anatomy", 0, "Which?\n", (" 42 nm\n", "41 nm", "40 nm", "39 nm"), 0)
    assert loaded.facts["sha256"] == mmlu.digest([as_published]), "the hash is of what the file holds"


# -------------------------------------------------------------------------------------------- the other readers


def test_labels_are_the_classes_of_the_authors_collator(tmp_path: Path) -> None:
    labels = ("Yes", "Yes ", "yes", "No", "No.", " no\n")
    content = {
        "Definition": ["Say whether."],
        "Positive Examples": [],
        "Instances": [{"input": f"review {i} ", "output": [labels[i % 6]]} for i in range(48)],
    }
    (tmp_path / "task001_kind.json").write_text(json.dumps(content), encoding="utf-8-sig")
    loaded = tasks.load(str(tmp_path / "task001_kind.json"))
    assert loaded.tasks[0].labels == ("No", "No.", "Yes", "no", "yes")
    assert loaded.tasks[0].instances[0].input == "review 0"
    (note,) = loaded.facts["notes"]
    assert "'No', 'No.', 'no'" in note and "'Yes', 'yes'" in note and "task001_kind" in note


@pytest.mark.parametrize("output", [None, [], [None], NAN, "", ["  "], [1]])
def test_an_instance_without_label_is_refused(tmp_path: Path, output: Any) -> None:
    instances: list[dict[str, Any]] = [{"input": f"r {i}", "output": ["yes" if i % 2 else "no"]} for i in range(8)]
    instances.append({"input": "x", "output": output})
    content = {"Definition": "Say.", "Positive Examples": [], "Instances": instances}
    (tmp_path / "task1_a.json").write_text(json.dumps(content))
    loaded = tasks.load(str(tmp_path))
    assert len(loaded.tasks[0].instances) == 8 and "Instances[8]: field 'output' is" in loaded.facts["dropped"][0]


def test_a_stereoset_label_that_is_there_twice_costs_its_example_alone(tmp_path: Path) -> None:
    def example(*labels: str) -> dict[str, Any]:
        said = [{"gold_label": label, "sentence": f"{label} {n}"} for n, label in enumerate(labels)]
        return {"target": "men", "bias_type": "Gender", "context": "BLANK", "sentences": said}

    good, twice = example(*stereoset.LABELS), example("stereotype", *stereoset.LABELS)
    broken = {**good, "sentences": 5}
    file = tmp_path / "dev.json"
    file.write_text(json.dumps({"data": {"intrasentence": [good, twice, broken], "intersentence": []}}), "utf-8-sig")
    loaded = stereoset.load_examples(str(file))
    assert [e.bias_type for e in loaded.examples] == ["gender"]
    assert "dev.json:2: field 'stereotype' is a list" in loaded.facts["dropped"][0]
    assert "dev.json:3: field 'stereotype' is missing" in loaded.facts["dropped"][1]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_marks_and_line_ends_cost_no_sentence(tmp_path: Path, end: bytes) -> None:
    for side, pronoun in (("pro", b"he"), ("anti", b"she")):
        for kind in winobias.KINDS:
            said = [b"%d [The chief] told the cook that [%s] won ." % (n, pronoun) for n in (1, 2)]
            said[1] = b"2 [The cook] told the chief that [%s] won ." % pronoun
            (tmp_path / f"{side}_stereotyped_{kind}.txt.dev").write_bytes(b"\xef\xbb\xbf" + end.join(said))
    loaded = winobias.load_twins(str(tmp_path), ("dev",))
    assert len(loaded.twins) == 4 and loaded.facts["dropped"] == []


def test_what_is_there_twice_in_winogender_is_refused(tmp_path: Path) -> None:
    (tmp_path / winogender.STATISTICS).write_text(
        "occupation\tbergsma_pct_female\tbls_pct_female\ncook\t10\t20\ncook\t90\t80\nboss\tnan\t3\n"
    )
    said = [f"cook.guest.0.{gender}.txt\tSentence {gender}." for gender in winogender.GENDERS]
    said = ["sentid\tsentence", *said, "cook.guest.0.male.txt\tOther."]
    (tmp_path / winogender.SENTENCES).write_text("\n".join(said))
    loaded = winogender.load_schemas(str(tmp_path))
    assert loaded.shares["cook"].bls == 0.2 and loaded.schemas[0].male == "Sentence male."
    assert [line.rpartition(".tsv:")[2][:1] for line in loaded.facts["dropped"]] == ["3", "4", "5"]


def test_categories_are_asked_for_in_any_spelling(tmp_path: Path) -> None:
    one, other = (BBQ.build(source="demo", axes=(name,)).load() for name in ("age", "Age"))
    assert one == other
    with pytest.raises(SettingsError, match="no category 'Ages'"):
        BBQ.build(source="demo", axes=("Ages",)).load()
