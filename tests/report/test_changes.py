"""Changed items: exactly those that changed, in words and with their dialogues, and nothing that must not be shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar
from unittest import mock

import pytest
from tests.report.scripted_runs import BBQ_DEMO, Shy, items, scripted_run, silent

import evenhand
from evenhand import Choice, Mitigated, Model, TrainData, settings
from evenhand.core.run_folder import RunFolder
from evenhand.errors import RunError, SettingsError
from evenhand.interfaces import Method
from evenhand.report import Report
from evenhand.report.changes import Changes
from evenhand.testing import ScriptedModel

GPQA_DEMO = "gpqa(source=demo,asked=letters)"


@settings
class Last(Method):
    """Chooses the last option, and quotes it."""

    name: ClassVar[str] = "last"

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        return Mitigated(
            model, self, choose=lambda questions: [Choice(3, reply=f"{q.options[3]} {q.question}") for q in questions]
        )


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = tmp_path_factory.mktemp("run")
    scripted_run(folder)
    return Report.load(folder)


def ids(changes: Changes) -> set[str]:
    return {change.item for change in changes}


def test_exactly_the_items_that_changed(report: Report) -> None:
    found = report.changes("harsh")
    age = {i.id for i in items().values() if i.disambiguated and i.category == "Age"}
    assert ids(found.where(direction="right → wrong")) == age
    assert ids(found.where(direction="decided -> undecided")) == {silent()}
    assert found.counts() == {"right → wrong": len(age), "decided → undecided": 1}
    assert found.asked == len(items()) and found.skipped == 0 and len(found) == len(age) + 1
    assert repr(found) == f"Changes({len(age)} right → wrong, 1 decided → undecided; of {len(items()):,} items)"


def test_right_to_wrong_comes_first_and_directions_are_told_apart(report: Report) -> None:
    found = report.changes("shy")
    assert list(found.counts()) == ["right → wrong", "wrong → right"]
    assert found[0].direction == "right → wrong" and found[-1].direction == "wrong → right"
    assert {c.part for c in found.where(direction="wrong → right")} == {"ambiguous"}
    (same,) = {c.direction for c in report.changes("half", "clean")}
    assert same == "right → wrong", "against another method"


def test_a_change_says_what_was_chosen(report: Report) -> None:
    change = next(c for c in report.changes("shy") if c.part == "ambiguous")
    item = next(i for i in items().values() if i.id == change.item)
    assert (change.before, change.after) == (item.target, item.unknown)
    assert change.before_text == item.question.options[item.target or 0] and change.question.startswith(
        item.question.context
    )
    assert (change.before_leaning, change.after_leaning) == ("stereotyped", "unknown")
    assert (change.before_grade, change.after_grade) == ("wrong", "right")
    assert change.after_reply == f"I say {item.unknown}" and change.before_reply == ""
    assert change.groups[0] == item.category and "overall" not in change.groups and change.cluster == item.cluster


def test_both_dialogues_are_read_when_they_are_wanted(report: Report) -> None:
    change = report.changes("shy")[0]
    before, after = change.transcripts()
    assert (before.method, after.method) == ("none", "shy") and before.item == after.item == change.item
    assert before.outcome.endswith(": right") and after.outcome.endswith(": wrong")
    assert after.turns[-1].content == change.after_reply


def test_filters_and_search(report: Report) -> None:
    found = report.changes("shy")
    religion = found.where(group="Religion", part="ambiguous")
    assert ids(religion) == {
        i.id
        for i in items().values()
        if i.category == "Religion" and not i.disambiguated and i.target not in (None, i.unknown)
    }
    words = found[0].question.split(".")[0].upper()
    assert found[0].item in ids(found.where(text=words)) and len(found.where(text=words)) < len(found)
    assert len(found.where(text="no such words")) == 0 and ids(found[:3]) == {c.item for c in list(found)[:3]}
    with pytest.raises(SettingsError, match=r"direction='rihgt → wrong'.*Did you mean 'right → wrong'"):
        found.where(direction="rihgt → wrong")


def test_frames_are_tidy(report: Report) -> None:
    frame = report.changes("harsh").frame()
    assert len(frame) == len(report.changes("harsh")) and frame.loc[0, "direction"] == "right → wrong"
    assert set(frame.method) == {"harsh"} and set(frame.against) == {"none"}
    answers = report.answers(method="harsh")
    assert len(answers) == len(items()) and answers.set_index("item").loc[silent(), "status"] == "unparsed"
    assert str(answers.decision.dtype) == "Int64" and set(report.answers().method) == {
        "none", "clean", "shy", "half", "harsh",
    }  # fmt: skip
    assert "<script>" not in report.changes("harsh")._repr_html_()


def test_what_is_not_there_is_refused_with_a_near_name(report: Report) -> None:
    with pytest.raises(RunError, match=r"method 'hrsh' in this run. Did you mean 'harsh'"):
        report.changes("hrsh")
    with pytest.raises(RunError, match="harsh and nobody have no item in common"):
        report.changes("harsh", "nobody")
    with pytest.raises(RunError, match=r"compare\(\.\.\., out=FOLDER\)"):
        Report([], {}).changes("harsh")


def test_a_manifest_cannot_name_another_file(report: Report, tmp_path: Path) -> None:
    (usage, *_) = report.manifest["usage"]
    stray = Report([], {"usage": [{**usage, "answers": "../../elsewhere"}]}, tmp_path)
    with pytest.raises(RunError, match=r"names '\.\./\.\./elsewhere' as a file of answers"):
        stray.answers()


def test_no_text_of_a_gated_benchmark_is_shown(tmp_path: Path) -> None:
    from evenhand.evaluation.gpqa import GPQA

    model = ScriptedModel(reply=lambda dialogue: "The correct answer is (A)")
    with mock.patch.object(Report, "save"):
        evenhand.compare(model, [Last()], [GPQA_DEMO], out=tmp_path, limit=8, replicates=200, show_progress=False)
    found = Report.load(tmp_path).changes("last")
    assert len(found) > 0 and not found.quotable
    secret = {o for item in GPQA(source="demo").load() for o in item.question.options}
    for change in found:
        shown = [change.before_text, change.after_text, change.question, change.before_reply, change.after_reply]
        assert shown == [""] * 5
        assert not any(t.turns for t in change.transcripts())
    assert not any(text and text in found.frame().to_csv() for text in secret)


def test_a_benchmark_that_cannot_be_opened_still_has_its_changes(report: Report, tmp_path: Path) -> None:
    import shutil

    assert report.folder is not None
    shutil.copytree(report.folder, tmp_path / "run")
    text = (tmp_path / "run" / "manifest.json").read_text().replace(BBQ_DEMO, "gone(source=demo)")
    RunFolder(tmp_path / "run").write_manifest(json.loads(text))
    found = Report.load(tmp_path / "run").changes(Shy.name)
    assert len(found) == len(report.changes("shy")) and found[0].before_text == "" and not found.quotable
    assert found[0].after_reply == "" and found[0].transcripts()[0].outcome == "not shown"
