"""Where rows stand: dominated only by what a test says, and sweeps joined to curves."""

from __future__ import annotations

import json
from typing import Any

import pytest

from evenhand.core.records import Record
from evenhand.methods.prompting.self_debias_decoding import SelfDebiasDecoding
from evenhand.report import Report
from evenhand.report.pareto import Measure, ParetoPoint, Placed, placed, settings_of, with_curves
from evenhand.report.rivals import FIELD, Rival, adjusted, facts, rivals_in
from evenhand.statistics.criteria import Criteria

BIAS, ACCURACY = Measure("b", "bias", "zero", "bias"), Measure("c", "accuracy", "higher", "capability")


def row(method: str, bias: float, accuracy: float, **more: Any) -> dict[Measure, Record]:
    """Both measures of one row; `more` is for the bias."""
    base: dict[str, Any] = {"model": "m", "method": method, "clusters": 30, "n": 100, "baseline": "none", "main": True}
    return {
        BIAS: Record(benchmark="b", metric="bias", value=bias, direction="zero", kind="bias", **{**base, **more}),
        ACCURACY: Record(
            benchmark="c", metric="accuracy", value=accuracy, direction="higher", kind="capability", **base
        ),
    }


def rival(method: str, against: str, gain: float, p: float, half: float = 0.05, **more: Any) -> Rival:
    numbers = (-gain, -gain - half, -gain + half, gain, gain - half, gain + half, p)
    return Rival("m", "b", "bias", method, against, *numbers, clusters=more.get("clusters", 30))


ROWS = {"a": row("a", 0.1, 0.8), "b": row("b", 0.3, 0.8), "c": row("c", 0.2, 0.9)}


@pytest.mark.parametrize(
    ("rivals", "place"),
    [
        ([], Placed("undecided", ("a", "c"))),
        ([rival("a", "b", 0.2, 0.001)], Placed("dominated", ("a",))),
        ([rival("b", "a", -0.2, 0.001)], Placed("dominated", ("a",))),
        ([rival("a", "b", 0.2, 0.2)], Placed("undecided", ("a", "c"))),
        ([rival("a", "b", 0.2, 0.001, half=0.3)], Placed("undecided", ("a", "c"))),
        ([rival("a", "b", 0.2, 0.001, clusters=4)], Placed("undecided", ("a", "c"))),
        ([rival("a", "b", 0.2, 0.02), rival("c", "b", 0.1, 0.03)], Placed("dominated", ("a", "c"))),
        ([rival("a", "b", 0.2, 0.03), rival("c", "b", 0.1, 0.03)], Placed("undecided", ("a", "c"))),
    ],
    ids=["no test", "shown", "turned round", "not shown", "of opposite sign", "too few clusters", "both", "after Holm"],
)
def test_a_row_is_dominated_only_where_a_test_says_so(rivals: list[Rival], place: Placed) -> None:
    found = placed(ROWS, {}, rivals, Criteria())
    assert found["b"] == place
    assert found["a"] == found["c"] == Placed("front")


def test_a_shown_difference_does_not_dominate_a_row_that_is_better_elsewhere() -> None:
    found = placed(ROWS, {}, [rival("a", "c", 0.1, 1e-6)], Criteria())
    assert found["c"] == Placed("front"), "its accuracy is higher"
    calls = {"a": 5.0, "b": 1.0, "c": 5.0}
    found = placed(ROWS, calls, [rival("a", "b", 0.2, 1e-6)], Criteria())
    assert found["b"] == Placed("front"), "it has fewer calls"


def test_calls_alone_leave_a_row_undecided() -> None:
    rows = {"a": row("a", 0.1, 0.8), "b": row("b", 0.1, 0.8)}
    assert placed(rows, {"a": 1.0, "b": 2.0}, [], Criteria()) == {
        "a": Placed("front"),
        "b": Placed("undecided", ("a",)),
    }
    assert placed(rows, {}, [], Criteria())["b"] == Placed("front"), "equal in all that is known"


def test_the_baseline_is_dominated_by_what_is_shown_to_be_better() -> None:
    better = row("a", 0.1, 0.8, p_holm=0.001, gain=0.3, gain_low=0.2, gain_high=0.4)
    worse = row("z", 0.6, 0.7, p_holm=0.001, gain=-0.2, gain_low=-0.3, gain_high=-0.1)
    found = placed({"none": row("none", 0.4, 0.8, baseline=""), "a": better, "z": worse}, {}, [], Criteria())
    assert found == {
        "none": Placed("dominated", ("a",)),
        "a": Placed("front"),
        "z": Placed("dominated", ("none",)),
    }


