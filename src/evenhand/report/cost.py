"""Cost of a method compared with its baseline, per item: calls, tokens and time.

The baseline's answers are read in the same way as the method's. For repetitions (seeds, samples, wordings) the
mean is shown.

Calls and tokens are those of the answers (`Usage`). Time is the wall-clock time for asking all items of a benchmark at
once, divided by their number: throughput at this batch size on this machine, not the latency of a single question.
Cached answers count with the time that they took when they were computed.

The manifest has the sums of every cell (`costs`). They become records like all other numbers (`with_costs`), from which
the cost table is made (`costs_in`); for rows without numbers it is made from the manifest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import isnan
from typing import Any, NamedTuple

from evenhand.core.records import BASELINE, NAN, Record, is_baseline
from evenhand.interfaces import Metric

UNCOUNTED = "unknown: the model does not count its calls"
UNTIMED = "unknown: answers were cached by a version that kept no times"
SHORT = "too short to time"
NOTHING_TO_DIVIDE = "no ratio: the baseline's is 0"
LEAST_SECONDS = 1.0
"""Minimum seconds of a timed benchmark: shorter times mostly measure the first batches and other programs."""
COUNTED = ("calls", "prompt_tokens", "new_tokens")
METRICS = (
    Metric("calls_per_item", "lower", "cost", "requests to a model for one item, on average"),
    Metric("prompt_tokens_per_item", "lower", "cost", "tokens that were read for one item, on average"),
    Metric("new_tokens_per_item", "lower", "cost", "tokens that were written for one item, on average"),
    Metric("seconds_per_item", "lower", "cost", "wall-clock time for all items, divided by their number"),
)
"""Metrics of a row's cost; each is a field of `Cost`."""
RATIOS = (
    Metric("calls_ratio", "lower", "cost", "calls per item divided by the baseline's"),
    Metric("prompt_tokens_ratio", "lower", "cost", "prompt tokens per item divided by the baseline's"),
    Metric("new_tokens_ratio", "lower", "cost", "new tokens per item divided by the baseline's"),
    Metric("seconds_ratio", "lower", "cost", "seconds per item divided by the baseline's"),
)
"""Cost as a multiple of the baseline's; baselines have none."""
COST_NAMES = frozenset(metric.name for metric in (*METRICS, *RATIOS))


class Cost(NamedTuple):
    """Cost of one (model, method, benchmark); every number is per item, and nan if unknown."""

    model: str
    method: str
    benchmark: str
    items: int
    calls: float
    prompt_tokens: float
    new_tokens: float
    seconds: float
    extra_calls: float = NAN
    """Calls beyond the baseline's; the other `extra_*` fields are differences in the same way."""
    extra_prompt_tokens: float = NAN
    extra_new_tokens: float = NAN
    extra_seconds: float = NAN
    note: str = ""
    """Why the time is unknown."""
    baseline: str = ""
    """Row that is subtracted; "" for a baseline itself and if there is none."""


def costs(manifest: Mapping[str, Any]) -> list[Cost]:
    """Read the costs of all finished rows of a run, in the order of the run."""
    cells: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for usage in manifest.get("usage", []):
        if usage.get("items"):
            cells.setdefault((usage["model"], usage["method"], usage["benchmark"]), []).append(usage)
    found = {key: _of(repetitions) for key, repetitions in cells.items()}
    out = []
    for (model, method, benchmark), cost in found.items():
        baseline = cells[model, method, benchmark][0].get("baseline") or BASELINE
        out.append(cost if is_baseline(method) else _beside(cost, found.get((model, baseline, benchmark))))
    return out


def cost_records(rows: Sequence[Cost]) -> list[Record]:
    """Make records of the costs of all rows, without intervals, since their variation between clusters is unknown."""
    known = {(c.model, c.method, c.benchmark): c for c in rows}
    return [r for c in rows for r in _records(c, known.get((c.model, c.baseline, c.benchmark)))]


def with_costs(records: Sequence[Record], rows: Sequence[Cost]) -> list[Record]:
    """Append the costs of a run's rows to its numbers.

    Args:
        records: All other records. A row without numbers has one that says why, and gets no records of its cost.
        rows: Costs of the rows.
    """
    measured = {(r.model, r.method, r.benchmark) for r in records if r.has_numbers}
    return [*records, *(r for r in cost_records(rows) if (r.model, r.method, r.benchmark) in measured)]


