"""Several runs as one report."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evenhand.core.records import Record
from evenhand.errors import SettingsError
from evenhand.report.answers import Source
from evenhand.report.cost import is_cost
from evenhand.report.provenance import SETTINGS
from evenhand.report.rivals import FIELD

if TYPE_CHECKING:
    from evenhand.report.analysis import Analysis

Row = tuple[str, str, str]
"""Model, method and benchmark."""
OWN = ("command", "started", "seconds", "seed", "git", "versions", "train", "train_source", "applied", *SETTINGS)
"""Facts that each run has of its own; a joined report lists them by run."""
BY_ROW = ("usage", "unanswered", FIELD)
"""Facts whose entries belong to single rows."""
JUDGED = ("alpha", "margin", "family")


def joined(
    reports: Sequence[Analysis], names: Sequence[str] = ()
) -> tuple[list[Record], dict[str, Any], Path | None, list[Source]]:
    """Join reports: return the records, the facts, no folder, and the runs.

    Args:
        reports: The reports, at least two.
        names: Labels of the runs.

    Raises:
        SettingsError: As for `Report.join`.
    """
    labels = _labels(reports, names)
    _same_statistics(reports, labels)
    records: list[Record] = []
    sources: list[Source] = []
    seen: dict[Row, str] = {}
    facts: dict[str, Any] = {
        "runs": [],
        **{name: [] for name in BY_ROW},
        "models": {},
        "benchmarks": {},
        "methods": [],  # every run had its own methods, so a method of one is not missing in another
        "models_left": [],
    }
    for report, label in zip(reports, labels, strict=True):
        own = _identities(report)
        renamed = _renamed(own, label, seen)
        new = {row for row in own if _as_shown(row, renamed) not in seen}
        records += [_moved(r, renamed) for r in report.records if (r.model, r.method, r.benchmark) in new]
        seen |= {_as_shown(row, renamed): identity for row, identity in own.items()}
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


def _identities(report: Analysis) -> dict[Row, str]:
    """Identify each row by its items, the keys of its answers and its numbers.

    The numbers are needed too, since an endpoint may answer differently under the same key.
    """
    benchmarks = report.manifest.get("benchmarks", {})
    keys: dict[Row, list[str]] = defaultdict(list)
    numbers: dict[Row, list[str]] = defaultdict(list)
    for u in report.manifest.get("usage", []):
        keys[u["model"], u["method"], u["benchmark"]].append(f"{u.get('variant')} {u.get('answers', '')}")
    for r in report.numbers:
        numbers[r.model, r.method, r.benchmark].append(f"{r.metric} {r.group} {r.value} {r.n} {r.status}")
    found = {}
    for row in {(r.model, r.method, r.benchmark) for r in report.records}:
        contents = benchmarks.get(row[2], {}).get("contents", "")
        found[row] = f"{contents} {sorted(keys[row])} {sorted(numbers[row])}"
    return found


def _renamed(own: Mapping[Row, str], label: str, seen: Mapping[Row, str]) -> dict[str, str]:
    """Return new names for the models of rows whose name is already taken by a different row.

    Args:
        own: Identity of each row of a run.
        label: Label of the run.
        seen: Identities in the runs before it, by row of the joined report.
    """
    clashing = {row[0] for row, identity in own.items() if seen.get(row, identity) != identity}
    return {model: f"{model} @ {label}" for model in sorted(clashing)}


def _as_shown(row: Row, renamed: Mapping[str, str]) -> Row:
    return renamed.get(row[0], row[0]), row[1], row[2]


def _moved(record: Record, renamed: Mapping[str, str]) -> Record:
    return replace(record, model=renamed.get(record.model, record.model))


def _add_facts(facts: dict[str, Any], report: Analysis, renamed: Mapping[str, str], new: set[Row], label: str) -> None:
    """Add the facts of one run to the manifest of the joined report."""
    manifest = report.manifest
    folder = {"name": label, "folder": "" if report.folder is None else str(report.folder)}
    facts["runs"].append({**folder, **{k: manifest[k] for k in OWN if k in manifest}})
    facts["models"] |= {renamed.get(name, name): own for name, own in manifest.get("models", {}).items()}
    facts["benchmarks"] = {**manifest.get("benchmarks", {}), **facts["benchmarks"]}
    for name in BY_ROW:
        facts[name] += list(_entries(manifest.get(name, []), renamed, new))


def _entries(
    entries: Sequence[Mapping[str, Any]], renamed: Mapping[str, str], new: set[Row]
) -> Iterator[dict[str, Any]]:
    for entry in entries:
        if (entry.get("model"), entry.get("method"), entry.get("benchmark")) in new:
            yield {**entry, "model": renamed.get(entry["model"], entry["model"])}
