"""Notes on rows besides their numbers: why a baseline has none, and which items have no answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from evenhand.core.records import Record, is_baseline
from evenhand.core.text_output import percent
from evenhand.evaluation.metrics.unanswered import Gap
from evenhand.report.verdict import Verdict

LEAST_MASS = 0.5
"""Mean probability of the option letters below which a model does not answer in the requested form."""
NO_DECISION = ("unparsed", "refusal")


def without_numbers(records: Sequence[Record]) -> list[Record]:
    """Return one record of every row without numbers; its note says why."""
    lost = [r for r in records if r.status in ("failed", "not applicable")]
    return list({(r.model, r.method, r.benchmark, r.note): r for r in lost}.values())


def failures(records: Sequence[Record]) -> list[Verdict]:
    """Return why baselines have no numbers; for methods the verdict says it."""
    lost = [r for r in without_numbers(records) if is_baseline(r.method)]
    return [Verdict(r.model, r.method, r.benchmark, f"{r.status}: {r.note}") for r in lost]


def unread(records: Sequence[Record]) -> list[Verdict]:
    """Return why given answers could not be read: cut at the limit, or little probability on the option letters."""
    found = []
    for r in records:
        if r.group != "overall" or not r.has_numbers:
            continue
        name, row = r.metric.partition("_")[0], (r.model, r.method, r.benchmark)
        if name == "cut" and r.value > 0:
            what = f"{percent(r.value)} of the replies were cut at the token limit ({r.metric}); raise max_new_tokens"
            found.append(Verdict(*row, what))
        elif r.metric == "letter_mass" and r.value < LEAST_MASS:
            what = f"the option letters have {percent(r.value)} of the probability on average: the format is ignored"
            found.append(Verdict(*row, what))
        elif r.metric in NO_DECISION and r.value == 1:
            found.append(Verdict(*row, f"no answer could be read ({r.metric} 1.000): other numbers say nothing"))
    return found


def unanswered(manifest: Mapping[str, Any], records: Sequence[Record]) -> list[Verdict]:
    """Count the items of rows with numbers that were never answered, over all repetitions together."""
    numbers = {(r.model, r.method, r.benchmark) for r in records if r.has_numbers}
    gaps: dict[tuple[str, str, str], Gap] = {}
    for entry in manifest.get("unanswered", []):
        row = entry["model"], entry["method"], entry["benchmark"]
        own = Gap(entry["items"], entry["partly"], entry["asked"], entry["first"])
        gaps[row] = gaps[row].joined(own) if row in gaps else own
    return [Verdict(*row, str(gap)) for row, gap in gaps.items() if row in numbers]


def remarked(manifest: Mapping[str, Any], records: Sequence[Record]) -> list[Verdict]:
    """Return the remarks that cast doubt on a row's numbers, each once.

    They were made during asking, with `evenhand.prompting.remarks`.
    """
    numbers = {(r.model, r.method, r.benchmark) for r in records if r.has_numbers}
    found = {
        ((entry["model"], entry["method"], entry["benchmark"]), text): None
        for entry in manifest.get("usage", [])
        for text in entry.get("remarks", ())
    }
    return [Verdict(*row, text) for row, text in found if row in numbers]


def unfinished(
    manifest: Mapping[str, Any], records: Sequence[Record], labels: Mapping[str, str] = MappingProxyType({})
) -> list[str]:
    """Return what the run should compare but has no row of, such as after an interruption; a line per model and method.

    Args:
        manifest: Manifest of the run.
        records: Records of the report, which may have rows of other runs.
        labels: Names of the run's models in the report, if these differ.
    """
    rows = {(r.model, r.method, r.benchmark) for r in records}
    read = {(r.model, r.benchmark) for r in records if is_baseline(r.method)}
    found = []
    for model in (labels.get(own, own) for own in manifest.get("models", {})):
        for method in manifest.get("methods", []):
            lost = [b for b in manifest.get("benchmarks", {}) if (model, method, b) not in rows]
            lost = [b for b in lost if not is_baseline(method) or (model, b) not in read]
            if lost:
                found.append(f"{model}, {method}: not finished on {', '.join(lost)}")
    return [*found, *(f"{model}: not begun" for model in manifest.get("models_left", []))]
