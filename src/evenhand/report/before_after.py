"""Main metrics of one method and its baseline in a run, before and after, for a model card."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from evenhand.core.records import Record, is_baseline
from evenhand.core.sinks import markdown
from evenhand.core.text_output import count, interval, number
from evenhand.errors import SettingsError
from evenhand.report.saved_model import SavedModel
from evenhand.report.text import ARROWS_MEAN, headed, intervals_mean, metric_name

if TYPE_CHECKING:
    from evenhand.report.analysis import Analysis
    from evenhand.report.leaderboard import GroupLoss

MAX_GROUPS = 5
"""Maximum number of groups that got worse in the list; the run has all of them."""


class Measured(NamedTuple):
    """One main metric before and after, as Markdown."""

    benchmark: str
    metric: str
    before: str
    after: str
    difference: str
    p: str
    """p after Holm's adjustment."""


def rows_of(report: Analysis, found: SavedModel, method: str, model: str) -> list[Record]:
    """Return the run's numbers of the folder's method on the folder's base."""
    prints = {name: str(facts.get("fingerprint", "")) for name, facts in report.manifest.get("models", {}).items()}
    names = [model] if model else [n for n, own in prints.items() if not found.fingerprint or own == found.fingerprint]
    if not names or (found.fingerprint and prints.get(names[0], found.fingerprint) != found.fingerprint):
        said = ", ".join(f"{name} ({own or 'not known'})" for name, own in prints.items()) or "no model"
        raise SettingsError(
            f"the run is about another model than that in {found.folder}, whose base has the fingerprint "
            f"{found.fingerprint or 'not known'}: the run has {said}; compare the method on that base first"
        )
    wanted = method or found.spec
    numbers = [r for r in report.numbers if r.model == names[0] and r.has_numbers]
    mine = [r for r in numbers if r.method == wanted]
    if not mine or is_baseline(wanted):
        there = ", ".join(dict.fromkeys(r.method for r in numbers if not is_baseline(r.method))) or "none"
        raise SettingsError(
            f"the run has no numbers of {wanted} on {names[0]}; its methods there: {there}. Name the folder's own with "
            "method= (--method), or compare it first"
        )
    return mine


def before_after(report: Analysis, rows: Sequence[Record]) -> list[Measured]:
    """Return the main metrics of the method and of its baseline."""
    before = {(r.model, r.method, r.benchmark, r.metric): r for r in report.numbers if r.group == "overall"}
    found = []
    for r in rows:
        if not r.main or r.group != "overall":
            continue
        base = before.get((r.model, r.baseline, r.benchmark, r.metric))
        star, better = report.criteria.significant(r), r.gain > 0
        after = f"**{number(r.value)}**" if star and better else number(r.value)
        found.append(
            Measured(
                r.benchmark,
                headed(metric_name(r.metric), r.direction),
                "–" if base is None else _valued(number(base.value), base.low, base.high),
                _valued(after, r.low, r.high) + (r" \*" if star else ""),
                _valued(number(r.difference, signed=True), r.difference_low, r.difference_high, signed=True),
                _p(r.p_holm),
            )
        )
    return found


def _p(value: float) -> str:
    return "&lt; 0.001" if value < 0.001 else number(value)


def _valued(value: str, low: float, high: float, *, signed: bool = False) -> str:
    return f"{value} {markdown(interval(low, high, signed=signed))}".rstrip()


def run_facts(report: Analysis, rows: Sequence[Record]) -> dict[str, Any]:
    """Return the facts that the card shows next to the numbers of a run."""
    model, method = rows[0].model, rows[0].method
    said = [v for v in (*report.verdicts(), *report.untold()) if (v.model, v.method) == (model, method)]
    line = next((row for row in report.leaderboard().rows if (row.model, row.method) == (model, method)), None)
    worse = () if line is None else line.got_worse
    facts = report.manifest
    return {
        "method": method,
        "verdicts": said,
        "worse": list(map(_loss, worse[:MAX_GROUPS])),
        "more": max(0, len(worse) - MAX_GROUPS),
        "asked": [*_asked(report, rows)],
        "means": f"{intervals_mean(report.criteria)}; {ARROWS_MEAN}. Bold: better than before",
        "trained_anew": [
            made for made in facts.get("applied", []) if made.get("training") and made["method"] == method
        ],
        "train_source": facts.get("train_source", ""),
        "demo": report.demo,
        "seed": facts.get("seed", 0),
        "version": facts.get("versions", {}).get("evenhand", "?"),
    }


def _asked(report: Analysis, rows: Sequence[Record]) -> Iterator[str]:
    """Return for each benchmark how many items were asked, and with how many calls compared with the baseline."""
    ratios = {
        r.benchmark: r.value
        for r in report.records
        if (r.model, r.method, r.metric) == (rows[0].model, rows[0].method, "calls_ratio")
    }
    benchmarks = report.manifest.get("benchmarks", {})
    for benchmark in dict.fromkeys(r.benchmark for r in rows):
        ratio = ratios.get(benchmark, math.nan)
        calls = "" if math.isnan(ratio) else f" with {number(ratio, decimals=2)} times the baseline's calls"
        items = benchmarks.get(benchmark, {}).get("asked")
        yield f"{'items' if items is None else f'{count(items)} items'} of {benchmark}{calls}"


def _loss(loss: GroupLoss) -> str:
    star = ", which differs after Holm's adjustment" if loss.significant else ", not shown to differ"
    change = f"{number(loss.before)} → {number(loss.after)}"
    return f"{loss.group} ({loss.benchmark}): {metric_name(loss.metric)} {change}{star}"
