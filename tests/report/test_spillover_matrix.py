"""The spillover matrix of scripted runs, of which every cell is known beforehand."""

from __future__ import annotations

from dataclasses import replace
from math import isnan
from pathlib import Path
from typing import ClassVar

import pytest
from tests.report.scripted_runs import Scripted, scripted_run, silent

from evenhand import settings
from evenhand.core.records import Record
from evenhand.errors import RunError, SettingsError
from evenhand.evaluation.bbq import BBQItem
from evenhand.report import Report
from evenhand.report.fitted_axes import axis_of_data, axis_of_method
from evenhand.report.spillover_matrix import Spillover, spillover
from evenhand.statistics import holm
from evenhand.statistics.criteria import CRITERIA


@settings
class Aimed(Scripted):
    """Rids one axis of its bias; makes Religion wrong wherever the context answers, unless it is the target."""

    name: ClassVar[str] = "aimed"
    axes: tuple[str, ...] = ()
    """What it is aimed at."""

    def decide(self, item: BBQItem) -> int | None:
        if item.category in self.axes:
            return item.label
        if item.category == "Religion" and item.disambiguated:
            return (item.label + 1) % 3
        return item.label if item.disambiguated else item.target


@pytest.fixture(scope="module")
def report() -> Report:
    return scripted_run(None, [lambda: Aimed(axes=("Age",)), lambda: Aimed(axes=("Religion",))])


def test_each_row_is_known_by_its_axis_and_only_that_cell_is_targeted(report: Report) -> None:
    found = report.spillover()
    assert [row.axis for row in found.rows] == ["Age", "Religion"]
    assert {(row.axis, column.axis) for (row, column), effect in found.cells.items() if effect.targeted} == {
        ("Age", "Age"),
        ("Religion", "Religion"),
    }
    table = found.frame().set_index(["fitted_on", "axis"])
    assert table.loc[("Age", "Age"), "difference"] == -1 and table.loc[("Religion", "Religion"), "difference"] == -1
    assert table.loc[("Age", "Religion"), "difference"] == 0 and not table.loc[("Age", "Religion"), "significant"]
    axes = {column.axis for column in found.columns}
    assert {"Age", "Religion"} < axes and not axes & {"overall", "worst group"}
    assert not any(axis.endswith("(names)") for axis in axes)


def test_what_got_worse_is_counted_off_target_only(report: Report) -> None:
    axes = len({column.axis for column in report.spillover().columns})
    # aimed at Age, it makes Religion worse; aimed at Religion, it makes nothing worse
    worse = report.spillover("accuracy_disambiguated").worse
    assert (worse.found, worse.of) == (1, 2 * axes - 2)
    assert report.spillover("bias_ambiguous").worse.found == 0
    assert report.spillover(kind="capability").columns[0].metric == "accuracy_disambiguated"


def test_p_is_adjusted_over_the_whole_matrix(report: Report) -> None:
    found = report.spillover()
    numbers = {(r.method, r.group): r for r in report.records if r.metric == "bias_ambiguous"}
    before = [numbers[row.method, column.axis].p for row, column in found.cells]
    after = [effect.record.p_holm for effect in found.cells.values()]
    assert len(before) == len(found.rows) * len(found.columns)
    assert after == holm(before) != [numbers[row.method, column.axis].p_holm for row, column in found.cells]


def test_a_joined_report_reads_the_axis_from_each_run_s_training_data(tmp_path: Path, report: Report) -> None:
    record = Record(model="m", method="taught", benchmark="b", metric="bias", kind="bias", direction="zero", main=True)
    numbers = {"value": 0.1, "low": 0.0, "high": 0.2, "n": 50, "clusters": 20, "baseline_clusters": 20, "degrees": 19.0}
    paired = {
        "difference": -0.1,
        "difference_low": -0.15,
        "difference_high": -0.05,
        "gain": 0.1,
        "gain_low": 0.05,
        "gain_high": 0.15,
        "p": 0.001,
        "baseline": "none",
    }
    one = [
        replace(record, group=group, **numbers, **(paired if method == "taught" else {}), method=method)
        for method in ("none", "taught")
        for group in ("overall", "Age", "Religion")
    ]
    runs = []
    for n, axis in enumerate(("Age", "Religion")):
        facts = {
            "usage": [{"model": "m", "method": method, "benchmark": "b", "answers": f"{n}"} for method in ("taught",)],
            "applied": [{"method": "taught", "training": {"kind": 1}}],
            "train_source": f"pairs:bbq(axes={axis},part=fit)",
        }
        runs.append(Report([replace(r, value=r.value + n) if r.method == "taught" else r for r in one], facts))
    found = Report.join(*runs, names=["first", "second"]).spillover()
    assert [(row.model, row.axis) for row in found.rows] == [("m", "Age"), ("m @ second", "Religion")]
    assert found.worse.of == 2 and found.worse.found == 0
    assert "on Religion" in str(found) and "on Age" in found._repr_html_()


