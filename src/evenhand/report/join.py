"""Several runs as one report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evenhand.core.records import Record
from evenhand.errors import SettingsError
from evenhand.report.answers import Source
from evenhand.report.cost import is_cost
from evenhand.report.provenance import SETTINGS

if TYPE_CHECKING:
    from evenhand.report.analysis import Analysis

Row = tuple[str, str, str]
"""Model, method and benchmark."""
OWN = ("command", "started", "seconds", "seed", "git", "versions", "train", "train_source", "applied", *SETTINGS)
"""Facts that each run has for itself; a joined report lists them by run."""
JUDGED = ("alpha", "margin", "family")


def joined(
    reports: Sequence[Analysis], names: Sequence[str] = ()
) -> tuple[list[Record], dict[str, Any], Path | None, list[Source]]:
    """What a report of several runs is made of: records, facts, no folder, and the runs.

    Args:
        reports: At least two.
        names: Labels of the runs.

    Raises:
        SettingsError: As `Report.join`.
    """
    labels = _labels(reports, names)
    _same_statistics(reports, labels)
    records: list[Record] = []
    sources: list[Source] = []
    seen: dict[Row, str] = {}
    facts: dict[str, Any] = {
        "runs": [],
        "usage": [],
        "unanswered": [],
        "between_methods": [],
        "models": {},
        "benchmarks": {},
    }
    for report, label in zip(reports, labels, strict=True):
        renamed = _renamed(report, label, seen)
        own = {(r.model, r.method, r.benchmark) for r in report.records}
        new = {row for row in own if _as_shown(row, renamed) not in seen}
        records += [_moved(r, renamed) for r in report.records if (r.model, r.method, r.benchmark) in new]
        seen |= {_as_shown(row, renamed): _identity(report, row) for row in own}
        sources.append(Source(label, report.folder, report.manifest, renamed))
        _add_facts(facts, report, renamed, new, label)
    first = reports[0]
    made = {**first.manifest, **facts, "demo": any(r.demo for r in reports)}
    kept = [r for r in records if is_cost(r)]
    return [*first.criteria.adjusted([r for r in records if not is_cost(r)]), *kept], made, None, sources


def _labels(reports: Sequence[Analysis], names: Sequence[str]) -> list[str]:
    if len(reports) < 2:
        raise SettingsError(f"{len(reports)} report: give at least two to join")
    if names and len(names) != len(reports):
        raise SettingsError(f"{len(names)} names for {len(reports)} reports; give one each")
    own = [r.folder.name if r.folder is not None else "" for r in reports]
    usable = all(own) and len(set(own)) == len(own)
    labels = list(names) or (own if usable else [f"run {n}" for n in range(1, len(reports) + 1)])
    if len(set(labels)) < len(labels) or not all(labels):
        raise SettingsError(f"names={labels}: give every run a name of its own")
    return labels


def _same_statistics(reports: Sequence[Analysis], labels: Sequence[str]) -> None:
    for report, label in zip(reports, labels, strict=True):
        for name in JUDGED:
            ours, theirs = reports[0].criteria.facts[name], report.criteria.facts[name]
            if ours != theirs:
                raise SettingsError(
                    f"{label} was judged with {name}={theirs}, {labels[0]} with {name}={ours}; run the command of one "
                    f"of them again with {name}={ours}, which asks no model anew"
                )


def _identity(report: Analysis, row: Row) -> str:
    """What a row is made of: its items, its answers' keys and its numbers.

    The numbers are needed, too: an endpoint may answer otherwise under the same key.
    """
    used = [u for u in report.manifest.get("usage", []) if (u["model"], u["method"], u["benchmark"]) == row]
    contents = report.manifest.get("benchmarks", {}).get(row[2], {}).get("contents", "")
    keys = sorted(f"{u.get('variant')} {u.get('answers', '')}" for u in used)
    mine = [r for r in report.numbers if (r.model, r.method, r.benchmark) == row]
    numbers = sorted(f"{r.metric} {r.group} {r.value} {r.n} {r.status}" for r in mine)
    return f"{contents} {keys} {numbers}"


def _renamed(report: Analysis, label: str, seen: Mapping[Row, str]) -> dict[str, str]:
    """New names of the models of which a row stands there already, and is another one."""
    rows = {(r.model, r.method, r.benchmark) for r in report.records}
    clashing = {row[0] for row in rows if row in seen and seen[row] != _identity(report, row)}
    return {model: f"{model} @ {label}" for model in sorted(clashing)}


def _as_shown(row: Row, renamed: Mapping[str, str]) -> Row:
    return renamed.get(row[0], row[0]), row[1], row[2]


def _moved(record: Record, renamed: Mapping[str, str]) -> Record:
    return replace(record, model=renamed.get(record.model, record.model))


def _add_facts(facts: dict[str, Any], report: Analysis, renamed: Mapping[str, str], new: set[Row], label: str) -> None:
    """What the manifest of the joined report says of one run."""
    manifest = report.manifest
    folder = {"name": label, "folder": "" if report.folder is None else str(report.folder)}
    facts["runs"].append({**folder, **{k: manifest[k] for k in OWN if k in manifest}})
    facts["models"] |= {renamed.get(name, name): own for name, own in manifest.get("models", {}).items()}
    facts["benchmarks"] = {**manifest.get("benchmarks", {}), **facts["benchmarks"]}
    for name in ("usage", "unanswered"):
        facts[name] += list(_entries(manifest.get(name, []), renamed, new))
    for entry in manifest.get("between_methods", []):
        if (entry.get("model"), entry.get("method"), entry.get("benchmark")) in new:
            facts["between_methods"].append({**entry, "model": renamed.get(entry["model"], entry["model"])})
    facts["methods"] = []  # every run had methods of its own, so none of them is missing in another
    facts["models_left"] = []


def _entries(
    entries: Sequence[Mapping[str, Any]], renamed: Mapping[str, str], new: set[Row]
) -> Iterator[dict[str, Any]]:
    for entry in entries:
        if (entry["model"], entry["method"], entry["benchmark"]) in new:
            yield {**entry, "model": renamed.get(entry["model"], entry["model"])}
