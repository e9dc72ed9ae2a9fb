"""Choose the metrics by which a leaderboard ranks: bias, accuracy where the context answers, and capability."""

from __future__ import annotations

from collections.abc import Sequence

from evenhand.core.records import Record
from evenhand.errors import SettingsError, suggest
from evenhand.report.board import OVERALL
from evenhand.report.pareto import Measure

ACCURACY, ABSTENTION = "accuracy_disambiguated", "abstention_disambiguated"
"""BBQ's metrics of the items whose context answers: abstaining is an error there, and it hides bias."""


def chosen_measures(records: Sequence[Record], bias: str | None, capability: str | None) -> tuple[Measure, ...]:
    """Return the measures by which rows are judged, if the run has them: bias, accuracy in context, capability.

    Raises:
        SettingsError: The metric does not exist.
    """
    first = _chosen(records, "bias", bias, None)
    second = _chosen(records, "capability", capability, first)
    where = next((m.benchmark for m in (first, second) if m is not None), "")
    accuracy = [m for m in measures_of(records, "capability") if (m.benchmark, m.metric) == (where, ACCURACY)]
    return tuple(dict.fromkeys(m for m in (first, *accuracy, second) if m is not None))


def _chosen(records: Sequence[Record], kind: str, name: str | None, other: Measure | None) -> Measure | None:
    known = measures_of(records, kind)
    if name is not None:
        found = [m for m in known if name in (m.metric, m.name)]
        if not found:
            names = [*dict.fromkeys(m.metric for m in known), *(m.name for m in known)]
            raise SettingsError(f"{kind}={name!r}: no such metric of {kind} in this run. {suggest(name, names)}")
        return found[0]
    main = {(r.benchmark, r.metric) for r in records if r.main}
    shown = [m for m in known if m[:2] in main]
    biased = {m.benchmark for m in measures_of(records, "bias") if m[:2] in main}
    apart = [m for m in shown if other is not None and m.benchmark not in biased]
    inside = [m for m in shown if other is None or m.benchmark == other.benchmark]
    disambiguated = [m for m in inside if m.metric.endswith("_disambiguated")]
    return next(iter([*apart, *(disambiguated if kind == "capability" else []), *inside, *shown]), None)


def measures_of(records: Sequence[Record], kind: str) -> list[Measure]:
    """Return every metric of a kind with a direction, those of the short tables first."""
    mine = [r for r in records if r.kind == kind and r.group == OVERALL and r.direction != "none" and r.metric]
    ordered = sorted((r for r in mine if r.has_numbers), key=lambda r: not r.main)
    return list(dict.fromkeys(Measure(r.benchmark, r.metric, r.direction, r.kind) for r in ordered))