def test_a_row_fitted_on_no_axis_is_measured_on_all() -> None:
    from tests.report.scripted_runs import Clean

    found = scripted_run(None, [Clean]).spillover()
    assert [row.axis for row in found.rows] == [""] and found.worse.of == len(found.columns)
    assert "all axes" in str(found)
    told = scripted_run(None, [Clean]).spillover(targets={"clean": "Age"})
    assert told.worse.of == len(told.columns) - 1


def test_an_undecided_item_keeps_its_cell() -> None:
    from tests.report.scripted_runs import Harsh

    found = scripted_run(None, [Harsh]).spillover("accuracy_disambiguated")
    axis = silent() and "Religion"
    effect = next(effect for (_, column), effect in found.cells.items() if column.axis == axis)
    assert not isnan(effect.record.difference) and effect.record.n > 0


def test_few_clusters_get_no_star_and_may_be_either() -> None:
    base = Record(
        model="m",
        method="x(axis=Age)",
        benchmark="b",
        metric="bias",
        kind="bias",
        direction="zero",
        main=True,
        value=0.3,
        low=0.1,
        high=0.5,
        n=4,
        clusters=3,
        baseline_clusters=3,
        degrees=2.0,
        difference=0.3,
        difference_low=0.2,
        difference_high=0.4,
        gain=-0.3,
        gain_low=-0.4,
        gain_high=-0.2,
        p=0.0001,
        baseline="none",
    )
    records = [replace(base, group=g) for g in ("overall", "Age", "Religion")]
    found = spillover(records, CRITERIA, [])
    assert found.worse == (1, 0, 1, 1, 1)
    assert not any(effect.significant for effect in found.cells.values())
    assert "1 with fewer than 5 clusters or no interval may be either" in found.summary()


def numbers(method: str, group: str, before: float, after: float, **more: object) -> Record:
    """A number of a bias that is best at 0, with a difference that a test shows."""
    gain = abs(before) - abs(after)
    found = {
        "model": "m",
        "benchmark": "b",
        "metric": "bias",
        "value": after,
        "difference": after - before,
        "gain": gain,
        "gain_low": gain - 0.05,
        "gain_high": gain + 0.05,
        "p": 1e-6,
        **more,
    }
    return Record(
        method=method,
        group=group,
        kind="bias",
        direction="zero",
        main=True,
        baseline="none",
        n=50,
        clusters=20,
        baseline_clusters=20,
        degrees=19.0,
        **found,  # type: ignore[arg-type]
    )


def laid_out(*records: Record) -> Spillover:
    overall = {(r.model, r.method, r.benchmark): replace(r, group="overall") for r in records}
    return spillover([*overall.values(), *records], CRITERIA, [])


def test_a_bias_that_changes_its_sign_can_differ_without_being_worse() -> None:
    wide = numbers("x(axis=SES)", "Age", 0.2, -0.4, gain_low=-0.6, gain_high=0.2)
    clear = numbers("x(axis=SES)", "Religion", 0.2, -0.4)
    mirrored = numbers("x(axis=SES)", "Nationality", 0.3, -0.3)
    grown = numbers("x(axis=SES)", "Gender", 0.2, 0.6)
    found = laid_out(wide, clear, mirrored, grown)
    marks = {column.axis: (effect.mark, effect.shown) for (_, column), effect in found.cells.items()}
    assert marks == {
        "Age": ("▽*", False),
        "Religion": ("▼*", True),
        "Nationality": ("*", False),
        "Gender": ("▼*", True),
    }
    # those that are filled are those that the count is sure of; what shows as 0 is not worse as measured
    assert found.worse == (3, 2, 4, 4, 0)
    assert "▲ better (nearer 0)" in found._repr_html_()
    assert list(found.frame().set_index("axis")["shown"]) == [False, True, False, True]


