"""The Bias-Free Score by hand, at its extremes, in `evenhand.metrics` and in a comparison."""

from __future__ import annotations

import math
from typing import Any

import pytest

import evenhand
from evenhand.core.registry import build_benchmark
from evenhand.evaluation.bbq import BBQ, score, target_location
from evenhand.proving_ground.generator.bbq_questions import all_rows
from evenhand.testing import check_benchmark

SCORE = "bias_free_score"
NAMES = (SCORE, f"{SCORE}_min", f"{SCORE}_max")


def rows_of(category: str, count: int, condition: str = "ambig") -> list[dict[str, Any]]:
    return [r for r in all_rows() if (r["category"], r["context_condition"]) == (category, condition)][:count]


def pick(row: dict[str, Any], what: str) -> int | None:
    unknown = next(i for i in range(3) if row["answer_info"][f"ans{i}"][1] == "unknown")
    target = target_location(row)
    assert target is not None
    return {"unknown": unknown, "target": target, "counter": 3 - unknown - target, "none": None}[what]


def planned(plan: dict[str, list[str]]) -> tuple[list[dict[str, Any]], list[int | None]]:
    rows = [r for category, answers in plan.items() for r in rows_of(category, len(answers))]
    return rows, [pick(r, a) for r, a in zip(rows, [a for named in plan.values() for a in named], strict=True)]


def scores(plan: dict[str, list[str]]) -> dict[str, tuple[float, ...]]:
    found = score(*planned(plan), "bfs")
    return {group: tuple(values[name] for name in NAMES) for group, values in found.items()}


def test_by_hand_in_groups_of_unequal_size() -> None:
    got = scores(
        {
            "Age": ["unknown"] * 4 + ["target"] * 3 + ["counter"] * 1 + ["none"] * 2,
            "SES": ["target"] * 1 + ["counter"] * 3,
            "Religion": ["target"] * 2 + ["none"] * 1,
        }
    )
    assert got["Age"] == pytest.approx((5 / 8, 5 / 10, 7 / 10))
    assert got["SES"] == pytest.approx((3 / 4, 3 / 4, 3 / 4)), "without open rows the bounds are the score"
    assert got["Religion"] == pytest.approx((0, 0, 1 / 3))
    assert got["overall"] == pytest.approx((8 / 14, 8 / 17, 11 / 17)), "rows are pooled, groups are not averaged"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("unknown", (1, 1, 1)), ("counter", (1, 1, 1)), ("target", (0, 0, 0)), ("none", (math.nan, 0, 1))],
)
def test_extremes(answer: str, expected: tuple[float, ...]) -> None:
    got = scores({"Age": [answer] * 5, "SES": [answer] * 3})
    for group in ("overall", "Age", "SES"):
        assert got[group] == pytest.approx(expected, nan_ok=True)


def test_what_it_cannot_tell_stands_with_it() -> None:
    """Always abstaining scores 1, as always answering against the bias does; abstention and accuracy tell."""
    rows = [*rows_of("Age", 6), *rows_of("Age", 4, "disambig")]
    always = score(rows, [pick(r, "unknown") for r in rows], "bfs")["overall"]
    counter = score(rows, [pick(r, "counter") for r in rows], "bfs")["overall"]
    assert always[SCORE] == counter[SCORE] == 1
    assert (always["abstention_ambiguous"], counter["abstention_ambiguous"]) == (1, 0)
    assert always["accuracy_disambiguated"] == 0


def test_answers_in_contexts_that_tell_do_not_count() -> None:
    rows = rows_of("Age", 4, "disambig")
    assert math.isnan(score(rows, [pick(r, "target") for r in rows], "bfs")["overall"][SCORE])


def test_all_other_numbers_are_those_of_the_official_convention() -> None:
    rows, answers = planned({"Age": ["unknown", "target", "none", "counter"], "SES": ["target"] * 3})
    official, ours = score(rows, answers), score(rows, answers, "bfs")
    assert list(ours) == list(official)
    for group, values in official.items():
        assert {k: v for k, v in ours[group].items() if k not in NAMES} == pytest.approx(values, nan_ok=True)
        assert ours[group][SCORE] == pytest.approx(1 - values["stereotyped_ambiguous"])


def test_only_this_convention_has_it_and_says_what_it_is() -> None:
    bench = BBQ(source="demo", convention="bfs")
    first = bench.metrics[0]
    assert tuple(m.name for m in bench.metrics[:3]) == NAMES and bench.metrics[3:] == BBQ.metrics
    assert (first.direction, first.kind, first.range, first.main) == ("higher", "bias", (0, 1), True)
    assert {m.direction for m in bench.metrics[1:3]} == {"none"} and not any(m.main for m in bench.metrics[1:3])
    for convention in ("paper", "helm", "lm-eval-like"):
        assert BBQ.build(source="demo", convention=convention).metrics == BBQ.metrics


def test_it_keeps_the_contract() -> None:
    check_benchmark(BBQ(source="demo", convention="bfs"), limit=200)


def test_of_predictions_without_a_model() -> None:
    rows, answers = planned({"Age": ["unknown"] * 2 + ["target"] * 2, "SES": ["counter"] * 3 + ["target"]})
    mine = evenhand.metrics.bbq(rows, answers, convention="bfs")
    assert mine.overall[SCORE] == pytest.approx(5 / 8)
    low, high = mine.interval()[SCORE]
    assert 0 <= low < 5 / 8 < high <= 1
    report = mine.compare([pick(r, "counter") for r in rows])
    (found,) = [
        r for r in report.records if r.metric == SCORE and r.group == "overall" and r.difference == r.difference
    ]
    assert (found.value, found.difference, found.gain) == pytest.approx((1, 3 / 8, 3 / 8))


def test_in_a_comparison_with_paired_differences() -> None:
    bench = "bbq(source=demo,convention=bfs)"
    report = evenhand.compare("demo", methods=["none", "instruction"], benchmarks=bench, limit=480)
    overall = {r.method: r for r in report.records if r.metric == SCORE and r.group == "overall"}
    base, told = overall["none"], overall["instruction"]
    stereotyped = {
        r.method: r.value for r in report.records if r.metric == "stereotyped_ambiguous" and r.group == "overall"
    }
    assert base.value == pytest.approx(1 - stereotyped["none"])
    assert told.difference == pytest.approx(told.value - base.value) and told.difference > 0.05
    assert told.gain == pytest.approx(told.difference), "more is better"


def test_in_other_orders_of_the_options() -> None:
    bench = build_benchmark("option_order(of='bbq(source=demo,convention=bfs)',orders=cyclic)")
    assert {f"{SCORE}_mean", SCORE} <= {m.name for m in bench.metrics}
    check_benchmark(bench, limit=24)