def costs_in(records: Iterable[Record]) -> list[Cost]:
    """Restore the costs from which `cost_records` made these records, in order."""
    rows: dict[tuple[str, str, str], dict[str, Record]] = {}
    for r in records:
        if is_cost(r):
            rows.setdefault((r.model, r.method, r.benchmark), {})[r.metric] = r
    return [_cost(row, mine) for row, mine in rows.items()]


def is_cost(record: Record) -> bool:
    """Whether a record is the cost of a row. A benchmark's own metrics of kind "cost" are not."""
    return record.kind == "cost" and record.metric in COST_NAMES


def seconds_per_item(usage: Mapping[str, Any]) -> float | None:
    """Return the time per item of one cell; None if it is unknown.

    Args:
        usage: The manifest's facts of the cell.
    """
    seconds = _of([usage]).seconds
    return None if isnan(seconds) else seconds


def _records(cost: Cost, base: Cost | None) -> Iterator[Record]:
    like = Record(
        model=cost.model,
        method=cost.method,
        benchmark=cost.benchmark,
        n=float(cost.items),
        baseline=cost.baseline,
        direction="lower",
        kind="cost",
    )
    numbers = cost._asdict()
    for metric, ratio in zip(METRICS, RATIOS, strict=True):
        field = metric.name.removesuffix("_per_item")
        value, more = numbers[field], numbers[f"extra_{field}"]
        note = _unknown(cost, field)
        yield replace(like, metric=metric.name, value=value, difference=more, gain=-more, note=note)
        if base is not None:
            before = base._asdict()[field]
            times = value / before if before else NAN
            why = note or _unknown(base, field) or (NOTHING_TO_DIVIDE if not before else "")
            yield replace(like, metric=ratio.name, value=times, note=why)


def _unknown(cost: Cost, field: str) -> str:
    """Return why a number is unknown; "" if it is known."""
    if not isnan(cost._asdict()[field]):
        return ""
    return cost.note if field == "seconds" else UNCOUNTED


def _cost(row: tuple[str, str, str], records: Mapping[str, Record]) -> Cost:
    """Restore the cost of one row from its records by metric; metrics without a record are unknown."""
    like = next(iter(records.values()))
    found = [records.get(m.name, replace(like, value=NAN, difference=NAN, note=UNTIMED)) for m in METRICS]
    calls, prompt_tokens, new_tokens, seconds = (r.value for r in found)
    more_calls, more_prompt_tokens, more_new_tokens, more_seconds = (r.difference for r in found)
    return Cost(
        *row,
        int(like.n),
        calls,
        prompt_tokens,
        new_tokens,
        seconds,
        more_calls,
        more_prompt_tokens,
        more_new_tokens,
        more_seconds,
        found[-1].note,
        like.baseline,
    )


def _of(repetitions: Sequence[Mapping[str, Any]]) -> Cost:
    """Return the mean cost of cells that repeat one another."""
    first, asked = repetitions[0], sum(usage["items"] for usage in repetitions)
    saved = [usage.get("seconds_saved") for usage in repetitions]
    seconds = NAN if None in saved else sum(u["seconds"] + u["seconds_saved"] for u in repetitions)
    counted = all(usage["calls"] for usage in repetitions)
    calls, prompt_tokens, new_tokens = (
        sum(usage[name] for usage in repetitions) / asked if counted else NAN for name in COUNTED
    )
    note = UNTIMED if None in saved else SHORT if seconds < LEAST_SECONDS else ""
    return Cost(
        first["model"],
        first["method"],
        first["benchmark"],
        first["items"],
        calls,
        prompt_tokens,
        new_tokens,
        NAN if note else seconds / asked,
        note=note,
    )


def _beside(cost: Cost, base: Cost | None) -> Cost:
    if base is None:
        return cost
    own, other = cost._asdict(), base._asdict()
    more = {f"extra_{n}": own[n] - other[n] for n in (*COUNTED, "seconds")}
    return cost._replace(**more, baseline=base.method)