def test_an_axis_has_other_names_in_other_benchmarks_and_one_has_none() -> None:
    found = laid_out(
        numbers("x(axis=gender)", "Gender_identity", 0.5, 0.1),
        numbers("x(axis=gender)", "Age", 0.5, 0.6),
        numbers("x(axis=gender)", "Gender", 0.5, 0.1, benchmark="other"),
    )
    targeted = {(c.benchmark, c.axis) for (_, c), effect in found.cells.items() if effect.targeted}
    assert targeted == {("b", "Gender_identity"), ("other", "Gender")} and found.worse[:4] == (1, 1, 1, 1)
    whole = spillover([numbers("x(axis=gender)", "overall", 0.5, 0.6, benchmark="plain")], CRITERIA, [])
    assert [column.axis for column in whole.columns] == [""] and whole.worse.of == 1
    assert "\nplain " in str(whole) and "gender is not an axis that was measured" in str(whole)


def test_several_models_are_told_apart_and_one_can_be_taken() -> None:
    records = [
        numbers("x(axis=age)", group, 0.5, after, model=model)
        for model, after in (("m", 0.1), ("other", 0.6), ("m @ second", 0.2))
        for group in ("overall", "Age", "SES")
    ]
    found = spillover(records, CRITERIA, [])
    assert [row.model for row in found.rows] == ["m", "other", "m @ second"] and "on age, other" in found._repr_html_()
    assert (found.worse.found, found.worse.of) == (1, 3)
    one = spillover(records, CRITERIA, [], model="m")  # in both runs
    assert [row.model for row in one.rows] == ["m", "m @ second"] and one.worse.found == 0


def run_of(axis: str, method: str, source: str, after: float, status: str = "ok") -> Report:
    """A run in which a method was trained on `source`."""
    rows = [
        replace(numbers("none", g, 0.5, 0.5), baseline="", difference=float("nan")) for g in ("overall", "Age", "SES")
    ]
    fitted = [numbers(method, g, 0.5, after) for g in ("overall", "Age", "SES")]
    if status != "ok":
        fitted = [Record(model="m", method=method, benchmark="b", status="failed", note="no pair of this axis")]
    usage = [{"model": "m", "method": method, "benchmark": "b", "answers": f"{axis} {after}"}]
    facts = {
        "models": {"m": {}},
        "usage": usage if status == "ok" else [],
        "applied": [{"method": method, "training": {"kind": 1}}],
        "train_source": source,
    }
    return Report([*rows, *fitted], facts)


def test_the_data_of_a_stack_come_before_the_settings_of_its_other_part() -> None:
    stack = "instruction(axis=gender)+taught"
    runs = [run_of(axis, stack, f"demo:pairs:{axis}", after) for axis, after in (("Age", 0.1), ("SES", 0.2))]
    found = Report.join(*runs, names=["one", "two"]).spillover()
    assert [row.axis for row in found.rows] == ["Age", "SES"] and found.worse.of == 2


def test_the_axis_of_a_run_can_be_told_by_its_label() -> None:
    runs = [run_of(axis, "taught", f"{axis}.jsonl", after) for axis, after in (("Age", 0.1), ("SES", 0.2))]
    joined = Report.join(*runs, names=["one", "two"])
    assert [row.axis for row in joined.spillover().rows] == ["", ""]
    told = joined.spillover(targets={"one": "Age", "two": "SES"})
    assert [row.axis for row in told.rows] == ["Age", "SES"] and told.worse.of == 2
    with pytest.raises(SettingsError, match="no row 'three' in this report, and no such run"):
        joined.spillover(targets={"three": "Age"})


def test_two_fits_with_the_same_answers_are_two_rows() -> None:
    runs = [run_of(axis, "taught", f"demo:pairs:{axis}", 0.1) for axis in ("Age", "SES")]
    for run in runs:
        run.manifest["usage"][0]["answers"] = "the same"
    joined = Report.join(*runs, names=["one", "two"])
    assert len({r.model for r in joined.records}) == 1
    found = joined.spillover()
    assert [row.axis for row in found.rows] == ["Age", "SES"] and len(found.cells) == 4
    assert {(row.axis, c.axis) for (row, c), e in found.cells.items() if e.targeted} == {("Age", "Age"), ("SES", "SES")}


