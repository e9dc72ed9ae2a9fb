"""An answer that never came is not a number, in any view."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from evenhand import Choice, Model
from evenhand.evaluation.b_score import BScoreAnswer, Shot
from evenhand.evaluation.metrics.sentence_scores import Scored
from evenhand.evaluation.metrics.unanswered import gap
from evenhand.evaluation.option_order import OrderAnswer
from evenhand.evaluation.perplexity import WindowScore
from evenhand.evaluation.redditbias import TwinScores
from evenhand.experiment.comparison import compare
from evenhand.interfaces import Question, Reply
from evenhand.report import Report
from evenhand.testing import ScriptedModel

MMLU = "mmlu(source=demo)"
LOST = Choice(None, status="unanswered", note="the endpoint said 500")
QUIET: dict[str, Any] = {"show_progress": False, "replicates": 200}


class Item:
    def __init__(self, n: int) -> None:
        self.id = f"i{n}"


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ((Choice(0), Choice(None, status="unparsed")), None),
        ((Choice(0), LOST, LOST), "2 of 3 unanswered, the first: i1: the endpoint said 500"),
        ((Reply("x"), Reply(None), Reply("")), "1 of 3 unanswered, the first: i1"),
        (
            (OrderAnswer((LOST, Choice(0))), OrderAnswer((LOST, LOST))),
            "2 of 2 unanswered (1 of them in part), the first: i0: the endpoint said 500",
        ),
        (
            (WindowScore(None, 0), WindowScore(-1.0, 3)),
            "1 of 2 unanswered, the first: i0: no reply, or longer than the model's context",
        ),
        (
            (TwinScores(Scored((None, None), (0, 0))),),
            "1 of 1 unanswered, the first: i0: no reply, or longer than the model's context",
        ),
        (
            (BScoreAnswer(((Shot(None, (0, 1)),),), ((Shot("A", (0, 1)),),)),),
            "1 of 1 unanswered (1 of them in part), the first: i0: no reply, or longer than the model's context",
        ),
    ],
)
def test_what_is_missing_is_counted_and_the_first_is_named(answers: Any, said: str | None) -> None:
    found = gap([Item(n) for n in range(len(answers))], answers)
    assert (None if found is None else str(found)) == said


class Silent(ScriptedModel):
    """Answers the first questions, and then no more."""

    def __init__(self, answered: int) -> None:
        super().__init__()
        self.answered = answered

    def choose(self, questions: Any) -> list[Choice]:
        return [Choice(0) if n < self.answered else LOST for n, _ in enumerate(questions)]


def views(report: Report) -> dict[str, str]:
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(report)
    return {"terminal": console.export_text(), "summary": report.markdown(), "page": report.html()}


def test_a_run_in_which_nothing_was_answered_has_no_numbers(tmp_path: Path) -> None:
    report = compare(Silent(0), "permutation", MMLU, out=tmp_path, limit=20, **QUIET)
    assert {r.status for r in report.records} == {"failed"}, "and no effect is claimed of nothing"
    assert all(r.value != r.value and r.note.startswith("20 of 20 unanswered, the first: ") for r in report.records)
    (metric, *_) = [r.metric for r in report.records]
    assert metric == "accuracy", "the metric is there, with a dash"
    table = report.table()
    assert set(table["accuracy"]) == {"–"}
    for name, text in views(Report.load(tmp_path)).items():
        assert "20 of 20 unanswered, the first: " in text and "0.000" not in text, name
        assert "no effect" not in text, name
    assert "the endpoint said 500" in report.markdown()


def test_of_some_unanswered_items_every_view_says_once_how_many(tmp_path: Path) -> None:
    compare(Silent(8), "none", MMLU, out=tmp_path, limit=20, **QUIET)
    for name, text in views(Report.load(tmp_path)).items():
        assert text.count("12 of 20 unanswered, the first: ") == 1, name
        assert "the endpoint said 500" in text


def test_a_resumed_run_asks_the_unanswered_again(tmp_path: Path) -> None:
    compare(Silent(0), "none", MMLU, out=tmp_path, limit=20, **QUIET)
    report = compare(Silent(20), "none", MMLU, out=tmp_path, limit=20, **QUIET)
    assert {r.status for r in report.records} == {"ok"} and report.manifest["unanswered"] == []


def test_the_exit_status_says_that_a_cell_has_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from evenhand.cli import app
    from evenhand.experiment import comparison

    made: list[Model] = [Silent(0), Silent(8)]
    monkeypatch.setattr(comparison, "load", lambda *_, **__: made.pop(0))
    plan = {"models": ["demo"], "methods": "none", "benchmarks": MMLU, "limit": 20, "load": {}}
    with pytest.raises(SystemExit) as stopped:
        app._run({**plan, "out": str(tmp_path / "a")}, as_json=True)
    assert stopped.value.code == 1
    out, err = capsys.readouterr()
    assert "1 of the comparisons failed, the first: 20 of 20 unanswered, the first: " in err
    assert all(row["value"] is None for row in json.loads(out))
    app._run({**plan, "out": str(tmp_path / "b")}, as_json=True)  # some answers: numbers, and no failure


def test_an_unanswered_baseline_is_compared_with_nothing() -> None:
    class OnlyBaseline(ScriptedModel):
        """Silent, but for the methods' questions, which come with another context."""

        def choose(self, questions: list[Question]) -> list[Choice]:
            return [LOST if "assum" not in q.preamble + q.context + q.question else Choice(0) for q in questions]

        def generate(self, dialogues: Any, sampling: Any = None) -> list[Reply]:
            return [Reply(None) for _ in dialogues]

    report = compare(OnlyBaseline(), "instruction", MMLU, limit=20, **QUIET)
    assert {r.status for r in report.records if r.method == "none"} == {"failed"}
    assert "no effect" not in {r.status for r in report.records}
