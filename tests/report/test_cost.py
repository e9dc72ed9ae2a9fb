"""What a method cost beside the untouched model: per item, with the cache's savings added back."""

from __future__ import annotations

import math
from typing import Any

import pytest

from evenhand.core.text_output import duration
from evenhand.report.blocks import cost_block
from evenhand.report.cost import LEAST_SECONDS, SHORT, UNTIMED, Cost, costs


def usage(method: str, calls: int, seconds: float, saved: float | None = 0.0, **more: Any) -> dict[str, Any]:
    row: dict[str, Any] = dict(
        model="m",
        method=method,
        benchmark="b",
        items=40,
        calls=calls,
        prompt_tokens=10 * calls,
        new_tokens=calls // 2,
        seconds=seconds,
        seconds_saved=saved,
    )
    return {**row, **more}


def test_costs_are_per_item_and_beside_the_untouched_model_of_the_same_benchmark() -> None:
    rows = [
        usage("none", 40, 8.0),
        usage("twice", 80, 6.0, saved=7.5),  # half of its requests were the untouched model's
        usage("none", 40, 2.0, benchmark="other", items=20),
        usage("twice", 120, 10.0, benchmark="other", items=20),
    ]
    base, twice, _, other = costs({"usage": rows})
    assert (base.calls, base.prompt_tokens, base.new_tokens, base.seconds) == (1, 10, 0.5, 0.2)
    assert math.isnan(base.extra_calls) and math.isnan(base.extra_seconds)
    assert (twice.calls, twice.extra_calls, twice.extra_prompt_tokens, twice.extra_new_tokens) == (2, 1, 10, 0.5)
    assert twice.seconds == pytest.approx(13.5 / 40) and twice.extra_seconds == pytest.approx(5.5 / 40)
    assert other.extra_calls == 4 and other.extra_seconds == pytest.approx(8 / 20)


@pytest.mark.parametrize(
    ("row", "note"),
    [
        (usage("x", 40, 5.0, saved=None), UNTIMED),
        ({k: v for k, v in usage("x", 40, 5.0).items() if k != "seconds_saved"}, UNTIMED),
        (usage("x", 40, LEAST_SECONDS / 2, saved=LEAST_SECONDS / 4), SHORT),
    ],
)
def test_a_time_that_is_not_known_is_left_out_with_the_reason(row: dict[str, Any], note: str) -> None:
    base, cost = costs({"usage": [usage("none", 40, 8.0), row]})
    assert base.note == "" and cost.note == note
    assert math.isnan(cost.seconds) and math.isnan(cost.extra_seconds) and cost.extra_calls == 0
    (block,) = cost_block([base, cost])
    assert [r[-1] for r in block.rows] == ["200 ms", note]


def test_saved_seconds_count_towards_the_least_time() -> None:
    (cost,) = costs({"usage": [usage("none", 40, 0.1, saved=LEAST_SECONDS)]})
    assert cost.seconds == pytest.approx((0.1 + LEAST_SECONDS) / 40)


def test_without_an_untouched_model_or_counts_nothing_is_made_up() -> None:
    alone, uncounted = costs({"usage": [usage("x", 80, 8.0), usage("y", 0, 8.0)]})
    assert alone.calls == 2 and math.isnan(alone.extra_calls)
    assert math.isnan(uncounted.calls) and uncounted.seconds == pytest.approx(0.2)
    assert costs({}) == [] and cost_block([]) == []


def test_the_block_shows_what_is_more_and_what_is_less() -> None:
    rows = [usage("none", 40, 8.0), usage("less", 20, 2.0), usage("more", 160, 400.0)]
    (block,) = cost_block(costs({"usage": rows}))
    assert block.rows == [
        ("none", "1.00", "10.0", "0.5", "200 ms"),
        ("less", "0.50 (-0.50)", "5.0 (-5.0)", "0.2 (-0.2)", "50 ms (-150 ms)"),
        ("more", "4.00 (+3.00)", "40.0 (+30.0)", "2.0 (+1.5)", "10 s (+9.8 s)"),
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 µs"),
        (2.5e-5, "25 µs"),
        (0.0009996, "1 ms"),
        (0.01234, "12.3 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1 s"),
        (99.94, "99.9 s"),
        (99.96, "100 s"),
        (1234.5, "1,234 s"),
        (math.nan, "–"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("extra", "text"),
    [(-0.01, "1.0 (+0.0)"), (0.0, "1.0 (+0.0)"), (0.01, "1.0 (+0.0)"), (-0.06, "1.0 (-0.1)"), (0.3, "1.0 (+0.3)")],
)
def test_what_is_written_as_zero_has_no_minus_sign(extra: float, text: str) -> None:
    cost = Cost("m", "x", "b", 4, 1.0, 1.0, 1.0, 1.0, extra_calls=extra / 10, extra_prompt_tokens=extra)
    cells = cost_block([cost])[0].rows[0]
    assert cells[2] == text
    assert cells[1] == ("1.00 (+0.00)" if abs(extra) < 0.05 else f"1.00 ({extra / 10:+.2f})")
