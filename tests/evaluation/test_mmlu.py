"""MMLU: the official prompt byte for byte, its counts, and what becomes of broken rows."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evenhand.data.io.demo import demo_folder
from evenhand.data.mmlu import CATEGORY, Row, load
from evenhand.errors import DataError, SettingsError
from evenhand.evaluation.mmlu import MMLU, header
from evenhand.interfaces import Choice, Passage, Score
from evenhand.models.loading import load as load_model
from evenhand.models.local import LocalModel
from evenhand.models.tiny import tiny_model, tiny_module, tiny_tokenizer
from evenhand.prompting.rendering import as_dialogue, dialogue_text
from evenhand.proving_ground.generator.planted import FAMILY
from evenhand.proving_ground.oracle import Oracle
from evenhand.testing import ScriptedModel, check_benchmark

ONE_SHOT = (
    "The following are multiple choice questions (with answers) about world capitals.\n"
    "\n"
    "What is the capital of France?\n"
    "A. Paris\n"
    "B. Lima\n"
    "C. Rome\n"
    "D. Warsaw\n"
    "Answer: A\n"
    "\n"
    "{question}\n"
    "A. {a}\n"
    "B. {b}\n"
    "C. {c}\n"
    "D. {d}\n"
    "Answer:"
)


@pytest.fixture(scope="session")
def real_mmlu() -> str:
    base = os.environ.get("EVENHAND_DATA")
    if not base or not (Path(base) / "mmlu").exists():
        pytest.skip("EVENHAND_DATA is not set, or holds no mmlu")
    return str(Path(base) / "mmlu")


def prompt(bench: MMLU, index: int) -> str:
    return as_dialogue(bench.load()[index].question, "letters").messages[0].content


def write(folder: Path, test: bytes, dev: bytes | None = None, subject: str = "anatomy") -> str:
    for split, content in (("test", test), ("dev", dev if dev is not None else test)):
        (folder / split).mkdir(exist_ok=True)
        (folder / split / f"{subject}_{split}.csv").write_bytes(content)
    return str(folder)


GOOD = b"Which?,a,b,c,d,B\n"


# ------------------------------------------------------------------------------------------------ the prompt


def test_the_prompt_byte_for_byte() -> None:
    bench = MMLU.build(source="demo", shots=1, subjects=["world_capitals"])
    item = bench.load()[0]
    a, b, c, d = item.question.options
    assert prompt(bench, 0) == ONE_SHOT.format(question=item.question.question, a=a, b=b, c=c, d=d)
    bare = prompt(MMLU.build(source="demo", shots=0, subjects=["world_capitals"]), 0)
    assert (
        bare
        == ONE_SHOT.partition("\n")[0] + "\n\n" + f"{item.question.question}\nA. {a}\nB. {b}\nC. {c}\nD. {d}\nAnswer:"
    )


def test_the_released_header_has_two_spaces() -> None:
    assert header("college_biology", [], True).endswith(" about  college biology.\n\n")
    assert header("college_biology", []).endswith("(with answers) about college biology.\n\n")
    assert MMLU.build(preset="released").official_spaces and not MMLU.build(preset="paper").official_spaces


def test_five_shots_come_in_file_order_from_dev() -> None:
    text = prompt(MMLU(source="demo"), 0)
    subject = MMLU(source="demo").load()[0].subject
    dev = load("demo").dev[subject]
    assert text.count("Answer:") == 6 and text.endswith("\nAnswer:")
    places = [text.index(r.question) for r in dev[:5]]
    assert places == sorted(places)


def test_demonstrations_are_kept_apart_and_the_whole_text_is_still_the_official_one() -> None:
    loaded = load("demo")
    for spaces in (False, True):
        bench = MMLU.build(source="demo", shots=3, official_spaces=spaces)
        for item, row in zip(bench.load(), loaded.rows, strict=True):
            subject = ("  " if spaces else " ") + row.subject.replace("_", " ")
            text = f"The following are multiple choice questions (with answers) about{subject}.\n\n"
            for shown in [*loaded.dev[row.subject][:3], row]:
                lines = [shown.question, *(f"{'ABCD'[j]}. {c}" for j, c in enumerate(shown.choices)), "Answer:"]
                text += "\n".join(lines) + (f" {'ABCD'[shown.right]}\n\n" if shown is not row else "")
            assert as_dialogue(item.question, "letters").messages[0].content == text
            assert [s.answer for s in item.question.shots] == [r.right for r in loaded.dev[row.subject][:3]]
            for shot in item.question.shots:
                alone = as_dialogue(shot.question, "letters").messages[0].content
                assert shot.text == f"{alone} {'ABCD'[shot.answer]}\n\n" and shot.text in text


def test_models_without_a_chat_template_read_the_bare_text() -> None:
    question = MMLU(source="demo").load()[0].question
    asked = as_dialogue(question, "letters")
    text = asked.messages[0].content
    assert dialogue_text(asked, tiny_tokenizer(chat=False)) == text
    assert dialogue_text(asked, tiny_tokenizer(chat=True)).endswith("<end> <assistant> ")
    longer = asked.assistant("A").user("Again?")
    assert (
        dialogue_text(longer, tiny_tokenizer(chat=False))
        == f"User: {text}\n\nAssistant: A\n\nUser: Again?\n\nAssistant:"
    )


def test_scoring_asks_for_four_letters_after_the_bare_text_in_one_call() -> None:
    calls: list[list[Passage]] = []

    class Scorer(ScriptedModel):
        def score(self, passages: Any) -> list[Score]:
            calls.append(list(passages))
            wanted = {" A": -2.0, " B": -1.0, " C": -1.0, " D": -3.0}
            return [Score(wanted[p.continuation], 1) for p in passages]

    bench = MMLU.build(source="demo", reading="score")
    assert bench.needs == {"score"} and MMLU(source="demo").needs == {"choose"}
    items = bench.load()[:3]
    answers = bench.ask(Scorer(abilities=frozenset({"score"})), items)
    assert len(calls) == 1 and len(calls[0]) == 12
    assert [p.continuation for p in calls[0][:4]] == [" A", " B", " C", " D"]
    assert calls[0][4].prompt == prompt(bench, 1)
    assert [a.decision for a in answers] == [1, 1, 1], "ties go to the first, as argmax does"
    e = np.exp([-2.0, -1.0, -1.0, -3.0])
    assert answers[0].probabilities == pytest.approx(tuple(e / e.sum()))
    assert answers[0].mass == pytest.approx(e.sum())


def test_both_readings_agree_without_a_chat_template() -> None:
    model = tiny_model(texts=[r.question for r in load("demo").rows], chat=False, too_long="skip")
    items = MMLU(source="demo", shots=2).load()[:20]
    chosen = MMLU(source="demo", shots=2).ask(model, items)
    scored = MMLU.build(source="demo", shots=2, reading="score").ask(model, items)
    assert [c.decision for c in chosen] == [s.decision for s in scored]
    for c, s in zip(chosen, scored, strict=True):
        assert c.probabilities == pytest.approx(s.probabilities, abs=1e-5)


def splitting(pattern: str, texts: list[str]) -> LocalModel:
    """A model whose tokens are the matches of a pattern."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    found = {token for text in texts for token, _ in split.pre_tokenize_str(text)}
    vocabulary = {t: i for i, t in enumerate(["<s>", "</s>", "<unk>", *sorted(found)])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = split
    words = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    return LocalModel(tiny_module(len(words), scale=1.0), words, name="tiny")


LEFT, ALONE, RIGHT = r"\S+ ?|\s", r"\S+|\s", r" ?\S+|\s"
"""Where a tokenizer puts a blank: to the word on its left, nowhere, to the word on its right."""


@pytest.mark.parametrize("pattern", [LEFT, ALONE, RIGHT])
def test_letters_in_the_harnesss_tokens_are_the_harnesss(pattern: str) -> None:
    instance = pytest.importorskip("lm_eval.api.instance").Instance
    harness = pytest.importorskip("lm_eval.models.huggingface").HFLM
    bench = MMLU.build(source="demo", shots=1, reading="score", tokens="harness")
    items = bench.load()[:12]
    texts = [as_dialogue(i.question, "letters").messages[0].content for i in items]
    model = splitting(pattern, [f"{t}{tail}" for t in texts for tail in ("", *(f" {x}" for x in "ABCD"))])
    theirs = harness(pretrained=model.weights.module, tokenizer=model.weights.tokenizer, add_bos_token=False)
    asked = [
        instance("loglikelihood", {}, (text, f" {letter}"), i, ("mmlu", 0, 1))
        for i, text in enumerate(texts)
        for letter in "ABCD"
    ]
    values = np.array([v for v, _ in theirs.loglikelihood(asked, disable_tqdm=True)]).reshape(-1, 4)
    expected = np.exp(values) / np.exp(values).sum(axis=1, keepdims=True)
    ours = bench.ask(model, items)
    assert np.array([c.probabilities for c in ours]) == pytest.approx(expected, abs=1e-5)
    assert [c.decision for c in ours] == values.argmax(axis=1).tolist()
    whole = MMLU.build(source="demo", shots=1, reading="score").ask(model, items)
    same = np.allclose([c.probabilities for c in whole], expected, atol=1e-5)
    assert same == (pattern != LEFT), "of the whole text, a blank on the left is part of what stands before"


def test_the_harnesss_tokens_are_refused_where_they_are_not_to_be_had() -> None:
    with pytest.raises(SettingsError, match="tokens=harness needs reading=score"):
        MMLU(source="demo", tokens="harness")
    bench = MMLU.build(source="demo", shots=0, reading="score", tokens="harness")
    items = bench.load()[:1]
    with pytest.raises(SettingsError, match="needs the tokens of"):
        bench.ask(ScriptedModel(abilities=frozenset({"score"})), items)
    text = as_dialogue(items[0].question, "letters").messages[0].content
    with pytest.raises(SettingsError, match="merges ' A' with the text before it"):
        bench.ask(splitting(r": [A-D]|.|\s", [f"{text} A"]), items)


def test_what_does_not_fit_is_unanswered() -> None:
    model = tiny_model(chat=False, too_long="skip")
    model.weights.module.config.max_position_embeddings = 8
    bench = MMLU.build(source="demo", reading="score")
    items = bench.load()[:2]
    assert [a.status for a in bench.ask(model, items)] == ["unanswered"] * 2


# ----------------------------------------------------------------------------------------------- the numbers


def test_accuracy_is_micro_averaged_and_letters_are_told_apart() -> None:
    items = MMLU(source="demo").load()
    first, second = items[:8], [i for i in items if i.subject != items[0].subject][:4]
    chosen = [*first, *second]
    # right letters go A B C D in turn: always A is right in 2 of 8; the second subject is all right but one unparsed
    answers = [Choice(0)] * 8 + [Choice(i.right) for i in second[:3]] + [Choice(None, status="unparsed")]
    bench = MMLU(source="demo")
    tally = bench.tally(chosen, answers)
    got = {g: {n: float(m.value[k]) for n, m in bench.compute(tally.total).items()} for k, g in enumerate(tally.groups)}
    assert [i.right for i in first] == [0, 1, 2, 3] * 2
    one, two = first[0].subject, second[0].subject
    assert got[one]["accuracy"] == 0.25 and got[two]["accuracy"] == 0.75
    assert got["overall"]["accuracy"] == pytest.approx(5 / 12), "not the mean of the subjects, 0.5"
    assert got[one]["rsd"] == pytest.approx(np.sqrt(3)) and got[one]["position_1"] == 1.0
    assert got[one]["rstd"] == pytest.approx(np.sqrt(3) / 4)
    assert got[one]["macro_f1"] == pytest.approx(2 / 5 / 4)
    assert got["overall"]["unparsed"] == pytest.approx(1 / 12)
    recalls = np.array([3 / 3, 1 / 3, 1 / 3, 0 / 3])
    assert got["overall"]["rstd"] == pytest.approx(recalls.std())
    assert got["overall"]["position_1"] == pytest.approx(9 / 11)


def test_categories_are_the_official_ones() -> None:
    assert len(CATEGORY) == 57
    sizes = [list(CATEGORY.values()).count(c) for c in ("STEM", "humanities", "social sciences", "other")]
    assert sizes == [18, 13, 12, 14]


def test_questions_with_the_same_text_are_one_cluster() -> None:
    items = MMLU(source="demo").load()
    assert len({i.id for i in items}) == 288
    assert len({i.cluster for i in items}) == 72, "every tested fact is asked four times"


def test_marks_say_what_the_tally_counts() -> None:
    bench = MMLU(source="demo")
    items = bench.load()
    answers = [Choice((i.right + n) % 4) if n % 5 else Choice(None, status="unparsed") for n, i in enumerate(items)]
    tally, grades = bench.tally(items, answers), bench.grades(items, answers)
    right = bench.compute(tally.total)["accuracy"]
    for g, group in enumerate(tally.groups):
        mine = [m for m in grades if group in m.groups]
        assert len(mine) == right.n[g] and sum(m.right for m in mine) == pytest.approx(right.value[g] * right.n[g])
    assert {m.part for m in grades} == {""} and sum(m.decision is None for m in grades) == 58
    assert 0 < sum(m.right for m in grades) < len(items)


def test_keeps_the_contract() -> None:
    check_benchmark(MMLU(source="demo"), limit=60)
    check_benchmark(MMLU.build(source="demo", preset="released"), tiny_model(texts=[], too_long="skip"), limit=20)


def test_a_planted_model_scores_what_was_planted() -> None:
    bench = MMLU.build(source="demo", reading="score")
    items = bench.load()
    got = {}
    for name in ("demo-c", "demo-d"):
        answers = bench.ask(Oracle(FAMILY[name]), items)
        got[name] = float(bench.compute(bench.tally(items, answers).total)["accuracy"].value[0])
    assert got["demo-c"] > got["demo-d"] >= 0.2, "demo-c knows more than demo-d"


def test_a_real_model_answers(real_model: Path) -> None:
    model = load_model(real_model, too_long="skip")
    for reading in ("choose", "score"):
        bench = MMLU.build(source="demo", shots=1, reading=reading)
        answers = bench.ask(model, bench.load()[:6])
        assert all(a.probabilities is not None and sum(a.probabilities) == pytest.approx(1) for a in answers)


# ------------------------------------------------------------------------------------------------- the files


def test_the_official_files(real_mmlu: str) -> None:
    loaded = load(real_mmlu)
    assert len(loaded.rows) == 14_042 and loaded.facts["subjects"] == 57
    assert sum(map(len, loaded.dev.values())) == 285 and loaded.facts["dropped"] == [] == loaded.facts["notes"]
    assert sum(c == "None" for r in loaded.rows for c in r.choices) == 10
    assert any("\n" in r.question for r in loaded.rows)
    assert {r.subject for r in loaded.rows} == set(CATEGORY)
    assert len(load(real_mmlu, "val").rows) == 1531 and load(real_mmlu, "val").facts["notes"] == []


def test_all_right_on_the_official_files(real_mmlu: str) -> None:
    bench = MMLU.build(source=real_mmlu)
    items = bench.load()
    values = bench.compute(bench.tally(items, [Choice(i.right) for i in items]).total)
    assert float(values["accuracy"].value[0]) == 1.0 and float(values["rsd"].value[0]) == 0.0
    assert values["accuracy"].n[:5].tolist() == [14_042, 3_018, 4_705, 3_077, 3_242]


def test_cells_are_text_and_may_hold_line_breaks(tmp_path: Path) -> None:
    source = write(tmp_path, b'"Two\nlines, one comma",None,NA,nan,1.50,D\r\n')
    assert load(source).rows == [Row("anatomy", 0, "Two\nlines, one comma", ("None", "NA", "nan", "1.50"), 3)]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"Which?,a,b,c,B\n", "5 columns"),
        (b"Which?,a,b,c,d,E\n", r"column 6 \(answer\) is 'E'"),
        (b"Which?,a,,c,d,B\n", r"column 3 \(B\) is empty"),
        (b"Which?,a,\xff,c,d,B\n", "column 3 is not UTF-8"),
        (b'"Which?,a,b,c,d,B\n', "not csv"),
    ],
)
def test_a_broken_row_is_named_and_costs_nothing_else(tmp_path: Path, line: bytes, reason: str) -> None:
    source = write(tmp_path, b'"Two\nlines",a,b,c,d,A\n' + GOOD + line + (b"" if b'"W' in line else GOOD), GOOD)
    loaded = load(source)
    assert len(loaded.rows) == (2 if b'"W' in line else 3)
    assert len(loaded.facts["dropped"]) == 1
    assert f"{tmp_path / 'test' / 'anatomy_test.csv'}:4:" in loaded.facts["dropped"][0]
    assert re.search(reason, loaded.facts["dropped"][0])
    with pytest.raises(DataError, match=reason):
        load(write(tmp_path, line, GOOD))


