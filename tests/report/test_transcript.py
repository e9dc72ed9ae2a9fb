"""A whole dialogue of an item, from the run folder; nothing of a gated benchmark is shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest

import evenhand
from evenhand import Choice, Message, Mitigated, Model, TrainData, settings
from evenhand.core import registry
from evenhand.errors import RunError
from evenhand.evaluation.bbq import BBQ
from evenhand.evaluation.gpqa import GPQA
from evenhand.evaluation.ifeval import IFEval
from evenhand.interfaces import Method
from evenhand.prompting.rendering import as_dialogue
from evenhand.report import Report
from evenhand.testing import ScriptedModel

BBQ_DEMO, GPQA_DEMO, IFEVAL_DEMO = "bbq(source=demo)", "gpqa(source=demo,asked=zero_shot)", "ifeval(source=demo)"


@settings
class Talks(Method):
    """Holds two turns, in which it quotes the question, and answers by a written reply."""

    name: ClassVar[str] = "talks"

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        def choose(questions: Any) -> list[Choice]:
            return [
                Choice(
                    1, reply="B\x1b[31m", before=(Message("user", f"First: {q.question}"), Message("assistant", "Hm."))
                )
                for q in questions
            ]

        return Mitigated(model, self, choose=choose)


@settings
class Silent(Method):
    """Changes the question and does not say how."""

    name: ClassVar[str] = "silent"

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        return Mitigated(model, self, choose=lambda questions: [Choice(None, status="unparsed") for _ in questions])


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    model = ScriptedModel(reply=lambda d: f"You asked: {d.messages[-1].content[:30]} The answer is (A)")
    folder = tmp_path_factory.mktemp("run")
    evenhand.compare(
        model,
        [Talks(), Silent()],
        [BBQ_DEMO, GPQA_DEMO, IFEVAL_DEMO],
        out=folder,
        limit=6,
        replicates=200,
        show_progress=False,
    )
    return Report.load(folder)


def first(report: Report, benchmark: str) -> str:
    """The id of an item that was asked."""
    import pyarrow.parquet as pq

    (row, *_) = [u for u in report.manifest["usage"] if u["benchmark"] == benchmark]
    assert report.folder is not None
    return str(pq.read_table(report.folder / "answers" / f"{row['answers']}.parquet").to_pydict()["item"][0])


def test_the_whole_dialogue_of_every_method(report: Report) -> None:
    item = first(report, BBQ_DEMO)
    (unit,) = [i for i in BBQ(source="demo").load() if i.id == item]
    none, talks, silent = report.transcripts(item)
    assert [t.method for t in (none, talks, silent)] == ["none", "talks", "silent"]
    (asked,) = none.turns
    assert (
        asked.role == "user" and unit.question.question in asked.content and unit.question.options[2] in asked.content
    )
    right = {True: "right", False: "wrong"}
    assert none.outcome == f"option 0, {unit.question.options[0]!r}: {right[unit.label == 0]}" and none.note == ""
    assert talks.turns == (
        Message("user", f"First: {unit.question.question}"),
        Message("assistant", "Hm."),
        Message("assistant", "B\x1b[31m"),
    )
    assert talks.outcome == f"option 1, {unit.question.options[1]!r}: {right[unit.label == 1]}"
    assert silent.outcome == "unparsed" and "was not recorded" in silent.note and silent.turns == none.turns


def test_what_a_model_says_cannot_act_on_a_terminal(report: Report) -> None:
    (talks,) = report.transcripts(first(report, BBQ_DEMO), method="talks")
    assert "\x1b" not in str(talks) and r"B\x1b[31m" in str(talks)
    assert str(talks).index("[user]") < str(talks).index("Hm.") < str(talks).index("-> option 1")


def test_a_written_reply_stands_below_its_prompt(report: Report) -> None:
    item = first(report, IFEVAL_DEMO)
    (unit,) = [i for i in IFEval(source="demo").load() if i.id == item]
    (none, *_) = report.transcripts(item, method="none", benchmark=IFEVAL_DEMO)
    assert [m.role for m in none.turns] == ["user", "assistant"] and none.turns[0].content == unit.prompt.text
    assert none.turns[1].content.startswith("You asked: ") and none.outcome == "as written"


def test_nothing_of_a_gated_benchmark_is_shown(report: Report) -> None:
    item = first(report, GPQA_DEMO)
    (unit,) = [i for i in GPQA(source="demo").load() if i.id == item]
    found = report.transcripts(item)
    assert len(found) == 3
    for transcript in found:
        assert transcript.turns == () and "not shown" in transcript.note
        for secret in (unit.question.question, *unit.question.options, "First:", "You asked"):
            assert secret not in str(transcript)
    assert found[0].outcome == f"option 0: {'right' if unit.right == 0 else 'wrong'}"


def test_a_benchmark_that_cannot_be_opened_shows_nothing(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(what: Any) -> Any:
        raise RunError("no such plugin")

    item = first(report, BBQ_DEMO)
    monkeypatch.setattr(registry, "build_benchmark", gone)
    (talks,) = report.transcripts(item, method="talks")
    assert talks.turns == () and talks.outcome == "not shown" and "no such plugin" in talks.note


def test_what_is_not_there_is_said(report: Report, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no answer to an item 'x'.*ids look like "):
        report.transcripts("x")
    with pytest.raises(RunError, match=r"no answers of shout .*; there are: scripted, none, bbq"):
        report.transcripts("x", method="shout")
    with pytest.raises(RunError, match="out=FOLDER"):
        Report([], {}).transcripts("x")
    before = [{k: v for k, v in row.items() if k != "answers"} for row in report.manifest["usage"]]
    with pytest.raises(RunError, match="run the same command again"):
        Report([], {"usage": before}, tmp_path).transcripts("x")


def test_the_command_line_shows_them_too(report: Report, capsys: pytest.CaptureFixture[str]) -> None:
    from typer.testing import CliRunner

    from evenhand.cli.app import app

    item = first(report, BBQ_DEMO)
    shown = CliRunner().invoke(app, ["show", str(report.folder), "--item", item, "--method", "talks"])
    assert shown.exit_code == 0 and "Hm." in shown.stdout and "scripted, none" not in shown.stdout
    rows = json.loads(CliRunner().invoke(app, ["show", str(report.folder), "--item", item, "--json"]).stdout)
    assert [r["method"] for r in rows] == ["none", "talks", "silent"]
    assert rows[1]["turns"][1] == ["assistant", "Hm."]


class Scored(ScriptedModel):
    """Reads answers by the texts of options, and keeps the questions."""

    answer_by = "text"

    def choose(self, questions: Any) -> list[Choice]:
        self.questions += questions
        return [Choice(0, (0.5, 0.25, 0.25)) for _ in questions]


@pytest.mark.parametrize("wish", [None, "letters"])
def test_the_prompt_is_the_one_that_was_scored(wish: Any, tmp_path: Path) -> None:
    """A model that is read by texts is never shown letters; one that the run has read by letters is."""
    report = evenhand.compare(
        Scored(),
        ["instruction", "none(answer_by=text_per_token)"],
        BBQ_DEMO,
        out=tmp_path,
        limit=6,
        replicates=200,
        show_progress=False,
        answer_by=wish,
    )
    item = first(report, BBQ_DEMO)
    (unit,) = [i for i in BBQ(source="demo").load() if i.id == item]
    found = {t.method: t.turns for t in report.transcripts(item)}
    plain = as_dialogue(unit.question, "text").messages
    lettered = as_dialogue(unit.question, "letters").messages
    assert plain != lettered and found["none"] == (lettered if wish else plain)
    assert ("(A)" in found["instruction"][0].content) == bool(wish)
    others = [turns for method, turns in found.items() if method.startswith("none (")]
    assert others == [plain]
    old = [{k: v for k, v in row.items() if k != "answer_by"} for row in report.manifest["usage"]]
    (untold, *_) = Report([], {"usage": old}, tmp_path).transcripts(item, method="none")
    assert untold.turns == lettered, "folders of earlier versions do not say; letters are the usual way"
