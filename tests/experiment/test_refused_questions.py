"""A question that any row refused is left out of all rows, on request; by known answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from evenhand import Choice, Mitigated, Model, TrainData, settings
from evenhand.experiment import config
from evenhand.experiment.comparison import compare
from evenhand.interfaces import Method, Question
from evenhand.report import Report
from evenhand.testing import ScriptedModel

Decide = Callable[[Question], int | None]


def number(question: Question) -> int:
    return int(question.question.split()[1].rstrip("?"))


def plain(question: Question) -> int | None:
    """Right on 0 to 3, a refusal on 4, wrong on 5."""
    n = number(question)
    return None if n == 4 else n % 2 if n < 4 else 1 - n % 2


@settings
class Careful(Method):
    """Refuses question 0, or all, and is right on the others."""

    name: ClassVar[str] = "careful"

    everything: bool = False
    """Whether it refuses every question but 5."""

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        def choose(questions: Sequence[Question]) -> list[Choice]:
            return [self._choice(number(q)) for q in questions]

        return Mitigated(model, self, choose=choose)

    def _choice(self, n: int) -> Choice:
        if n == 0 or (self.everything and n != 4):
            return Choice(None, status="unparsed")
        return Choice(n % 2)


@pytest.fixture
def asked(tmp_path: Path) -> str:
    """Six questions; the right option of question n is n % 2."""
    file = tmp_path / "questions.jsonl"
    rows = [{"question": f"Question {n}?", "options": ["yes", "no"], "answer": "AB"[n % 2]} for n in range(6)]
    file.write_text("\n".join(map(json.dumps, rows)))
    return f"multiple_choice_file(source='{file}',options=2)"


def accuracies(report: Report, metric: str = "accuracy") -> dict[str, float]:
    return {r.method: r.value for r in report.records if (r.metric, r.group) == (metric, "overall")}


def compared(asked: str, *methods: Method, **options: Any) -> Report:
    return compare(ScriptedModel(decide=plain), list(methods), asked, show_progress=False, **options)


def test_by_default_every_row_is_of_all_questions(asked: str) -> None:
    report = compared(asked, Careful())
    assert accuracies(report) == pytest.approx({"none": 4 / 6, "careful": 5 / 6})
    assert accuracies(report, "unparsed") == pytest.approx({"none": 1 / 6, "careful": 1 / 6})
    assert report.manifest["drop_refused"] is False and "refused" not in report.manifest


def test_what_any_row_refused_is_left_out_of_all(asked: str, tmp_path: Path) -> None:
    """Left are 1, 2, 3 and 5: the plain model is wrong on the last."""
    report = compared(asked, Careful(), drop_refused=True, out=tmp_path / "run")
    assert accuracies(report) == pytest.approx({"none": 3 / 4, "careful": 1.0})
    assert accuracies(report, "unparsed") == {"none": 0, "careful": 0}
    (gain,) = [r.gain for r in report.records if (r.method, r.metric, r.group) == ("careful", "accuracy", "overall")]
    assert gain == pytest.approx(1 / 4)
    (refused,) = report.manifest["refused"]
    assert (refused["items"], refused["asked"], refused["by_row"]) == (2, 6, {"none": 1, "careful": 1})
    notes = {r.note for r in report.records if r.metric == "accuracy" and r.group == "overall"}
    assert all("without 2 of 6 questions, which some row refused" in note for note in notes)


def test_answers_are_kept_so_that_either_way_can_be_taken_later(asked: str, tmp_path: Path) -> None:
    compared(asked, Careful(), drop_refused=True, out=tmp_path / "run")
    model = ScriptedModel(decide=plain)
    report = compare(model, [Careful()], asked, show_progress=False, out=tmp_path / "run")
    assert accuracies(report) == pytest.approx({"none": 4 / 6, "careful": 5 / 6}) and not model.questions


def test_where_nothing_is_left_the_rows_fail_and_say_why(asked: str) -> None:
    report = compared(asked, Careful(everything=True), drop_refused=True)
    assert {(r.status, r.note) for r in report.records} == {
        ("failed", "drop_refused: each of the 6 questions was refused by some row")
    }


def test_nothing_changes_where_nothing_is_refused(asked: str) -> None:
    model = ScriptedModel(decide=lambda q: 0)
    report = compare(model, "none", asked, show_progress=False, drop_refused=True)
    assert accuracies(report) == {"none": 0.5} and report.manifest["refused"] == []


def test_a_run_file_may_ask_for_it(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("models: demo\ndrop_refused: true\n")
    assert config.read(file).drop_refused is True
