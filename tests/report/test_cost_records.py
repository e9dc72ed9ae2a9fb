"""Costs are records like other numbers, and nothing takes them for what a method is judged by."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from evenhand import Choice
from evenhand.core.records import NAN, Record, Status
from evenhand.experiment.comparison import compare
from evenhand.integrations.lm_eval import write_results
from evenhand.interfaces import Usage
from evenhand.report import Report
from evenhand.report.blocks import cost_block
from evenhand.report.cost import (
    COST_NAMES,
    COUNTED,
    METRICS,
    NOTHING_TO_DIVIDE,
    RATIOS,
    SHORT,
    UNCOUNTED,
    UNTIMED,
    Cost,
    cost_records,
    costs,
    costs_in,
    seconds_per_item,
    with_costs,
)
from evenhand.statistics.criteria import FAMILIES, Criteria
from evenhand.testing import ScriptedModel

DEMO = "bbq(source=demo)"
ROW = ("model", "method", "benchmark")
FIELDS = (*COUNTED, "seconds")


class Costly(ScriptedModel):
    """Counts its tokens; its answer depends on the length of all that it is asked, so that methods change it."""

    def choose(self, questions: Any) -> list[Choice]:
        return [Choice(len(repr(q)) % 3, usage=Usage(1, len(q.context), 2)) for q in questions]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Report]:
    """A run whose every cell took two seconds more than the clock says; one method fails."""
    with pytest.MonkeyPatch.context() as patch:
        from evenhand.experiment.comparison import _Watch

        read = _Watch.read
        patch.setattr(_Watch, "read", lambda self: {**read(self), "seconds_saved": 2.0})
        yield compare(
            Costly(),
            ["self_debias", "instruction", "permutation"],
            DEMO,
            limit=240,
            show_progress=False,
            replicates=200,
            out=tmp_path_factory.mktemp("run"),
        )


def without(report: Report) -> Report:
    """The same report with none of these records."""
    return Report([r for r in report.records if r.metric not in COST_NAMES], report.manifest, report.folder)


def test_records_say_what_the_table_of_costs_says(report: Report) -> None:
    assert report.folder is not None
    found = {(*(getattr(r, n) for n in ROW), r.metric): r for r in report.records if r.kind == "cost"}
    shown = report.costs()
    assert repr(shown) == repr(costs(report.manifest)), "what the records say is what the manifest says"
    assert [c.method for c in shown] == ["none", "self_debias", "instruction"]
    assert len(found) == 3 * len(METRICS) + 2 * len(RATIOS)
    for cost in shown:
        for field in FIELDS:
            r = found[cost.model, cost.method, cost.benchmark, f"{field}_per_item"]
            assert r.value == getattr(cost, field) > 0 and r.n == cost.items == 240
            more = getattr(cost, f"extra_{field}")
            assert repr(r.difference) == repr(more) and repr(r.gain) == repr(-more)
            assert (r.direction, r.main, r.group, r.clusters) == ("lower", False, "overall", 0)
            assert math.isnan(r.low) and math.isnan(r.high) and math.isnan(r.p) and math.isnan(r.p_holm)
            assert r.baseline == ("" if cost.method == "none" else "none")
    loaded = Report.load(report.folder)
    assert repr([r for r in loaded.records if r.kind == "cost"]) == repr(list(found.values()))
    frame = report.frame()
    mine = frame[(frame.kind == "cost") & (frame.method == "self_debias")].set_index("metric")
    assert mine.value["calls_per_item"] == 2 and mine.difference["calls_per_item"] == 1
    assert mine.value["calls_ratio"] == 2 and mine.value["new_tokens_ratio"] == 2
    none = found["scripted", "none", DEMO, "prompt_tokens_per_item"].value
    assert mine.value["prompt_tokens_ratio"] == mine.value["prompt_tokens_per_item"] / none


def test_the_table_is_that_of_the_manifest(report: Report) -> None:
    (mine,) = [b for b in report.sections(DEMO, "scripted") if b.title == "Cost"]
    assert [mine] == cost_block(report.costs()) and [row[0] for row in mine.rows] == [c.method for c in report.costs()]
    (old,) = [b for b in without(report).sections(DEMO, "scripted") if b.title == "Cost"]
    assert old == mine, "also of runs whose records have no costs"


def test_a_row_s_costs_have_its_status(report: Report) -> None:
    for r in report.records:
        assert r.status == next(o for o in report.records if o.method == r.method).status
    assert any(r.status == "failed" for r in report.records)


def test_costs_of_rows_without_effect_or_numbers() -> None:
    def record(method: str, status: Status, metric: str) -> Record:
        return Record(model="m", method=method, benchmark="b", metric=metric, status=status, note="why")

    facts = [usage(name, 40, 40, 8.0, baseline="none") for name in ("none", "x", "lost", "half")]
    numbers = [
        record("none", "ok", "accuracy"),
        record("x", "no effect", "accuracy"),
        record("lost", "failed", ""),
        record("half", "failed", ""),
        record("half", "ok", "accuracy"),
    ]
    found = with_costs(numbers, costs({"usage": facts}))
    assert found[:5] == numbers
    assert {(r.method, r.status, r.note) for r in found[5:]} == {
        ("none", "ok", ""),
        ("x", "ok", ""),
        ("half", "ok", ""),
    }
    assert repr(Report(found, {"usage": facts}).costs()) == repr(costs({"usage": facts})), "the table has them all"
    assert repr(Report(found, {}).costs()) == repr([c for c in costs({"usage": facts}) if c.method != "lost"])


def test_no_view_changes_by_them(report: Report) -> None:
    bare = without(report)
    assert report.verdicts() == bare.verdicts() and report.untold() == bare.untold()
    assert report.grids() == bare.grids() and report.counts(DEMO) == bare.counts(DEMO)
    assert report.by_group(DEMO, "scripted") == bare.by_group(DEMO, "scripted")
    assert report.sections(DEMO, "scripted") == bare.sections(DEMO, "scripted")
    assert report.markdown() == bare.markdown() and report.html() == bare.html()
    assert report.table().equals(bare.table())
    shown = []
    for one in (report, bare):
        out = io.StringIO()
        Console(file=out, width=200, color_system=None).print(one.rendered("all"))
        shown.append(out.getvalue())
    assert shown[0] == shown[1]


@pytest.mark.parametrize("family", FAMILIES)
def test_no_family_of_tests_has_them(report: Report, family: Any) -> None:
    criteria = Criteria(family=family)
    adjusted = [r for r in criteria.adjusted(report.records) if r.metric not in COST_NAMES]
    assert repr(adjusted) == repr(criteria.adjusted(without(report).records))
    assert not any(criteria.significant(r) for r in report.records if r.kind == "cost")


def test_a_plot_shows_them_only_where_they_are_named(report: Report) -> None:
    def titles(**more: Any) -> list[str]:
        return [a.get_title().split("\n")[0] for a in report.plot(**more).axes if a.get_visible()]

    assert not any("per item" in title for title in titles())
    assert titles(metrics=["calls_per_item"]) == ["calls per item"]
    empty = Report([Record(model="m", method="none", benchmark="b", metric="seconds_per_item", note=SHORT)], {})
    assert "no numbers" in empty.plot().texts[0].get_text()


def test_results_for_the_harness_have_none(report: Report, tmp_path: Path) -> None:
    written = [write_results(r, tmp_path / str(n)) for n, r in enumerate((report, without(report)))]
    for mine, theirs in zip(*written, strict=True):
        assert json.loads(mine.read_text()) == json.loads(theirs.read_text())
        assert "per_item" not in mine.read_text()


class Silent(ScriptedModel):
    """Is asked, and answers nothing."""

    def choose(self, questions: Any) -> list[Choice]:
        return [Choice(None, status="unanswered", usage=Usage(1)) for _ in questions]


def test_a_row_without_numbers_has_no_records_of_cost() -> None:
    report = compare(Silent(), "none", DEMO, limit=12, show_progress=False, replicates=200)
    assert not [r for r in report.records if r.kind == "cost"]
    assert [c.calls for c in report.costs()] == [1], "the table tells what asking took"


def usage(method: str, items: int, calls: int, seconds: float, **more: Any) -> dict[str, Any]:
    """A cell's facts in the manifest."""
    tokens = {"prompt_tokens": 10 * calls, "new_tokens": calls // 4}
    own = {"model": "m", "method": method, "benchmark": "b", "items": items, "calls": calls, "seconds": seconds}
    return {**own, **tokens, "seconds_saved": 0.0, **more}


def by_metric(facts: list[dict[str, Any]], method: str) -> dict[str, Record]:
    return {r.metric: r for r in cost_records(costs({"usage": facts})) if r.method == method}


def test_ratios_are_per_item_where_rows_have_asked_different_numbers_of_items() -> None:
    """40 items with 40 calls in 8 seconds; 20 items with 60 calls in 12 seconds."""
    facts = [usage("none", 40, 40, 8.0), usage("x", 20, 60, 12.0, baseline="none")]
    mine = by_metric(facts, "x")
    assert {name: (r.value, r.n, r.baseline) for name, r in mine.items()} == {
        "calls_per_item": (3, 20, "none"),
        "calls_ratio": (3, 20, "none"),
        "prompt_tokens_per_item": (30, 20, "none"),
        "prompt_tokens_ratio": (3, 20, "none"),
        "new_tokens_per_item": (0.75, 20, "none"),
        "new_tokens_ratio": (3, 20, "none"),
        "seconds_per_item": (0.6, 20, "none"),
        "seconds_ratio": (pytest.approx(3), 20, "none"),
    }
    assert mine["calls_per_item"].difference == 2 and mine["calls_per_item"].gain == -2
    assert mine["seconds_per_item"].difference == pytest.approx(0.4)
    assert {r.direction for r in mine.values()} == {"lower"}
    assert not any(name.endswith("_ratio") for name in by_metric(facts, "none"))


def test_repetitions_are_one_row_and_count_together() -> None:
    facts = [usage("none", 40, 40, 8.0), usage("x", 40, 40, 4.0, baseline="none"), usage("x", 40, 120, 12.0)]
    mine = by_metric(facts, "x")
    assert (mine["calls_per_item"].value, mine["calls_ratio"].value, mine["seconds_ratio"].value) == (2, 2, 1)


@pytest.mark.parametrize(
    ("base", "own", "metric", "note"),
    [
        ({"calls": 0}, {}, "calls_ratio", UNCOUNTED),
        ({}, {"calls": 0}, "calls_ratio", UNCOUNTED),
        ({"new_tokens": 0}, {}, "new_tokens_ratio", NOTHING_TO_DIVIDE),
        ({"seconds": 0.5}, {}, "seconds_ratio", SHORT),
        ({"seconds_saved": None}, {}, "seconds_ratio", UNTIMED),
        ({"seconds": 0.5}, {"seconds_saved": None}, "seconds_ratio", UNTIMED),
    ],
)
def test_a_ratio_that_there_is_not_says_why(base: dict[str, Any], own: dict[str, Any], metric: str, note: str) -> None:
    facts = [usage("none", 40, 40, 8.0) | base, usage("x", 40, 80, 8.0, baseline="none") | own]
    mine = by_metric(facts, "x")
    assert math.isnan(mine[metric].value) and mine[metric].note == note
    others = {r.note for name, r in mine.items() if name.split("_")[0] != metric.split("_")[0]}
    assert "" in others and repr(costs_in(mine.values())) == repr(costs({"usage": facts})[1:])


def test_without_a_baseline_there_is_neither_a_difference_nor_a_ratio() -> None:
    mine = by_metric([usage("x", 40, 80, 8.0, baseline="none")], "x")
    assert list(mine) == [m.name for m in METRICS] and mine["calls_per_item"].value == 2
    assert {r.baseline for r in mine.values()} == {""} and all(math.isnan(r.difference) for r in mine.values())


def test_answers_from_the_folder_and_from_the_cache_keep_their_cost(tmp_path: Path) -> None:
    def run(out: str) -> Report:
        facts: dict[str, Any] = {"show_progress": False, "replicates": 200, "cache": tmp_path / "cache.sqlite"}
        return compare("demo", "self_debias", DEMO, limit=12, out=tmp_path / out, **facts)

    def counted(report: Report) -> list[tuple[str, str, float]]:
        known = [r for r in report.records if r.kind == "cost" and "seconds" not in r.metric]
        assert len(known) == 3 + 6
        return [(r.method, r.metric, r.value) for r in known if not math.isnan(r.value)]

    first, again, elsewhere = run("one"), run("one"), run("two")
    assert [u["asked_anew"] for u in first.manifest["usage"]] != [0, 0]
    assert [u["asked_anew"] for u in again.manifest["usage"]] == [0, 0]
    assert sum(u["from_cache"] for u in elsewhere.manifest["usage"]) > 0
    assert counted(again) == counted(first) == counted(elsewhere)
    assert ("self_debias", "calls_ratio", 2.0) in counted(first)


def test_what_is_not_known_is_not_a_number_and_has_a_reason() -> None:
    cost = Cost("m", "x", "b", 40, NAN, NAN, NAN, NAN, note=SHORT)
    assert [(r.metric, r.note) for r in cost_records([cost])] == [
        ("calls_per_item", UNCOUNTED),
        ("prompt_tokens_per_item", UNCOUNTED),
        ("new_tokens_per_item", UNCOUNTED),
        ("seconds_per_item", SHORT),
    ]
    assert all(math.isnan(r.value) and math.isnan(r.difference) for r in cost_records([cost]))
    known = cost_records([Cost("m", "x", "b", 40, 2, 20, 0, 0.5, 1, 10, 0, 0.25, baseline="none")])
    assert [(r.value, r.difference, r.gain, r.note) for r in known] == [
        (2, 1, -1, ""),
        (20, 10, -10, ""),
        (0, 0, 0, ""),
        (0.5, 0.25, -0.25, ""),
    ]


def test_seconds_of_one_cell() -> None:
    facts = usage("x", 4, 4, 0.5, seconds_saved=1.5)
    assert seconds_per_item(facts) == 0.5 and seconds_per_item({**facts, "seconds_saved": 0.25}) is None
