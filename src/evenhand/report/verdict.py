"""Verdicts in words: did a method lower bias, did it keep capability, or does it merely abstain?

Every claim uses the test that sets the star (`Criteria.significant`), so the two cannot contradict one another.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, isnan
from typing import NamedTuple

from evenhand.core.records import Record, is_baseline
from evenhand.core.text_output import count, number, percent
from evenhand.report.text import metric_name
from evenhand.statistics.criteria import CRITERIA, FEW_CLUSTERS, MIN_CLUSTERS, Criteria, fewest_clusters


class Verdict(NamedTuple):
    """Verdict on one (model, method, benchmark)."""

    model: str
    method: str
    benchmark: str
    text: str


def verdicts(records: Sequence[Record], criteria: Criteria = CRITERIA) -> list[Verdict]:
    """Write a sentence or two for every row except baselines, from its overall main metrics."""
    cells: dict[tuple[str, str, str], list[Record]] = {}
    for r in records:
        if not is_baseline(r.method):
            cells.setdefault((r.model, r.method, r.benchmark), []).append(r)
    return [Verdict(*key, _sentence(rows, criteria)) for key, rows in cells.items()]


def _sentence(rows: Sequence[Record], criteria: Criteria) -> str:
    first = rows[0]
    if first.status in ("failed", "not applicable", "no effect"):
        return f"{first.status}: {first.note}"
    overall = [r for r in rows if r.group == "overall"]
    main = [r for r in overall if r.main and r.kind in ("bias", "capability") and r.direction != "none"]
    compared = [r for r in main if not isnan(r.difference)]
    if not compared:
        return f"nothing to judge: {_why_nothing(main)}"
    judged = [r for r in compared if fewest_clusters(r) >= MIN_CLUSTERS]
    if not judged:
        return f"no verdict with {_clusters(compared[0])}: it takes at least {MIN_CLUSTERS}"
    parts = [bias(r, criteria) for r in judged if r.kind == "bias"]
    parts += [capability(r, criteria) for r in judged if r.kind == "capability"]
    parts += _unreadable(overall, criteria) + _turned_wrong(overall, criteria) + _abstention(overall, criteria)
    fewest = min(map(fewest_clusters, judged))
    few = f" (few clusters: {fewest})" if fewest < FEW_CLUSTERS else ""
    return "; ".join(parts) + few


def _why_nothing(main: Sequence[Record]) -> str:
    if not main:
        return "no main metric"
    if not any(r.baseline for r in main):
        return "no baseline to compare with"
    return "no answer could be read" if all(isnan(r.value) for r in main) else "the baseline has no value"


def _unreadable(overall: Sequence[Record], criteria: Criteria) -> list[str]:
    """List increases in answers without a decision, since all other numbers then rest on a selection."""
    return [
        f"{number(r.difference, signed=True)} {metric_name(r.metric)}"
        for r in overall
        if r.main and r.kind == "validity" and r.direction == "lower" and r.difference > 0 and criteria.significant(r)
    ]


def bias(r: Record, criteria: Criteria) -> str:
    """Describe how a metric of bias changed."""
    change = f"{metric_name(r.metric)} {number(r.value - r.difference)} -> {number(r.value)}"
    return f"{change}: {_bias_claim(r, criteria)}"


def less_bias(r: Record, criteria: Criteria) -> bool:
    """Whether a verdict claims that a method lowered this metric of bias."""
    return _bias_claim(r, criteria) == "less bias"


def lost(r: Record, criteria: Criteria) -> bool:
    """Whether a metric of capability is shown to have got worse, possibly by more than the margin."""
    return criteria.significant(r) and r.gain < 0 and not r.loss_high < criteria.margin


def _bias_claim(r: Record, criteria: Criteria) -> str:
    if isnan(r.p_holm):
        return "not tested, as one of the two values has no interval"
    if not criteria.significant(r):
        return f"not shown to differ{_found(r)}"
    if r.direction != "zero":
        return "less bias" if r.gain > 0 else "more bias"
    biased_before, biased_after = _excludes_zero(r.baseline_low, r.baseline_high), _excludes_zero(r.low, r.high)
    before = r.value - r.difference
    if biased_before and biased_after and before * r.value < 0:
        return "reversed"
    if abs(r.value) > abs(before):
        return "more bias" if biased_after else "moved, but neither value is shown to differ from 0"
    return "less bias" if biased_before else "moved, but the baseline is not shown to be biased"


def capability(r: Record, criteria: Criteria) -> str:
    """Describe how a metric of capability changed: gained, held, lost, or unknown."""
    name, change = metric_name(r.metric), number(r.difference, signed=True)
    held = r.loss_high < criteria.margin
    if criteria.significant(r):
        if r.gain > 0:
            return f"{name} gained ({number(r.value - r.difference)} -> {number(r.value)})"
        return f"{name} got worse by less than {criteria.margin:g} ({change})" if held else f"{name} lost ({change})"
    if held:
        return f"{name} held (loss below {criteria.margin:g})"
    if not isfinite(r.clusters_needed):
        return f"{name} not shown to hold ({change})"
    needed = f"a margin of {criteria.margin:g} needs about {count(r.clusters_needed)}"
    return f"{name}: cannot tell with {_clusters(r)} whether it held ({change}; {needed})"


def _turned_wrong(overall: Sequence[Record], criteria: Criteria) -> list[str]:
    """List the shares of right answers that became wrong, even if as many wrong ones became right."""
    return [
        turned_wrong(r.metric, r.value)
        for r in overall
        if r.metric.startswith("became_wrong") and "_max" not in r.metric and r.value >= criteria.margin
    ]


def turned_wrong(metric: str, share: float) -> str:
    """Describe a share of items that became wrong.

    Args:
        metric: "became_wrong", or "became_wrong_PART" for a share of the items of one part of a benchmark.
        share: Value of the metric.
    """
    part = metric.removeprefix("became_wrong").removeprefix("_")
    return f"{percent(share)} of{f' {part}' if part else ''} items turned from right to wrong"


def _abstention(overall: Sequence[Record], criteria: Criteria) -> list[str]:
    """Report more abstention where the context gives the answer, which tells debiasing from mere abstaining."""
    return [
        f"abstains more where the context answers ({number(r.difference, signed=True)})"
        for r in overall
        if r.metric == "abstention_disambiguated" and criteria.significant(r) and r.difference > 0
    ]


def _found(r: Record) -> str:
    if isnan(r.detectable) or abs(r.difference) >= r.detectable:
        return ""  # a large difference carried by few or uneven clusters
    return f" (would have found a difference of {number(r.detectable)})"


def _clusters(r: Record) -> str:
    count = fewest_clusters(r)
    return f"{count} cluster{'s' if count != 1 else ''}"


def _excludes_zero(low: float, high: float) -> bool:
    return low > 0 or high < 0
