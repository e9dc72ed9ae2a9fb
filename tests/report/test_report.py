"""Reports say what the records say, and nothing in a name acts as markup."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from rich.console import Console
from tests.report.one_record import record

from evenhand.core.records import Record
from evenhand.core.run_folder import RunFolder
from evenhand.core.sinks import markdown
from evenhand.core.text_output import number, visible
from evenhand.errors import RunError, SettingsError
from evenhand.report import Report
from evenhand.report.text import DEMO_LABEL, cell

EVIL = "<script>alert(1)</script>|`x`[red]"


RECORDS = [
    record("none", "bias", 0.5),
    record("none", "accuracy", 0.8, n=60),
    record("none", "abstention_disambiguated", 0.1),
    record("good", "bias", 0.1, difference=-0.4, gain=0.4, baseline_low=0.4, baseline_high=0.6, p_holm=0.01),
    record("good", "accuracy", 0.81, difference=0.01, gain=0.01, loss_high=0.01, p_holm=0.4, detectable=0.0421),
    record(
        "good", "abstention_disambiguated", 0.4, difference=0.3, difference_low=0.2, difference_high=0.4, p_holm=0.01
    ),
    record("bad", "bias", 0.9, difference=0.4, gain=-0.4, baseline_low=0.4, baseline_high=0.6, p_holm=0.01),
    record("bad", "accuracy", 0.5, difference=-0.3, gain=-0.3, loss_high=0.4, p_holm=0.01),
    record("bad", "abstention_disambiguated", 0.1, difference=0.0, difference_low=-0.1, difference_high=0.1),
    record("vague", "bias", 0.45, difference=-0.05, gain=0.05, p_holm=0.9, detectable=0.13),
    record("vague", "accuracy", 0.78, difference=-0.02, gain=-0.02, loss_high=0.08, p_holm=0.9, detectable=0.06),
    record("idle", "bias", 0.5, status="no effect", note="same weights", difference=0.0, gain=0.0),
    record("idle", "accuracy", 0.8, status="no effect", low=math.nan, high=math.nan),
    Record(model="m", method=EVIL, benchmark="bbq", status="failed", note=EVIL),
    Record(model="other", method="none", benchmark="bbq", status="not applicable", note="cannot choose"),
]


@pytest.fixture
def report() -> Report:
    return Report(RECORDS, {"demo": True, "benchmarks": {"bbq": {"rows": 5, "asked": 3, "source": EVIL}}})


def test_verdicts_in_words(report: Report) -> None:
    said = {v.method: v.text for v in report.verdicts()}
    assert said["good"] == (
        "bias 0.500 -> 0.100: less bias; accuracy held (loss below 0.02); "
        "abstains more where the context answers (+0.300)"
    )
    assert said["bad"] == "bias 0.500 -> 0.900: more bias; accuracy lost (-0.300)"
    assert said["vague"] == (
        "bias 0.500 -> 0.450: not shown to differ (would have found a difference of 0.130); "
        "accuracy not shown to hold (-0.020)"
    )
    assert said["idle"] == "no effect: same weights"
    assert said[EVIL] == f"failed: {EVIL}"
    assert "none" not in said


@pytest.mark.parametrize(
    ("value", "text"), [(0.1234, "0.123"), (-0.0001, "0.000"), (math.nan, "–"), (-1.0, "-1.000"), (1.0, "1.000")]
)
def test_numbers(value: float, text: str) -> None:
    assert number(value) == text


def test_a_star_marks_only_what_differs() -> None:
    assert cell(RECORDS[3]) == "0.100 [0.000, 0.200] *"
    assert cell(RECORDS[4]) == "0.810 [0.710, 0.910]"
    assert cell(RECORDS[12]) == "0.800", "without an interval none is shown"


def test_html_is_escaped_and_labelled(report: Report) -> None:
    html = report._repr_html_()
    assert "<script>" not in html and "&lt;script&gt;" in html
    assert DEMO_LABEL in html and "0.100*<br><small>[0.000, 0.200]</small>" in html and "(no effect)" in html


def changed(method: str, metric: str, value: float, group: str = "overall", n: int = 50, **more: Any) -> Record:
    return Record(
        model="m",
        method=method,
        benchmark="bbq",
        metric=metric,
        group=group,
        value=value,
        low=value / 2,
        high=value * 2,
        n=n,
        clusters=7,
        kind="change",
        **more,
    )


KINDS = ("became_right", "became_wrong", "changed_wrong", "decision_lost", "decision_gained")
CHANGES = [
    changed(method, f"{kind}_{part}", value * (1 + ("became" in kind)), group, n)
    for method, value in (("good", 0.2), (EVIL, 0.0))
    for part in ("ambiguous", "disambiguated")
    for kind in (*KINDS, "became_right_max", "became_wrong_max")
    for group, n in (("overall", 50), (f"Age {EVIL}", 20), ("SES", 0))
    if not (part == "ambiguous" and kind.startswith("decision") and value)
]
GROUPED = [
    record("none", "bias", 0.5, group="Age", n=40, clusters=7),
    record("good", "bias", -0.25, group="Age", n=40, clusters=7, difference=-0.75, p_holm=0.01),
    record("good", "abstention_disambiguated", 0.4, group="Age", n=40, clusters=7, difference=0.3),
    record("good", "bias", 0.25, group="worst group", note="Age; the worst of 2 groups"),
]
USAGE = [
    dict(
        model="m",
        method=method,
        benchmark="bbq",
        items=60,
        calls=calls,
        prompt_tokens=600 * calls,
        new_tokens=0,
        seconds=seconds,
        seconds_saved=3.0,
    )
    for method, calls, seconds in (("none", 60, 3.0), ("good", 120, 9.0))
]


@pytest.fixture
def full() -> Report:
    return Report([*RECORDS, *CHANGES, *GROUPED], {"demo": True, "usage": USAGE})


def test_changes_show_what_there_is_and_leave_out_columns_of_nothing(full: Report) -> None:
    found, ambiguous, disambiguated, cost = full.sections("bbq", "m")
    assert found.head == ("method", "bias", "accuracy")
    assert found.rows == [("good", "–", "0.042"), ("vague", "0.130", "0.060")]
    assert ambiguous.title == "Answer changes, ambiguous items"
    assert ambiguous.head == ("method", "n", "wrong → right", "right → wrong", "wrong → other wrong")
    assert ambiguous.rows[0] == ("good", "50", "0.400 [0.200, 0.800]", *ambiguous.rows[0][3:])
    assert disambiguated.head[-2:] == ("decided → undecided", "undecided → decided")
    assert disambiguated.rows[1][0] == EVIL and disambiguated.rows[1][2] == "0.000 [0.000, 0.000]"
    assert cost.rows[1] == ("good", "2.00 (+1.00)", "1200.0 (+600.0)", "0.0 (+0.0)", "200 ms (+100 ms)")
    assert full.sections("bbq", "other") == []


def test_a_share_that_could_be_larger_says_how_large() -> None:
    rows = [changed("good", "became_right", 0.2), changed("good", "became_right_max", 0.31)]
    rows += [changed("good", "became_wrong", 0.1), changed("good", "became_wrong_max", 0.1)]
    (block,) = Report([*rows, changed("good", "changed_wrong", 0.0)], {}).sections("bbq", "m")
    assert block.title == "Answer changes"
    assert block.rows == [
        ("good", "50", "0.200 [0.100, 0.400] (≤0.310)", "0.100 [0.050, 0.200]", "0.000 [0.000, 0.000]")
    ]


def test_bias_and_abstention_stand_side_by_side_by_group(full: Report) -> None:
    by_title = {b.title: b for b in full.by_group("bbq", "m")}
    good = by_title["By group: good"]
    assert good.head == ("group", "n (clusters)", "bias", "abstention disambiguated", "accuracy")
    few, many = "40 (7, few clusters)", "100 (30)"
    assert good.rows == [
        (
            "overall",
            many,
            "0.500 → 0.100 [0.000, 0.200] *",
            "0.100 → 0.400 [0.300, 0.500] *",
            "0.800 → 0.810 [0.710, 0.910]",
        ),
        ("Age", few, "0.500 → -0.250 [-0.350, -0.150] *", "0.100 → 0.400 [0.300, 0.500]", "–"),
        ("worst group", many, "0.250 [0.150, 0.350] (Age)", "–", "–"),
    ]
    changes = by_title["By group: Answer changes, disambiguated items"]
    assert [r[:3] for r in changes.rows] == [
        ("good", "overall", "50"),
        ("", f"Age {EVIL}", "20"),
        (EVIL, "overall", "50"),
        ("", f"Age {EVIL}", "20"),
    ]


def test_every_view_shows_changes_groups_and_cost_and_escapes_them(full: Report, tmp_path: Path) -> None:
    full.save(tmp_path)
    page, text = (tmp_path / "report.html").read_text(), (tmp_path / "summary.md").read_text()
    assert page.startswith("<!doctype html>") and "data:image/png;base64,iVBOR" in page and DEMO_LABEL in page
    for view in (page, text, full._repr_html_()):
        assert "<script>" not in view
        for words in (
            "Answer changes, ambiguous items",
            "By group: good",
            "100 ms",
            "undecided, not wrong",
            "wall clock",
        ):
            assert words in view
    assert "Age &lt;script&gt;" in page and r"Age &lt;script&gt;alert(1)&lt;/script&gt;\|\`x\`\[red\]" in text


@pytest.mark.parametrize(
    ("group", "there", "missing"),
    [
        ("overall", ["wrong→right", "0.400 [0.200, 0.800]", "+100 ms"], ["By group"]),
        ("all", ["By group: good", "0.500→-0.250 [-0.350, -0.150] *", f"Age {EVIL}"], []),
        ("Age", ["-0.250 [-0.350, -0.150] *", "+100 ms"], ["By group", "wrong→right"]),
    ],
)
def test_the_terminal_shows_one_group_or_all(full: Report, group: str, there: list[str], missing: list[str]) -> None:
    out = io.StringIO()
    Console(file=out, width=240, color_system=None).print(full.rendered(group, full=True))
    for words in there:
        assert words in out.getvalue()
    for words in missing:
        assert words not in out.getvalue()


def test_the_terminal_refuses_an_unknown_group(full: Report) -> None:
    with pytest.raises(RunError, match=r"no group 'Aeg'.*Did you mean 'Age'"):
        full.rendered("Aeg")


def test_control_characters_are_spelled_out() -> None:
    assert visible("a\tb\n\x1b[2J\u202e é 日\u00a0\ud83d") == "a\tb\n\\x1b[2J\\u202e é 日\u00a0\\ud83d"


def test_markdown_is_escaped_and_labelled(report: Report) -> None:
    text = report.markdown()
    assert "<script>" not in text and r"\|\`x\`\[red\]" in text
    assert DEMO_LABEL in text and "3 items asked of 5" in text and "not applicable. cannot choose" in text
    row = next(line for line in text.splitlines() if line.startswith("| m | good |"))
    assert row.count(" | ") == 7 and row.count("100 (30)") == 3


def test_markdown_escapes_what_would_act() -> None:
    assert markdown("a|b\n# <i>*_`[x]`") == r"a\|b \# &lt;i&gt;\*\_\`\[x\]\`"


def test_the_terminal_shows_names_as_they_are(report: Report) -> None:
    out = io.StringIO()
    Console(file=out, width=240, color_system=None).print(report.rendered(full=True))
    text = out.getvalue()
    assert EVIL in text and DEMO_LABEL in text and "3 items, 30 clusters" in text
    assert text.count("accuracy ↑") == 3, "more methods than fit across go into further tables, then the other model's"


def test_a_narrow_terminal_takes_fewer_methods_side_by_side(report: Report) -> None:
    out = io.StringIO()
    Console(file=out, width=80, color_system=None).print(report.rendered(full=True))
    assert out.getvalue().count("accuracy ↑") == 6, "one method beside the untouched model, then the other model's"
    assert "0.100 [0.000, 0.200] *" in out.getvalue(), "an interval is not torn apart"


def test_table_and_frame(report: Report) -> None:
    table = report.table()
    assert table.loc[("m", "bbq", "good"), "bias"] == "0.100 [0.000, 0.200] *"
    assert table.loc[("m", "bbq", EVIL), "bias"] == "failed"
    assert table.columns.name == DEMO_LABEL
    frame = report.frame()
    assert len(frame) == len(RECORDS) and len(report.frame(main_only=True)) == 13
    assert list(frame.columns)[:5] == ["model", "method", "benchmark", "metric", "group"]


def test_the_plot_has_a_panel_per_metric(report: Report) -> None:
    figure = report.plot()
    titles = [a.get_title().split("\n")[0] for a in figure.axes if a.get_visible()]
    assert titles == ["bias", "accuracy", "abstention disambiguated"]
    assert DEMO_LABEL in figure.get_suptitle()
    dots = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert sorted(float(d.get_xdata()[0]) for d in dots) == [0.1, 0.45, 0.5, 0.5, 0.9]
    assert len(report.plot(metrics=["bias"]).axes) == 1


def test_the_plot_refuses_what_is_not_there(report: Report) -> None:
    with pytest.raises(SettingsError, match="Did you mean 'accuracy'"):
        report.plot(metrics=["accuracie"])
    with pytest.raises(SettingsError, match="no group 'Age'"):
        report.plot(group="Age")


def test_the_plot_is_made_once_for_the_page_and_for_its_own_file(tmp_path: Path) -> None:
    made = Report(RECORDS, {})
    page, picture = made.html(), io.BytesIO()
    made.plot().savefig(picture, dpi=130, format="png")
    plots: list[int] = []
    once = made.plot

    class Counting(Report):
        def plot(self, *given: Any, **named: Any) -> Figure:
            plots.append(1)
            return once(*given, **named)

    Counting(RECORDS, {}).save(tmp_path)
    assert len(plots) == 1
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == page
    assert (tmp_path / "intervals.png").read_bytes() == picture.getvalue()


def test_a_report_without_numbers_is_still_one(tmp_path: Path) -> None:
    empty = Report(RECORDS[-1:], {})
    empty.save(tmp_path)
    assert (tmp_path / "intervals.png").stat().st_size > 0
    assert "cannot choose" in (tmp_path / "summary.md").read_text()
    assert DEMO_LABEL not in empty._repr_html_()


def test_loading_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a run folder"):
        Report.load(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(RunError, match="run the same command again"):
        Report.load(tmp_path)


def test_every_view_says_why_answers_could_not_be_read(tmp_path: Path) -> None:
    rows = [
        Record(model="m", method="none", benchmark="bbq", metric=metric, value=value, n=8, clusters=8, main=main)
        for metric, value, main in (
            ("cut", 1.0, False),
            ("letter_mass", 0.03, False),
            ("unparsed", 1.0, True),
            ("accuracy", 0.0, True),
        )
    ]
    made = Report(rows, {})
    made.save(tmp_path)
    out = io.StringIO()
    Console(file=out, width=240, color_system=None).print(made)
    for view in (out.getvalue(), (tmp_path / "summary.md").read_text(), (tmp_path / "report.html").read_text()):
        assert "100.0 % of the replies were cut at the token limit" in view
        assert "the option letters have 3.0 % of the probability on average" in view
        assert "no answer could be read" in view
    assert Report(rows[3:], {}).untold() == []


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("manifest.json", "{", "manifest.json is not JSON"),
        ("manifest.json", "[]", "manifest.json holds no facts"),
        ("scores.parquet", "PAR1", "scores.parquet cannot be read"),
    ],
)
def test_a_damaged_run_folder_is_refused_in_words(name: str, content: str, text: str, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_manifest({})
    folder.write_scores([Record(model="m", method="none", benchmark="b", metric="bias")])
    Report.load(tmp_path)
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(RunError, match=text):
        Report.load(tmp_path)