def test_a_row_without_a_value_stands_nowhere() -> None:
    rows = {"a": row("a", float("nan"), 0.8), "b": row("b", 0.3, 0.8), "c": {}}
    assert placed(rows, {}, [], Criteria()) == {"a": Placed(""), "b": Placed("front"), "c": Placed("")}


def test_rivals_survive_the_manifest() -> None:
    found = [rival("a", "b", 0.2, float("nan")), rival("a", "c", 0.1, 0.01)]
    (lost, kept) = rivals_in(json.loads(json.dumps({FIELD: facts(found)}, allow_nan=False)))
    assert kept == found[1] and lost.p != lost.p and lost.gain == found[0].gain
    assert rivals_in({}) == [] and [r.p for r in adjusted([kept, kept])] == [0.02, 0.02]
    assert kept.turned.turned == kept and kept.turned.gain_low == -kept.gain_high


def test_settings_are_read_from_specs() -> None:
    assert settings_of("none (generation, T=1)") == {}
    assert settings_of("pride(seed=3)") == {"seed": 3}
    assert settings_of("pcgu(edit_fraction=0.1)+instruction(preset=low)") == {
        "pcgu.edit_fraction": 0.1,
        "instruction.preset": "low",
    }


def point(method: str) -> ParetoPoint:
    return ParetoPoint("m", method, "none", settings_of(method), *[0.1] * 8, "front", ())


def test_points_that_differ_in_one_number_are_a_curve() -> None:
    methods = [
        "none",
        "edit(strength=2, epochs=1)",
        "edit(strength=1, epochs=1)",
        "edit(strength=1, epochs=5)",
        "x(k=1)",
    ]
    found = {p.method: (p.curve, p.setting, p.position) for p in with_curves([point(m) for m in methods])}
    assert found["none"] == found["x(k=1)"] == ("", "", None)
    assert {found[m][0] for m in methods[1:3]} == {"edit(epochs=1, strength)"} or {
        found[m][0] for m in methods[2:4]
    } == {"edit(strength=1, epochs)"}
    methods.append("edit(strength=3, epochs=1)")
    found = {p.method: (p.curve, p.setting, p.position) for p in with_curves([point(m) for m in methods])}
    assert found["edit(strength=2, epochs=1)"] == ("edit(epochs=1, strength)", "strength", 2.0)
    assert found["edit(strength=1, epochs=1)"] == ("edit(epochs=1, strength)", "strength", 1.0), "the longer curve"


def test_the_default_of_a_setting_is_on_the_curve() -> None:
    """A step of a sweep at the default does not name the setting."""
    methods = ["none", "none (generation, T=1)", "self_debias_decoding(decay=5)", "self_debias_decoding", "pride"]
    found = {p.method: (p.curve, p.position) for p in with_curves([point(m) for m in methods])}
    curve = "self_debias_decoding(decay)"
    assert found["self_debias_decoding(decay=5)"] == (curve, 5.0)
    assert found["self_debias_decoding"] == (curve, float(SelfDebiasDecoding().decay))
    assert all(found[m] == ("", None) for m in ("none", "none (generation, T=1)", "pride"))
    stack = ["instruction+self_debias_decoding(decay=5)", "instruction+self_debias_decoding"]
    assert [p.position for p in with_curves([point(m) for m in stack])] == [5.0, 50.0]


def test_points_of_a_report_have_intervals_and_cost() -> None:
    first = Record(
        model="m", method="none", benchmark="b", metric="bias", value=0.4, low=0.3, high=0.5, kind="bias",
        direction="zero", main=True, n=10, clusters=10,
    )  # fmt: skip
    usage = {"model": "m", "method": "none", "benchmark": "b", "items": 10, "calls": 20, "prompt_tokens": 1}
    report = Report([first], {"usage": [{**usage, "new_tokens": 0, "seconds": 5.0, "seconds_saved": 0.0}]})
    (found,) = report.pareto()
    assert (found.bias, found.bias_low, found.bias_high) == (0.4, 0.3, 0.5)
    assert (found.calls, found.seconds, found.pareto, found.capability != found.capability) == (2.0, 0.5, "front", True)
