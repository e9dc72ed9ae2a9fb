"""Verdicts: every claim follows the star's test, and none is made where nothing is known."""

from __future__ import annotations

import math
from typing import Any

import pytest

from evenhand.core.records import Record
from evenhand.report.verdict import bias, capability, verdicts
from evenhand.statistics.criteria import Criteria

CRITERIA = Criteria()
CLEAR, UNCLEAR = 0.001, 0.4


def score(before: float, after: float, *, p: float, base: tuple[float, float], now: tuple[float, float]) -> Record:
    return Record(
        model="m",
        method="x",
        benchmark="bbq",
        metric="bias",
        direction="zero",
        kind="bias",
        main=True,
        value=after,
        low=now[0],
        high=now[1],
        difference=after - before,
        gain=abs(before) - abs(after),
        p_holm=p,
        clusters=72,
        baseline="none",
        baseline_low=base[0],
        baseline_high=base[1],
    )


def accuracy(before: float, after: float, *, p: float, loss_high: float, **more: Any) -> Record:
    filled: dict[str, Any] = dict(
        model="m",
        method="x",
        benchmark="bbq",
        metric="accuracy",
        direction="higher",
        kind="capability",
        main=True,
        value=after,
        difference=after - before,
        gain=after - before,
        p_holm=p,
        loss_high=loss_high,
        clusters=72,
        baseline="none",
    )
    return Record(**{**filled, **more})


@pytest.mark.parametrize(
    ("record", "claim"),
    [
        (score(0.36, 0.10, p=CLEAR, base=(0.30, 0.42), now=(0.05, 0.15)), "less bias"),
        (score(-0.36, -0.10, p=CLEAR, base=(-0.42, -0.30), now=(-0.15, -0.05)), "less bias"),
        (score(0.36, 0.50, p=CLEAR, base=(0.30, 0.42), now=(0.45, 0.55)), "more bias"),
        (score(0.01, 0.50, p=CLEAR, base=(-0.05, 0.07), now=(0.45, 0.55)), "more bias"),
        (score(0.36, 0.10, p=UNCLEAR, base=(0.30, 0.42), now=(-0.3, 0.5)), "not shown to differ"),
        (score(0.20, -0.20, p=CLEAR, base=(0.1, 0.3), now=(-0.3, -0.1)), "reversed"),
        (score(0.20, -0.02, p=CLEAR, base=(0.1, 0.3), now=(-0.1, 0.06)), "less bias"),
        # a baseline that is not shown to be biased cannot be shown to be less biased
        (score(-0.001, 0.0, p=UNCLEAR, base=(-0.05, 0.05), now=(-0.02, 0.02)), "not shown to differ"),
        (
            score(0.04, 0.0, p=CLEAR, base=(-0.01, 0.09), now=(0.0, 0.0)),
            "moved, but the baseline is not shown to be biased",
        ),
        (
            score(0.03, -0.05, p=CLEAR, base=(-0.02, 0.08), now=(-0.11, 0.01)),
            "moved, but neither value is shown to differ from 0",
        ),
    ],
)
def test_a_score_that_is_best_at_zero(record: Record, claim: str) -> None:
    assert bias(record, CRITERIA).partition(": ")[2] == claim


@pytest.mark.parametrize(
    ("record", "text"),
    [
        (accuracy(0.684, 0.851, p=0.007, loss_high=-0.1), "accuracy gained (0.684 -> 0.851)"),
        (accuracy(1.0, 0.833, p=0.001, loss_high=0.25), "accuracy lost (-0.167)"),
        (accuracy(0.9, 0.89, p=0.01, loss_high=0.015), "accuracy got worse by less than 0.02 (-0.010)"),
        (accuracy(0.9, 0.899, p=UNCLEAR, loss_high=0.015), "accuracy held (loss below 0.02)"),
        (accuracy(0.9, 0.8, p=UNCLEAR, loss_high=0.3), "accuracy not shown to hold (-0.100)"),
        (
            accuracy(0.9, 0.9, p=1.0, loss_high=0.041, clusters_needed=149),
            "accuracy: cannot tell with 72 clusters whether it held (0.000; a margin of 0.02 needs about 149)",
        ),
    ],
)
def test_capability_is_gained_held_lost_or_unknown(record: Record, text: str) -> None:
    assert capability(record, CRITERIA) == text


def test_the_margin_is_a_setting() -> None:
    record = accuracy(0.9, 0.9, p=1.0, loss_high=0.041, clusters_needed=149)
    assert capability(record, Criteria(margin=0.05)) == "accuracy held (loss below 0.05)"


