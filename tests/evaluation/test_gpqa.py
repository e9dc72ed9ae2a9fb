"""GPQA: prompts and patterns as published, and not one word of an item on disk, in errors or in `repr`."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from evenhand.core.answer_cache import answer_cache
from evenhand.core.run_folder import RunFolder
from evenhand.data.gpqa import ANSWERS, load
from evenhand.errors import DataError, SettingsError
from evenhand.evaluation.gpqa import GPQA, HIDDEN_NOTE, base_prompt, parse_official, shown_order
from evenhand.experiment.comparison import compare
from evenhand.interfaces import Choice, Dialogue, Message
from evenhand.methods.prompting.self_debias import SelfDebias
from evenhand.models.loading import load as load_model
from evenhand.models.tiny import tiny_model
from evenhand.testing import ScriptedModel, check_benchmark

HEAD = ["Question", *ANSWERS, "High-level domain", "Record ID"]
SECRET = "zyzzyva"
"""A word that stands in every cell that may not be seen."""


def rows(count: int, domains: tuple[str, ...] = ("Physics", "Biology")) -> list[list[str]]:
    return [
        [f"Why {SECRET} {i}?", *(f"{SECRET}{i}{k}" for k in "rxyz"), domains[i % len(domains)], f"rec{i}"]
        for i in range(count)
    ]


def write(folder: Path, body: list[list[str]], head: list[str] | None = None, name: str = "gpqa_main.csv") -> str:
    out = io.StringIO()
    csv.writer(out).writerows([head or HEAD, *body])
    (folder / name).write_text(out.getvalue(), encoding="utf-8", newline="")
    return str(folder)


# ------------------------------------------------------------------------------------- prompts and patterns


def test_prompts_byte_for_byte(tmp_path: Path) -> None:
    source = write(tmp_path, rows(1))
    bench = GPQA.build(source=source, asked="zero_shot")
    assert bench.needs == {"generate"} and GPQA.build(source=source).needs == {"choose"}
    model = ScriptedModel(lambda d: "The correct answer is (B)")
    bench.ask(model, bench.load())
    a, b, c, d = bench.load()[0].question.options
    base = (
        f"What is the correct answer to this question: Why {SECRET} 0?\n\nChoices:\n(A) {a}\n(B) {b}\n(C) {c}\n(D) {d}"
    )
    system = Message("system", "You are a very intelligent assistant, who follows instructions directly.")
    ending = '\n\nFormat your response as follows: "The correct answer is (insert answer here)"'
    assert model.dialogues == [Dialogue((system, Message("user", base + ending)))]
    assert base_prompt(f"Why {SECRET} 0?", (a, b, c, d)) == base


def test_chain_of_thought_takes_two_requests_for_all_at_once(tmp_path: Path) -> None:
    calls: list[list[str]] = []

    class Thinker(ScriptedModel):
        def generate(self, dialogues: Any, *rest: Any) -> Any:
            calls.append([d.messages[-1].content for d in dialogues])
            return super().generate(dialogues, *rest)

    def reply(dialogue: Dialogue) -> str | None:
        text = dialogue.messages[-1].content
        if f"{SECRET} 2?" in text:
            return None
        return "The correct answer is (C)." if "Based on the above" in text else "Hm, (A) or so."

    bench = GPQA.build(source=write(tmp_path, rows(3)), preset="paper_cot")
    answers = bench.ask(Thinker(reply), bench.load())
    assert [len(c) for c in calls] == [3, 2]
    assert calls[0][0].endswith("\nLet's think step by step: ")
    assert calls[1][0] == calls[0][0] + (
        "Hm, (A) or so.\n\nBased on the above, what is the single, most likely answer choice? "
        'Answer in the format "The correct answer is (insert answer here)".'
    )
    assert [a.decision for a in answers] == [2, 2, None]
    assert [a.status for a in answers] == ["answered", "answered", "unanswered"]
    assert [a.usage.calls for a in answers] == [2, 2, 1]


@pytest.mark.parametrize(
    ("reply", "position"),
    [
        ("The correct answer is (B)", 1),
        ("I first thought (A), but the correct answer is (D).", 3),
        ("Answer: (C)", 2),
        ("answer: (A)", 0),
        ("The answer (B) fits", 1),
        ("So (C) it is, not (D)", 2),
        ("The answer is (X), or else (B)", None),  # the last pattern's first match is (X) as well
        ("answer is (E). Answer: (D)", 3),
        ("The correct answer is B", None),
        ("The correct answer is (b)", None),
        ("I cannot answer that.", None),
        ("", None),
        ("ANSWER IS (A)", 0),  # by the last pattern
    ],
)
def test_the_official_patterns(reply: str, position: int | None) -> None:
    assert parse_official(reply) == position


def test_the_order_of_options_is_by_record_and_seed(tmp_path: Path) -> None:
    full, part = write(tmp_path, rows(40)), tmp_path / "part"
    part.mkdir()
    write(part, rows(40)[::-1][:7])
    of = {i.id: i.question.options for i in GPQA.build(source=full).load()}
    assert all(of[i.id] == i.question.options for i in GPQA.build(source=str(part)).load())
    other = {i.id: i.question.options for i in GPQA.build(source=full, seed=1).load()}
    assert of != other and {k: sorted(v) for k, v in of.items()} == {k: sorted(v) for k, v in other.items()}
    assert shown_order("rec0", 0) == shown_order("rec0", 0)
    places = Counter(shown_order(f"r{i}", 0).index(0) for i in range(4000))
    assert all(900 < places[p] < 1100 for p in range(4))


def test_the_right_answer_is_where_it_is_shown(tmp_path: Path) -> None:
    for item in GPQA.build(source=write(tmp_path, rows(10))).load():
        assert item.question.options[item.right].endswith("r")


# ----------------------------------------------------------------------------------------------- the numbers


def test_accuracy_and_refusals_by_hand(tmp_path: Path) -> None:
    bench = GPQA.build(source=write(tmp_path, rows(9, ("Physics", "Physics", "Biology"))))
    items = bench.load()
    physics, biology = [i for i in items if i.domain == "Physics"], [i for i in items if i.domain == "Biology"]
    assert (len(physics), len(biology)) == (6, 3)
    answers = {i.id: Choice(i.right) for i in physics[:3]}
    answers |= {physics[3].id: Choice((physics[3].right + 1) % 4)}
    answers |= {physics[4].id: Choice(None, status="unparsed"), physics[5].id: Choice(None, status="unanswered")}
    answers |= {i.id: Choice(None, status="unparsed") for i in biology}
    tally = bench.tally(items, [answers[i.id] for i in items])
    got = {g: {n: float(m.value[k]) for n, m in bench.compute(tally.total).items()} for k, g in enumerate(tally.groups)}
    assert tally.groups == ("overall", "Biology", "Physics")
    assert got["Physics"]["accuracy"] == 0.5 and got["Physics"]["refusal"] == pytest.approx(2 / 6)
    assert got["Physics"]["unanswered"] == pytest.approx(1 / 6)
    assert got["Biology"]["accuracy"] == 0.0 and got["Biology"]["refusal"] == 1.0
    grades = bench.grades(items, [answers[i.id] for i in items])
    counts = {d: [m.right for m in grades if d in m.groups] for d in tally.groups}
    assert {d: (sum(c), len(c)) for d, c in counts.items()} == {"overall": (3, 9), "Physics": (3, 6), "Biology": (0, 3)}
    assert sum(m.decision is None for m in grades) == 5
    assert got["overall"]["accuracy"] == pytest.approx(3 / 9) and got["overall"]["refusal"] == pytest.approx(5 / 9)


def test_letter_metrics(tmp_path: Path) -> None:
    bench = GPQA.build(source=write(tmp_path, rows(60)))
    items = bench.load()
    right = bench.compute(bench.tally(items, [Choice(i.right) for i in items]).total)
    assert (right["rsd"].value[0], right["rstd"].value[0], right["macro_f1"].value[0]) == (0, 0, 1)
    always = bench.compute(bench.tally(items, [Choice(2)] * 60).total)
    share = sum(i.right == 2 for i in items) / 60
    assert always["position_3"].value[0] == 1 and always["rstd"].value[0] == pytest.approx(3**0.5 / 4)
    assert always["rsd"].value[0] == pytest.approx(3**0.5 / 4 / share)


def test_keeps_the_contract() -> None:
    for asked in ("letters", "zero_shot", "zero_shot_cot"):
        check_benchmark(GPQA.build(source="demo", asked=asked, max_new_tokens=3), limit=8)


def test_two_rows_of_the_same_question_are_one_cluster() -> None:
    items = GPQA(source="demo").load()
    assert (len(items), len({i.cluster for i in items})) == (72, 36)


def test_a_real_model_answers(real_model: Path) -> None:
    bench = GPQA.build(source="demo")
    answers = bench.ask(load_model(real_model, too_long="skip"), bench.load()[:6])
    assert all(a.status == "answered" and a.before == () for a in answers)


# ------------------------------------------------------------------------------------ nothing leaves memory


@pytest.mark.parametrize("asked", ["letters", "zero_shot", "zero_shot_cot"])
def test_no_text_reaches_the_disk(tmp_path: Path, asked: str) -> None:
    """A model that parrots, a method that keeps turns, a run folder with its cache: all of it is searched."""
    data, run = tmp_path / "data", RunFolder(tmp_path / "run")
    data.mkdir()
    bench = GPQA.build(source=write(data, rows(4)), asked=asked, max_new_tokens=30)
    texts = [cell for row in rows(4) for cell in row[:5]]
    model = SelfDebias(variant="explanation").apply(tiny_model(texts=texts, answer_by="generation", too_long="skip"))
    parrot = ScriptedModel(lambda d: d.messages[-1].content)
    with run.locked(), answer_cache(run.cache) as cache:
        for name, one in (("tiny", model), ("parrot", parrot)):
            answers = bench.ask(one, bench.load())
            run.write_answers(name, answers, [i.id for i in bench.load()], {"facts": bench.facts()})
            assert run.read_answers(name, [i.id for i in bench.load()], Choice) == answers
        run.write_manifest({"benchmark": bench.facts(), "items": repr(bench.load())})
        assert cache is not None and len(cache) == 0
    files = [f for f in (tmp_path / "run").rglob("*") if f.is_file()]
    assert len(files) >= 4
    for file in files:
        assert SECRET.encode() not in file.read_bytes(), file
    for name in ("tiny", "parrot"):
        assert SECRET not in json.dumps([asdict(a) for a in run.read_answers(name, ["rec0", "rec3"], Choice) or [None]])


@pytest.mark.parametrize("asked", ["letters", "zero_shot"])
def test_no_text_is_in_any_column_of_a_run_s_answers(tmp_path: Path, asked: str) -> None:
    (tmp_path / "data").mkdir()
    bench = GPQA.build(source=write(tmp_path / "data", rows(6)), asked=asked, max_new_tokens=30)
    texts = [cell for row in rows(6) for cell in row[:5]]
    models = [
        tiny_model(texts=texts, answer_by="generation", too_long="skip"),
        ScriptedModel(lambda d: d.messages[-1].content, decide=lambda q: None),
    ]
    method = SelfDebias(variant="explanation")
    with pytest.warns(UserWarning, match="6 usable rows"):
        compare(models, method, bench, out=tmp_path / "run", show_progress=False, replicates=200)
    files = [f for f in (tmp_path / "run").rglob("*") if f.is_file()]
    for file in files:
        assert SECRET.encode() not in file.read_bytes(), file
    parts = [pq.read_table(f).to_pandas() for f in files if f.parent.name == "answers"]
    assert len(parts) == 4
    for frame in parts:
        assert SECRET not in frame.to_csv() and set(frame.cluster) == set(frame.item) == {f"rec{n}" for n in range(6)}
        assert frame.reply.dropna().str.startswith("sha256:").all()


def test_replies_are_hashed_and_free_notes_hidden(tmp_path: Path) -> None:
    bench = GPQA.build(source=write(tmp_path, rows(2)))

    class Talker(ScriptedModel):
        def choose(self, questions: Any) -> list[Choice]:
            turns = (Message("user", questions[0].question),)
            fits = "needs 9 tokens, the context holds 8"
            return [
                Choice(1, reply=f"(B) {SECRET}", before=turns),
                Choice(None, status="unanswered", note=f"server: cannot parse {SECRET}"),
                Choice(None, status="unanswered", note=fits),
                Choice(1, reply=f"(B) {SECRET}"),
            ][: len(questions) + 2]

    one, two, three, four = bench.ask(Talker(), bench.load())
    assert one.reply == four.reply and one.reply.startswith("sha256:") and one.before == ()
    assert two.note == HIDDEN_NOTE and three.note == "needs 9 tokens, the context holds 8"


def test_errors_about_files_hold_no_cell(tmp_path: Path) -> None:
    body = rows(6)
    body[1][2] = " "
    body[2] = body[2][:4]
    body[4][-1] = "rec0"
    loaded = load(write(tmp_path, body))
    file = tmp_path / "gpqa_main.csv"
    assert [r.id for r in loaded.rows] == ["rec0", "rec3", "rec5"]
    assert loaded.facts["dropped"] == [
        f"{file}:3: column 'Incorrect Answer 1' is empty",
        f"{file}:4: 4 columns; the first line has 7",
        f"{file}:6: Record ID rec0 occurs twice",
    ]
    assert SECRET not in json.dumps(loaded.facts) + repr(loaded.rows)
    assert "the official gpqa_main.csv has 448" in loaded.facts["notes"][0]


# ------------------------------------------------------------------------------------------------- the files


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    head = ["Question", "Right", *HEAD[2:]]
    with pytest.raises(DataError, match=r"gpqa_main\.csv:1: column 'Correct Answer' is missing"):
        load(write(tmp_path, rows(2), head))


def test_optional_columns(tmp_path: Path) -> None:
    loaded = load(write(tmp_path, [r[:5] for r in rows(2)], HEAD[:5]))
    assert {r.domain for r in loaded.rows} == {"unstated"} and len({r.id for r in loaded.rows}) == 2
    assert SECRET not in repr(loaded.rows)


@pytest.mark.parametrize("content", [b"", b"\n\n", ",".join(HEAD).encode() + b"\n"])
def test_empty_files(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "gpqa_main.csv").write_bytes(content)
    with pytest.raises(DataError, match="no usable GPQA row"):
        load(str(tmp_path))


def test_wrong_encoding_names_the_row(tmp_path: Path) -> None:
    write(tmp_path, rows(2))
    file = tmp_path / "gpqa_main.csv"
    file.write_bytes(file.read_bytes() + f"Caf\xe9 {SECRET},a,b,c,d,Physics,rec9\n".encode("latin-1"))
    loaded = load(str(file))
    assert len(loaded.rows) == 2 and loaded.facts["dropped"] == [f"{file}:4: column 1 is not UTF-8"]


def test_the_right_file_is_found_or_asked_for(tmp_path: Path) -> None:
    write(tmp_path, rows(3), name="gpqa_diamond.csv")
    assert len(load(str(tmp_path), "diamond").rows) == 3
    with pytest.raises(DataError, match=r"no gpqa_main\.csv in .*holds gpqa_diamond\.csv"):
        load(str(tmp_path))
    with pytest.raises(DataError, match=r"gpqa\(subset=diamond\)"):
        load(str(tmp_path / "gpqa_diamond.csv"))


def test_no_access_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def refuse(*args: Any, **kwargs: Any) -> str:
        raise OSError("403 Client Error: gated repository")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    monkeypatch.delenv("EVENHAND_DATA", raising=False)
    with pytest.raises(DataError, match=r"Idavidrein/gpqa.*gated.*log in"):
        load("auto")


def test_settings_that_make_no_sense() -> None:
    with pytest.raises(SettingsError, match="max_new_tokens=0"):
        GPQA.build(max_new_tokens=0)
    with pytest.raises(SettingsError, match="subset"):
        GPQA.build(subset="experts")


def test_a_cut_reply_is_read_only_in_the_form_of_an_answer() -> None:
    open_end = "Let me look at each option. Option (A) says"
    assert (parse_official(open_end), parse_official(open_end, finished=False)) == (0, None)
    for said in ("The correct answer is (B), because the", "Answer: (B)", "(B)"):
        assert parse_official(said, finished=False) == 1, said
