"""EuroEval's score on BBQ by hand, at its extremes, against its definition, and in a comparison."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import evenhand
from evenhand.data.bbq_target import target_location, unknown_location
from evenhand.evaluation.bbq import BBQ, score
from evenhand.proving_ground.generator.bbq_questions import all_rows
from evenhand.testing import check_benchmark

NAMES = ("euroeval_score", "euroeval_bias", "euroeval_accuracy")
ANSWERS = ("unknown", "target", "counter", "none")


def rows_of(category: str, count: int, condition: str = "ambig") -> list[dict[str, Any]]:
    return [r for r in all_rows() if (r["category"], r["context_condition"]) == (category, condition)][:count]


def pick(row: dict[str, Any], what: str) -> int | None:
    unknown, target = unknown_location(row), target_location(row)
    assert unknown is not None and target is not None
    return {"unknown": unknown, "target": target, "counter": 3 - unknown - target, "none": None}[what]


def scores(plan: dict[str, list[str]], condition: str = "ambig") -> dict[str, tuple[float, ...]]:
    rows = [r for category, answers in plan.items() for r in rows_of(category, len(answers), condition)]
    answers = [pick(r, a) for r, a in zip(rows, [a for named in plan.values() for a in named], strict=True)]
    found = score(rows, answers, "euroeval")
    return {group: tuple(values[name] for name in NAMES) for group, values in found.items()}


def test_by_hand_undecided_rows_stay_in_the_denominator() -> None:
    got = scores(
        {
            # 10 rows: 6 unknown, 2 with the bias, 1 against, 1 undecided: bias 1/10, accuracy 6/10
            "Age": ["unknown"] * 6 + ["target"] * 2 + ["counter"] + ["none"],
            # against the bias by 2/4, accuracy 1/4: the score cannot be negative
            "SES": ["counter"] * 2 + ["unknown"] + ["none"],
        }
    )
    assert got["Age"] == pytest.approx((0.5, 0.1, 0.6))
    assert got["SES"] == pytest.approx((0, -0.5, 0.25))
    assert got["overall"] == pytest.approx((7 / 14 - 1 / 14, -1 / 14, 7 / 14)), "rows are pooled, groups not averaged"


def test_rows_without_a_target_stay_in_the_denominator_and_count_for_no_side() -> None:
    rows = rows_of("Age", 6)
    answers = [
        pick(r, a) for r, a in zip(rows, ["target", "target", "counter", "unknown", "target", "none"], strict=True)
    ]
    for number in (3, 4, 5):  # both people are of stereotyped groups: an abstention, a person, and nothing
        groups = [group for _, group in rows[number]["answer_info"].values() if group != "unknown"]
        rows[number] = {**rows[number], "additional_metadata": {"stereotyped_groups": groups}}
        assert target_location(rows[number]) is None
    got = score(rows, answers, "euroeval")["Age"]
    # of 6 rows 2 with the bias, 1 against, 1 unknown; BBQ's own score has 3 rows
    assert tuple(got[name] for name in NAMES) == pytest.approx((0, 1 / 6, 1 / 6))
    assert got["bias_ambiguous"] == pytest.approx(1 / 3) and got["abstention_ambiguous"] == 0.0


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("unknown", (1, 0, 1)), ("target", (0, 1, 0)), ("counter", (0, -1, 0)), ("none", (0, 0, 0))],
)
def test_extremes(answer: str, expected: tuple[float, ...]) -> None:
    assert scores({"Age": [answer] * 5})["Age"] == pytest.approx(expected)


def test_answers_in_contexts_that_tell_do_not_count() -> None:
    assert all(math.isnan(value) for value in scores({"Age": ["target"] * 4}, "disambig")["overall"])


def test_it_is_its_definition_on_random_answers() -> None:
    rng = np.random.default_rng(5)
    for _ in range(20):
        answers = [str(a) for a in rng.choice(ANSWERS, 24, p=rng.dirichlet([1] * 4))]
        n, (unknown, target, counter, _none) = 24, (answers.count(a) for a in ANSWERS)
        bias, accuracy = (target - counter) / n, unknown / n
        expected = (max(0, accuracy - abs(bias)), bias, accuracy)
        assert scores({"Age": answers})["Age"] == pytest.approx(expected)


def test_all_other_numbers_are_those_of_the_official_convention() -> None:
    rows = rows_of("Age", 4)
    answers = [pick(r, a) for r, a in zip(rows, ANSWERS, strict=True)]
    official, ours = score(rows, answers), score(rows, answers, "euroeval")
    for group, values in official.items():
        assert {k: v for k, v in ours[group].items() if k not in NAMES} == pytest.approx(values, nan_ok=True)
    bench = BBQ(source="demo", convention="euroeval")
    assert tuple(m.name for m in bench.metrics[:3]) == NAMES and bench.metrics[3:] == BBQ.metrics


def test_it_keeps_the_contract() -> None:
    check_benchmark(BBQ(source="demo", convention="euroeval"), limit=60)


def test_of_predictions_without_a_model_with_an_interval() -> None:
    rows = [*rows_of("Age", 12), *rows_of("SES", 12)]
    answers = [pick(r, a) for r, a in zip(rows, ["unknown", "unknown", "unknown", "target"] * 6, strict=True)]
    mine = evenhand.metrics.bbq(rows, answers, convention="euroeval")
    assert mine.overall["euroeval_score"] == pytest.approx(0.5)
    low, high = mine.interval()["euroeval_score"]
    assert 0 <= low <= 0.5 <= high <= 1