def sentence(*records: Record) -> str:
    (verdict,) = verdicts(list(records))
    return verdict.text


def test_below_five_clusters_there_is_no_verdict_and_no_star() -> None:
    few = accuracy(1.0, 0.2, p=CLEAR, loss_high=0.9, clusters=4)
    assert sentence(few) == "no verdict with 4 clusters: it takes at least 5"
    assert not CRITERIA.significant(few)
    assert CRITERIA.significant(accuracy(1.0, 0.2, p=CLEAR, loss_high=0.9, clusters=5))


def test_few_clusters_are_said() -> None:
    assert sentence(accuracy(1.0, 0.2, p=CLEAR, loss_high=0.9, clusters=11)).endswith("(few clusters: 11)")
    assert "few" not in sentence(accuracy(1.0, 0.2, p=CLEAR, loss_high=0.9, clusters=12))


def test_right_answers_that_became_wrong_are_said_though_the_score_held() -> None:
    turned = Record(
        model="m", method="x", benchmark="bbq", metric="became_wrong_ambiguous", kind="change", value=0.15, n=100
    )
    most = Record(model="m", method="x", benchmark="bbq", metric="became_wrong_max_ambiguous", kind="change", value=0.3)
    held = accuracy(0.5, 0.5, p=1.0, loss_high=0.01)
    assert sentence(held, turned, most) == (
        "accuracy held (loss below 0.02); 15.0 % of ambiguous items turned from right to wrong"
    )


def test_abstention_is_claimed_by_the_same_test() -> None:
    def said(p: float) -> str:
        abstains = Record(
            model="m",
            method="x",
            benchmark="bbq",
            metric="abstention_disambiguated",
            main=True,
            value=0.4,
            difference=0.3,
            difference_low=0.2,
            p_holm=p,
            clusters=72,
            baseline="none",
        )
        return sentence(accuracy(0.5, 0.5, p=1.0, loss_high=0.01), abstains)

    assert "abstains more where the context answers (+0.300)" in said(CLEAR)
    assert "abstains" not in said(UNCLEAR)


def test_without_a_baseline_there_is_nothing_to_judge() -> None:
    alone = accuracy(math.nan, 0.2, p=math.nan, loss_high=math.nan, baseline="")
    assert sentence(alone) == "nothing to judge: no baseline to compare with"


def test_a_comparison_is_worth_the_clusters_of_the_weaker_side() -> None:
    few = accuracy(1.0, 0.2, p=CLEAR, loss_high=0.9, baseline_clusters=3)
    assert not CRITERIA.significant(few)
    assert sentence(few) == "no verdict with 3 clusters: it takes at least 5"
    assert sentence(accuracy(1.0, 0.2, p=CLEAR, loss_high=0.9, baseline_clusters=8)).endswith("(few clusters: 8)")


def test_answers_that_cannot_be_read_are_said() -> None:
    unparsed = Record(
        model="m",
        method="x",
        benchmark="bbq",
        metric="unparsed",
        direction="lower",
        kind="validity",
        main=True,
        value=0.49,
        difference=0.49,
        p_holm=CLEAR,
        clusters=72,
        baseline="none",
    )
    assert "+0.490 unparsed" in sentence(accuracy(0.5, 0.6, p=CLEAR, loss_high=-0.01), unparsed)
    nothing = accuracy(0.5, math.nan, p=math.nan, loss_high=math.nan)
    assert sentence(nothing) == "nothing to judge: no answer could be read"


def test_a_difference_that_was_not_tested_is_not_called_equal() -> None:
    untested = score(0.0, 1.0, p=math.nan, base=(math.nan, math.nan), now=(0.9, 1.0))
    assert bias(untested, CRITERIA).endswith("not tested, as one of the two values has no interval")


def test_what_would_have_been_found_is_left_out_where_more_was_seen() -> None:
    odd = accuracy(1.0, 0.0, p=UNCLEAR, loss_high=1.0, detectable=0.3)
    big = score(1.0, 0.0, p=UNCLEAR, base=(0.5, 1.0), now=(-0.1, 0.1))
    assert "would have found" not in sentence(odd)
    assert bias(big, CRITERIA).endswith("not shown to differ")


def test_no_number_of_clusters_is_named_where_none_would_do() -> None:
    record = accuracy(0.9, 0.89, p=UNCLEAR, loss_high=0.3, clusters_needed=math.inf)
    assert capability(record, CRITERIA) == "accuracy not shown to hold (-0.010)"
