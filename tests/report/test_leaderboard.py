"""The leaderboard ranks by what is shown, marks only what is shown, and fits a terminal of 80 characters."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any, ClassVar

import pytest
from rich.console import Console
from tests.report.scripted_runs import Clean, Scripted, items, scripted_run

from evenhand import settings
from evenhand.core.records import WORST_GROUP, Record
from evenhand.errors import SettingsError
from evenhand.evaluation.bbq import BBQItem
from evenhand.report import Report
from evenhand.report.text import DEMO_LABEL

EVIL = "<script>alert(1)</script>[red]`x`"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = tmp_path_factory.mktemp("run")
    scripted_run(folder)
    return Report.load(folder)


def printed(what: Any, width: int) -> str:
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(what)
    return out.getvalue()


def test_first_what_lowers_bias_for_nothing_then_at_a_price_then_the_rest(report: Report) -> None:
    rows = report.leaderboard().rows
    assert [(r.method, r.rank) for r in rows] == [("none", None), ("clean", 1), ("half", 2), ("shy", 3), ("harsh", 4)]
    assert [r.baseline for r in rows] == ["", "none", "none", "none", "none"]


def test_a_method_that_always_abstains_dominates_nothing_that_answers(report: Report) -> None:
    places = {r.method: (r.pareto, r.dominated_by) for r in report.leaderboard().rows}
    assert places["none"] == ("front", ()), "it has the fewest calls"
    assert places["clean"] == ("front", ())
    assert places["half"] == ("dominated", ("clean",)), "and not by shy, whose bias is as low"
    assert places["shy"] == ("dominated", ("clean",))
    assert places["harsh"] == ("dominated", ("none",))


def test_cells_say_what_is_better_and_what_is_shown(report: Report) -> None:
    board = report.leaderboard()
    keys = ["bias", "worst_group", "disambiguated_accuracy", "abstention", "right_to_wrong", "calls", "seconds"]
    assert [c.key for c in board.columns] == keys, "accuracy where the context answers stands in for the capability"
    rows = {r.method: r.cells for r in board.rows}
    assert rows["none"]["bias"].value == 1.0 and rows["none"]["bias"].mark == ""
    assert rows["clean"]["bias"].value == 0.0 and rows["clean"]["bias"].mark == "▲*"
    assert rows["clean"]["bias"].difference == -1.0 and rows["clean"]["disambiguated_accuracy"].mark == ""
    assert rows["shy"]["disambiguated_accuracy"].value == 0.0 and rows["shy"]["disambiguated_accuracy"].mark == "▼*"
    assert rows["shy"]["abstention"].value == 1.0 and rows["shy"]["abstention"].mark == "▼*"
    assert rows["shy"]["right_to_wrong"].value == 1.0
    assert rows["harsh"]["bias"].mark == "" and rows["harsh"]["bias"].significant is False
    assert rows["clean"]["calls"].value == 2.0 and rows["clean"]["calls"].difference == 1.0
    assert rows["clean"]["calls"].better is False and rows["clean"]["calls"].significant is False


def test_the_group_that_got_worse_is_named(report: Report) -> None:
    rows = {r.method: r.got_worse for r in report.leaderboard().rows}
    assert rows["clean"] == ()
    (first, *_) = rows["harsh"]
    assert (first.group, first.metric, first.before, first.after) == ("Age", "accuracy_disambiguated", 1.0, 0.0)
    assert first.significant


def test_one_line_per_method_in_80_characters_and_everything_in_120(report: Report) -> None:
    narrow, wide = (printed(report, width).splitlines() for width in (80, 120))
    assert max(map(len, narrow)) <= 80 and max(map(len, wide)) <= 120
    for lines in (narrow, wide):
        named = [line for line in lines if line[2:].split(" ")[0] in ("none", "clean", "half", "shy", "harsh")]
        assert [line[0] for line in named[:5]] == list("●●×××")
    assert not any("calls" in line and "right" in line for line in narrow[:6])
    (clean,) = [line for line in narrow if line.startswith("● clean")]
    assert "0.000" in clean and "▲*" in clean and "1.000" in clean
    (harsh,) = [line for line in wide if line.startswith("× harsh")]
    assert "1.00 Age" in harsh and len(harsh) > 80, "the worst group and the cost are there, too"


def test_what_needs_attention_follows_and_the_rest_is_left_to_full(report: Report) -> None:
    short, full = printed(report, 100), printed(report.rendered(full=True), 100)
    assert "--full" in short and "Answer changes" not in short and "less bias" not in short
    assert "Answer changes" in full and "less bias" in full and "● clean" in full
    assert str(report).splitlines() == [line.rstrip() for line in printed(report, 80).splitlines()]


def test_the_frame_is_tidy(report: Report) -> None:
    frame = report.leaderboard().frame().set_index("method")
    assert frame.loc["clean", "rank"] == 1 and frame.loc["clean", "bias_significant"]
    assert frame.loc["half", "pareto"] == "dominated" and frame.loc["half", "dominated_by"] == "clean"
    assert frame.loc["shy", "disambiguated_accuracy_difference"] == -1.0
    assert not [name for name in frame.columns if name in ("calls_low", "seconds_high")]


def test_another_metric_can_be_ranked_by(report: Report) -> None:
    board = report.leaderboard(bias="stereotyped_ambiguous")
    assert board.columns[0].metric == "stereotyped_ambiguous" and board.rows[1].method == "clean"
    assert report.leaderboard("bbq(source=demo):bias_disambiguated").columns[0].metric == "bias_disambiguated"
    with pytest.raises(SettingsError, match=r"bias='bias_ambigous'.*Did you mean 'bias_ambiguous'"):
        report.leaderboard("bias_ambigous")
    assert "bbq(source=demo):bias_disambiguated" in board.choices["bias"]


def row(method: str, value: float, **more: Any) -> Record:
    filled: dict[str, Any] = {"model": "m", "benchmark": "b", "metric": "bias", "clusters": 30, "n": 100, "main": True}
    return Record(method=method, value=value, direction="zero", kind="bias", **{**filled, **more})


def test_names_cannot_act_in_any_view() -> None:
    records = [row("none", 0.5), row(EVIL, 0.4, baseline="none", difference=-0.1, gain=0.1, p_holm=0.5)]
    board = Report(records, {"demo": True}).leaderboard()
    assert "<script>" not in board._repr_html_() and "&lt;script&gt;" in board._repr_html_()
    assert DEMO_LABEL in board._repr_html_() and DEMO_LABEL in str(board)
    assert EVIL in printed(board, 200)


def test_an_arrow_without_a_test_is_hollow_and_a_long_name_keeps_both_ends() -> None:
    name = f"self_debias({'x' * 80}=last)"
    records = [row("none", 0.5), row(name, 0.4, baseline="none", difference=-0.1, gain=0.1, p_holm=0.5)]
    board = Report(records, {}).leaderboard()
    assert board.rows[1].cells["bias"].mark == "△"
    (line,) = [x for x in str(board).splitlines() if "self_debias" in x]
    assert "…" in line and "=last)" in line and len(line) <= 80


def test_rows_without_numbers_say_so_at_the_end() -> None:
    records = [row("none", 0.5), row("good", 0.1, baseline="none", gain=0.4, difference=-0.4)]
    records.append(Record(model="m", method="lost", benchmark="b", status="not applicable", note="needs weights"))
    board = Report(records, {}).leaderboard()
    assert [(r.method, r.rank, r.status) for r in board.rows][-1] == ("lost", None, "not applicable")
    assert "not applicable" in str(board) and "needs weights" in str(Report(records, {}))


def test_a_time_that_is_not_known_says_why() -> None:
    usage = {"model": "m", "method": "none", "benchmark": "b", "items": 10, "calls": 10, "prompt_tokens": 1}
    short = {**usage, "new_tokens": 0, "seconds": 0.5, "seconds_saved": 0.0}
    (only,) = Report([row("none", 0.5)], {"usage": [short]}).leaderboard().rows
    assert math.isnan(only.cells["seconds"].value) and only.cells["seconds"].note == "too short to time"
    assert only.cells["seconds"].text == "–" and only.cells["calls"].text == "1.000"


def test_a_report_without_numbers_has_an_empty_leaderboard() -> None:
    assert Report([], {}).leaderboard().rows == () and str(Report([], {})) == ""


def test_what_an_interrupted_run_lacks_is_said() -> None:
    manifest = {
        "models": {"m": {}},
        "models_left": ["n"],
        "methods": ["none", "good", "late"],
        "benchmarks": {"b": {}, "c": {}},
    }
    records = [row("none (generation, T=1)", 0.5), row("good", 0.4), row("none", 0.5, benchmark="c")]
    report = Report(records, manifest)
    assert report.missing() == ["m, good: not finished on c", "m, late: not finished on b, c", "n: not begun"]
    for view in (str(report), report.leaderboard()._repr_html_()):
        assert "n: not begun" in view and "late: not finished on b, c" in view


def test_the_heat_map_has_every_axis_with_its_n_and_interval(report: Report) -> None:
    heat = report.heat("accuracy_disambiguated")
    assert heat.metric == "accuracy_disambiguated" and heat.groups[0] == "overall" and "Age" in heat.groups
    age, other = heat.cells["scripted", "harsh", "Age"], heat.cells["scripted", "harsh", "Religion"]
    assert (age.value, age.better, age.significant) == (0.0, False, True) and (other.value, other.better) == (1.0, None)
    asked = [item for item in items().values() if item.disambiguated and item.category == "Age"]
    assert age.n == len(asked) and age.low == 0.0 < age.high < 0.5
    assert len(heat.frame()) == len(heat.cells) == 5 * len(heat.groups)
    assert f"n={len(asked)}" in heat._repr_html_()


@settings
class Stopped(Scripted):
    """Ctrl-C is pressed while it is asked."""

    name: ClassVar[str] = "stopped"

    def decide(self, item: BBQItem) -> int | None:
        raise KeyboardInterrupt


def test_an_interrupted_comparison_says_what_is_not_finished(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        scripted_run(tmp_path, [Clean, Stopped], limit=40)
    assert Report.load(tmp_path).missing() == ["scripted, stopped: not finished on bbq(source=demo)"]


def test_a_group_may_be_called_whatever_it_likes() -> None:
    """Its name is part of a note, which has a semicolon of its own."""
    group = "Age; young"
    worst = row("good", 0.4, group=WORST_GROUP, note=f"{group}; the worst of 2 groups, by its distance from 0")
    judged = row("good", 0.4, group=group, difference=-0.1, gain=0.1, baseline="none")
    (good,) = [r for r in Report([row("good", 0.4), worst, judged], {}).leaderboard().rows if r.method == "good"]
    assert (good.cells["worst_group"].note, good.cells["worst_group"].better) == (group, True)


def test_names_and_words_of_models_do_not_act_on_a_terminal() -> None:
    escape = "\x1b[2J"
    records = [row(f"{name}{escape}", 0.4, group=group, note=escape) for name in "ab" for group in ("overall", escape)]
    lost = row(f"lost{escape}", 0.1, status="failed", note=f"it said {escape}")
    found = Report([*records, lost], {})
    for view in (found, found.rendered(full=True), found.rendered("all")):
        text = printed(view, 120)
        assert escape not in text and r"\x1b[2J" in text
