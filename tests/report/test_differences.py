"""Differences of any two rows: the comparison's own numbers where it has them, and a reason where there are none."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import fields
from pathlib import Path
from unittest import mock

import pytest
from tests.report.scripted_runs import BBQ_DEMO, Clean, Half, Harsh, Shy, items, scripted_run, stereotyped
from typer.testing import CliRunner

import evenhand
from evenhand.cli.app import app
from evenhand.core.records import Record
from evenhand.errors import RunError, SettingsError
from evenhand.interfaces import Question
from evenhand.report import Report
from evenhand.report.differences import between
from evenhand.report.rivals import rivals_in
from evenhand.statistics.criteria import fewest_clusters
from evenhand.testing import ScriptedModel


def always_right(question: Question) -> int | None:
    return items()[question.id].label


class Named(ScriptedModel):
    """Another model: its name and fingerprint differ."""

    def __init__(self, name: str, **more: object) -> None:
        super().__init__(**more)  # type: ignore[arg-type]
        self.name = name

    @property
    def fingerprint(self) -> str:
        return f"{self.name}"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Report]:
    """Runs that share rows, or have other models, or another limit."""
    folder, found = tmp_path_factory.mktemp("runs"), {}
    for name, methods, model, limit in (
        ("first", [Clean, Shy, Harsh], ScriptedModel(decide=stereotyped), None),
        ("more", [Half], ScriptedModel(decide=stereotyped), None),
        ("short", [Clean], ScriptedModel(decide=stereotyped), 300),
        ("other", [Clean], Named("fair model", decide=always_right), None),
    ):
        scripted_run(folder / name, methods, model, limit=limit)
        found[name] = Report.load(folder / name)
    return found


def test_it_is_what_the_comparison_says_of_a_method_and_its_baseline(runs: dict[str, Report]) -> None:
    known = {(r.metric, r.group): r for r in runs["first"].records if r.method == "harsh"}
    found = runs["first"].difference("none", "harsh").records
    assert len(found) > 100 and {r.baseline for r in found} == {"none"}
    for record in found:
        for field in fields(Record):
            if field.name not in ("note", "status", "p_holm", "detectable"):
                ours, theirs = getattr(record, field.name), getattr(known[record.metric, record.group], field.name)
                same = ours == theirs or (isinstance(ours, float) and math.isnan(ours) and math.isnan(theirs))
                assert same, (record.metric, record.group, field.name)


def test_two_methods_are_compared_from_the_first_to_the_second(runs: dict[str, Report]) -> None:
    (pair,) = runs["first"].difference("clean", "shy").pairs
    found = {(r.metric, r.group): r for r in pair.records}
    accuracy = found["accuracy_disambiguated", "overall"]
    assert (accuracy.value, accuracy.difference, accuracy.p_holm < 0.001) == (0.0, -1.0, True)
    assert found["bias_ambiguous", "overall"].difference == 0.0
    assert found["became_wrong_disambiguated", "overall"].value == 1.0
    assert pair.items == len(items()) and pair.notes == () and pair.title == "clean → shy (scripted)"
    frame = runs["first"].difference("shy", "clean").frame().set_index("metric")
    assert frame.loc["accuracy_disambiguated", "difference"] == 1.0 and frame.loc["accuracy_disambiguated", "better"]


def test_methods_are_compared_with_one_another_when_a_run_is_scored(runs: dict[str, Report]) -> None:
    rivals = rivals_in(runs["first"].manifest)
    metrics = {"bias_ambiguous", "bias_disambiguated", "accuracy_ambiguous", "accuracy_disambiguated"}
    pairs = {("shy", "clean"), ("harsh", "clean"), ("harsh", "shy")}
    assert {(r.method, r.against) for r in rivals} == pairs and {r.metric for r in rivals} == metrics
    for rival in rivals:
        found = runs["first"].difference(rival.against, rival.method).records
        (same,) = [r for r in found if (r.metric, r.group) == (rival.metric, "overall")]
        for field in ("difference", "difference_low", "difference_high", "gain", "gain_low", "gain_high", "p"):
            assert getattr(rival, field) == pytest.approx(getattr(same, field), nan_ok=True), (rival.metric, field)
        assert rival.clusters == fewest_clusters(same)


def test_runs_with_another_limit_are_paired_on_common_items(runs: dict[str, Report]) -> None:
    found = between(runs["first"].cells(), runs["short"].cells(), runs["first"].criteria)
    assert [p.after.method for p in found.pairs] == ["none", "clean"]
    for pair in found.pairs:
        assert pair.items == 300 and (pair.only_before, pair.only_after) == (len(items()) - 300, 0)
        assert {r.difference for r in pair.records if r.main and r.group == "overall"} == {0.0}
        assert "only one side was asked" in pair.notes[0] and "the answers are the same" in pair.notes[-1]
    assert {(r.what, r.reason) for r in found.refused} == {
        ("scripted, shy", "the second has no such row"),
        ("scripted, harsh", "the second has no such row"),
    }


def test_rows_of_the_same_name_are_called_by_their_runs(runs: dict[str, Report], tmp_path: Path) -> None:
    cells, criteria = runs["first"].cells(), runs["first"].criteria
    titles = [p.title for p in between(cells, runs["short"].cells(), criteria).pairs]
    assert titles == ["first → short (scripted, none)", "first → short (scripted, clean)"]
    (same,) = between(cells, cells, criteria, methods=("clean", "clean")).pairs
    assert same.title == "scripted, clean" and same.notes == ("the answers are the same",)
    copied = shutil.copytree(str(runs["short"].folder), tmp_path / "first")
    (pair,) = between(cells, Report.load(copied).cells(), criteria, methods=("clean", "clean")).pairs
    assert pair.title == f"{runs['first'].folder} → {copied} (scripted, clean)"


def test_one_model_each_is_compared_though_their_names_differ(runs: dict[str, Report]) -> None:
    found = between(runs["first"].cells(), runs["other"].cells(), runs["first"].criteria)
    none, clean = found.pairs
    assert none.title == "scripted → fair model (none)" and clean.after.model == "fair model"
    record = next(r for r in none.records if r.metric == "bias_ambiguous" and r.group == "overall")
    assert record.difference == -1.0 and found.criteria.significant(record)


def test_joined_runs_share_rows_and_compare_methods_models_and_runs(runs: dict[str, Report]) -> None:
    joined = Report.join(runs["first"], runs["more"], runs["other"])
    rows = [(r.model, r.method) for r in joined.leaderboard().rows]
    assert sorted(rows) == sorted(
        [
            *(("scripted", m) for m in ("none", "clean", "half", "shy", "harsh")),
            ("fair model", "none"),
            ("fair model", "clean"),
        ]
    )
    assert joined.difference("half", "clean").pairs[0].items == len(items()), "rows of different runs"
    assert {p.title for p in joined.difference("scripted", "fair model").pairs} == {
        "first, scripted → other, fair model (none)",
        "first, scripted → other, fair model (clean)",
    }
    (same,) = joined.difference("first", "more").pairs
    assert (same.before.method, same.notes) == ("none", ("the answers are the same",))
    assert len(joined.answers(method="none", model="scripted")) == len(items()), "a shared row once"
    assert len(joined.changes("half")) == len(runs["more"].changes("half"))
    assert joined.transcripts("Age/0", model="fair model", method="none")[0].model == "fair model"
    alone = {(r.metric, r.group): r.p_holm for r in runs["first"].records if r.method == "harsh"}
    together = {(r.metric, r.group): r.p_holm for r in joined.records if r.method == "harsh"}
    assert all(together[k] >= p for k, p in alone.items() if p == p), "one more method to adjust for"


def test_a_model_whose_rows_differ_is_told_apart(runs: dict[str, Report]) -> None:
    joined = Report.join(runs["first"], runs["short"], names=["full", "part"])
    assert {r.model for r in joined.records} == {"scripted", "scripted @ part"}
    assert joined.difference("full", "part").pairs[0].items == 300
    assert joined.transcripts(joined.cells()[-1].frame().loc[0, "item"], model="scripted @ part")


def test_a_joined_report_lists_the_provenance_of_each_run(runs: dict[str, Report]) -> None:
    facts = {s.title: {f.name: f.text for f in s.facts} for s in Report.join(runs["first"], runs["short"]).provenance()}
    made = facts["How it was made"]
    assert made["first: folder"] == str(runs["first"].folder) and "called from Python" in made["short: command"]
    assert facts["Settings"]["short: limit"] == "300" and "first: limit" not in facts["Settings"]
    assert facts["Settings"]["alpha"] == "0.05" and "first: alpha" not in facts["Settings"], "shared by both"
    assert facts["Versions"]["first: python"] == facts["Versions"]["short: python"]


def test_a_joined_report_says_what_an_interrupted_run_lacks(runs: dict[str, Report]) -> None:
    facts = {**runs["more"].manifest, "methods": ["none", "half", "late"], "models_left": ["another"]}
    joined = Report.join(runs["first"], Report(runs["more"].records, facts, runs["more"].folder))
    assert joined.missing() == [f"more: scripted, late: not finished on {BBQ_DEMO}", "more: another: not begun"]
    part = Report(runs["short"].records, {**runs["short"].manifest, "methods": ["none", "clean", "late"]})
    renamed = Report.join(runs["first"], part, names=["first", "part"])
    assert renamed.missing() == [f"part: scripted @ part, late: not finished on {BBQ_DEMO}"]


@pytest.mark.parametrize(
    ("names", "text"), [(["one"], "1 names for 2 reports"), (["x", "x"], "give every run a name of its own")]
)
def test_joining_needs_names_of_their_own(runs: dict[str, Report], names: list[str], text: str) -> None:
    with pytest.raises(SettingsError, match=text):
        Report.join(runs["first"], runs["more"], names=names)
    with pytest.raises(SettingsError, match="at least two"):
        Report.join(runs["first"])


def test_runs_judged_otherwise_are_not_joined(runs: dict[str, Report]) -> None:
    strict = Report(runs["more"].records, {**runs["more"].manifest, "statistics": {"alpha": 0.01}}, runs["more"].folder)
    with pytest.raises(SettingsError, match=r"more was judged with alpha=0.01, first with alpha=0.05"):
        Report.join(runs["first"], strict)


def test_items_that_one_side_never_answered_are_left_out_of_both(tmp_path: Path) -> None:
    lost = {i.id for n, i in enumerate(items().values()) if n % 50 == 0}
    kept = [i for i in items().values() if i.id not in lost]

    class Lossy(ScriptedModel):
        def choose(self, questions):  # type: ignore[no-untyped-def]
            made = super().choose(questions)
            gone = evenhand.Choice(None, status="unanswered", note="no reply")
            return [gone if items()[q.id].id in lost else a for q, a in zip(questions, made, strict=True)]

    scripted_run(tmp_path / "a", [Clean], Lossy(decide=stereotyped))
    scripted_run(tmp_path / "b", [Clean], ScriptedModel(decide=stereotyped))
    runs = [Report.load(tmp_path / n) for n in ("a", "b")]
    none, clean = between(runs[0].cells(), runs[1].cells(), runs[0].criteria).pairs
    assert (none.items, none.unanswered_before, none.unanswered_after) == (len(kept), len(lost), 0)
    assert clean.items == len(items()) and clean.unanswered_before == 0, "the method does not ask the model"
    found = {r.metric: r for r in none.records if r.group == "overall"}
    assert found["accuracy_disambiguated"].n == sum(i.disambiguated for i in kept)
    assert found["unanswered"].value == found["unanswered"].difference == 0.0
    assert "one side never answered them" in none.notes[0] and str(len(lost)) in none.notes[0]


def test_data_that_has_changed_since_is_refused(runs: dict[str, Report]) -> None:
    stale = json.loads(json.dumps(runs["more"].manifest))
    stale["benchmarks"][BBQ_DEMO]["contents"] = "0" * 64
    with pytest.raises(RunError, match=r"nothing can be compared.*is not what it was when .*more was made"):
        between(Report([], stale, runs["more"].folder).cells(), runs["first"].cells(), runs["first"].criteria)


def test_benchmarks_that_measure_something_else_are_refused(runs: dict[str, Report], tmp_path: Path) -> None:
    with mock.patch.object(Report, "save"):
        helm = "bbq(source=demo,convention=helm)"
        evenhand.compare(ScriptedModel(), [Shy()], [helm], out=tmp_path, limit=60, replicates=200, show_progress=False)
    found = Report.load(tmp_path)
    with pytest.raises(RunError, match="do not measure the same; compare with the same settings"):
        between(runs["first"].cells(), found.cells(), found.criteria)


@pytest.mark.parametrize(
    ("a", "b", "error", "text"),
    [
        ("clean", "clean", SettingsError, "given twice"),
        ("clean", "claen", RunError, r"'claen' is not a row.*Did you mean 'clean'"),
        ("clean", "scripted", SettingsError, "of different kinds"),
    ],
)
def test_names_that_cannot_be_compared(
    runs: dict[str, Report], a: str, b: str, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        runs["first"].difference(a, b)


def test_it_shows_itself_everywhere(runs: dict[str, Report]) -> None:
    found = between(runs["first"].cells(), runs["short"].cells(), runs["first"].criteria)
    for view in (str(found), found._repr_html_()):
        assert "accuracy disambiguated" in view and "not compared: scripted, shy" in view and "300 items" in view
    assert max(map(len, str(found).splitlines())) <= 80


def test_the_command_line(runs: dict[str, Report]) -> None:
    folders = [str(runs[name].folder) for name in ("first", "more")]
    done = CliRunner().invoke(app, ["diff", *folders, "--methods", "harsh,half"])
    assert done.exit_code == 0, done.output
    assert "harsh → half" in done.output and "+1.000" not in done.output and "bias ambiguous" in done.output
    done = CliRunner().invoke(app, ["diff", *folders, "--json"])
    assert {r["method"] for r in json.loads(done.output)} == {"none"}
    done = CliRunner().invoke(app, ["diff", *folders, "--format", "csv", "--methods", "shy,half"])
    header, *lines = done.output.splitlines()
    assert header.startswith("before,after,model") and len(lines) > 100
    assert isinstance(CliRunner().invoke(app, ["diff", *folders, "--methods", "a,b,c"]).exception, SettingsError)