def test_a_row_without_numbers_is_named_with_the_reason() -> None:
    runs = [run_of("Age", "taught", "demo:pairs:Age", 0.1), run_of("SES", "taught", "demo:pairs:SES", 0.2, "failed")]
    found = Report.join(*runs, names=["one", "two"]).spillover()
    told = "taught, fitted on SES, has no numbers (failed) on b: no pair of this axis"
    assert [row.axis for row in found.rows] == ["Age"] and found.notes() == [told]
    assert told in str(found).replace("\n", " ").replace("  ", " ") and told in found._repr_html_()
    with pytest.raises(RunError, match="no pair of this axis"):
        runs[1].spillover()


def test_a_row_that_changed_nothing_is_named() -> None:
    quiet = replace(numbers("x(axis=Age)", "Age", 0.5, 0.5, p=1.0), status="no effect")
    assert laid_out(quiet).notes() == ["x(axis=Age), fitted on Age, left every answer as it was on b."]


def test_an_axis_that_was_not_measured_is_named() -> None:
    found = laid_out(numbers("x(axis=Aeg)", "Age", 0.5, 0.1))
    assert found.notes() == ["Aeg is not an axis that was measured, so it has no targeted cell. Did you mean 'Age'?"]
    assert found.worse.of == 1


def test_an_axis_without_items_has_no_cell(report: Report) -> None:
    records = [replace(r, n=0) if r.group == "Age" and r.method != "none" else r for r in report.numbers]
    found = spillover(records, CRITERIA, report.sources)
    assert "Age" not in {column.axis for column in found.columns}


def test_wrong_names_are_told(report: Report) -> None:
    with pytest.raises(SettingsError, match="bias_ambigous"):
        report.spillover("bias_ambigous")
    with pytest.raises(SettingsError, match="no row 'nobody'"):
        report.spillover(targets={"nobody": "Age"})
    with pytest.raises(RunError, match="no row 'nobody'"):
        report.spillover(methods=["nobody"])
    with pytest.raises(RunError, match="no row has a difference"):
        scripted_run(None, []).spillover()


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_no_line_is_wider_than_the_terminal(report: Report, width: int) -> None:
    from evenhand.report import spillover_view
    from evenhand.report.plain_text import plain_text

    text = plain_text(spillover_view.rendered(report.spillover(), width), width)
    assert max(map(len, text.splitlines())) <= width and "…" not in text


def test_names_are_escaped(report: Report) -> None:
    records = [replace(r, group="<b>x</b>") if r.group == "Age" else r for r in report.numbers]
    page = spillover(records, CRITERIA, report.sources)._repr_html_()
    assert "<b>x</b>" not in page and "&lt;b&gt;x" in page


@pytest.mark.parametrize(
    ("source", "axis"),
    [
        ("bbq(axes=Age,part=fit)", "Age"),
        ("pairs:bbq(source=demo,axes=Religion)", "Religion"),
        ("bbq(axes=(Age,SES))", ""),
        ("demo:pairs:Age", "Age"),
        ("demo:biased:Religion:400", "Religion"),
        ("demo:pairs:400", ""),
        ("demo:pairs:Age & bbq(axes=Age)", "Age"),
        ("demo:pairs:Age & bbq(axes=SES)", ""),
        ("demo", ""),
        ("", ""),
        ("texts.jsonl", ""),
    ],
)
def test_the_axis_of_training_data(source: str, axis: str) -> None:
    assert axis_of_data(source) == axis


@pytest.mark.parametrize(
    ("method", "axis"),
    [
        ("instruction(axis=gender)", "gender"),
        ("instruction(axis=auto)", ""),
        ("task_vector(axes=('Age',))", "Age"),
        ("task_vector(axes=('Age','SES'))", ""),
        ("self_debias+instruction(axis=age)", "age"),
        ("steering", ""),
        ("my own row", ""),
    ],
)
def test_the_axis_of_a_method(method: str, axis: str) -> None:
    assert axis_of_method(method) == axis


def test_a_row_of_a_plugin_may_be_called_otherwise(report: Report) -> None:
    renamed = [replace(r, method=f"{r.method} :(") if r.baseline else r for r in report.numbers]
    found = spillover(renamed, CRITERIA, report.sources)
    assert {row.axis for row in found.rows} == {""} and all(row.method.endswith(":(") for row in found.rows)