def test_empty_and_missing_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="no usable MMLU row"):
        load(write(tmp_path, b""))
    monkeypatch.setenv("EVENHAND_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"EVENHAND_DATA.*cais/mmlu.*MIT"):
        load("auto")


def test_too_few_demonstrations(tmp_path: Path) -> None:
    source = write(tmp_path, GOOD * 3, GOOD * 2)
    assert len(MMLU.build(source=source, shots=2).load()) == 3
    with pytest.raises(DataError, match="anatomy has 2 usable dev rows, shots=3"):
        MMLU.build(source=source, shots=3).load()


def test_settings_that_make_no_sense(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="shots=-1"):
        MMLU.build(shots=-1)
    with pytest.raises(SettingsError, match="reading=choose"):
        MMLU.build(reading="score", answer_by="letters")
    with pytest.raises(SettingsError, match="anatomy"):
        MMLU.build(source=write(tmp_path, GOOD * 5), subjects=["anatomi"]).load()


def test_the_hub_layout(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = load(str(demo_folder("mmlu"))).rows
    for subject in ("all", *{r.subject for r in rows}):
        (tmp_path / subject).mkdir()
        mine = [r for r in rows if subject in ("all", r.subject)]
        table = pa.table(
            {
                "question": [r.question for r in mine],
                "subject": [r.subject for r in mine],
                "choices": [list(r.choices) for r in mine],
                "answer": [r.right for r in mine],
            }
        )
        pq.write_table(table, tmp_path / subject / "test-00000-of-00001.parquet")
    loaded = load(str(tmp_path))
    assert sorted(loaded.rows) == sorted(rows), "and the folder all is no subject"
    broken = tmp_path / "all2" / "test-0.parquet"
    broken.parent.mkdir()
    broken.write_bytes(b"PAR1 nonsense")
    assert str(broken) in load(str(tmp_path)).facts["dropped"][0]
