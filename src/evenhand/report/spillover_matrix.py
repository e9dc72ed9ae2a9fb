"""Spillover: methods fitted on one axis of bias, measured on every axis and benchmark.

Chand, Baca & Ferrara (arXiv 2511.18635) found coherence or bias worse in 31.5 % of their measurements of axes that were
not the target, which a score of the target axis alone cannot show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isnan
from typing import TYPE_CHECKING, Any, Literal

from evenhand.core.axes import same_axis
from evenhand.core.records import NAN, WORST_GROUP, Record, is_baseline
from evenhand.errors import RunError, SettingsError, suggest
from evenhand.report import spillover_view
from evenhand.report.answers import Source
from evenhand.report.board import OVERALL, improved
from evenhand.report.fitted_axes import axis_of_data, axis_of_method
from evenhand.report.measures import measures_of
from evenhand.report.plain_text import WIDTH, plain_text
from evenhand.report.row_parts import row_parts
from evenhand.report.spillover_parts import Effect, Fitted, Measured, SpilloverMatrix, plain_model
from evenhand.statistics import holm
from evenhand.statistics.counts import Gain, count_below, p_below
from evenhand.statistics.criteria import MIN_CLUSTERS, Criteria, fewest_clusters

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

Kind = Literal["bias", "capability"]
NAMES = " (names)"
"""Ending of those BBQ groups that are part of another group."""


class Spillover(SpilloverMatrix):
    """A spillover matrix; `print`, a notebook and `frame()` show it."""

    def __str__(self) -> str:
        """Return the matrix as text, 80 characters wide."""
        return plain_text(spillover_view.rendered(self, WIDTH))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render the matrix in pieces as wide as the terminal; rich calls this."""
        yield spillover_view.rendered(self, options.max_width)

    def _repr_html_(self) -> str:
        return spillover_view.as_html(self)


def spillover(
    records: Sequence[Record],
    criteria: Criteria,
    sources: Sequence[Source],
    metric: str | None = None,
    *,
    kind: Kind = "bias",
    model: str = "",
    methods: Sequence[str] = (),
    targets: Mapping[str, str] | None = None,
    demo: bool = False,
) -> Spillover:
    """Lay out what methods did to every axis.

    Args:
        records: All numbers of a report except costs.
        criteria: Level and rule of the tests.
        sources: The runs that the report shows; their training data tell what a row was fitted on.
        metric: One metric, or "BENCHMARK:METRIC"; None takes every benchmark's first main one of `kind`.
        kind: Kind of the metrics if none is named.
        model: Only this one, in every run.
        methods: Only these rows; empty takes all, controls included.
        targets: The axis that rows were fitted on, by their method or by the label of their run, where neither the
            training data nor the settings say so.
        demo: Whether the models are demo models.

    Raises:
        RunError: There is no row with a difference.
        SettingsError: There is no such metric or method.
    """
    _check_targets(records, sources, targets or {})
    asked = _asked(records, model, methods)
    mine = [r for r in asked if r.has_numbers and r.metric]
    remarks = _remarks(asked, sources, targets or {})
    columns = _columns(mine, metric, kind) if any(not is_baseline(r.method) for r in mine) else []
    rows, cells = _cells(mine, columns, sources, targets or {})
    if not cells:
        raise RunError(" ".join(["no row has a difference from its baseline, so nothing can spill over.", *remarks]))
    effects = _judged(cells, criteria)
    kept = tuple(c for c in columns if any((row, c) in effects for row in rows))
    untargeted = [effect for effect in effects.values() if not effect.targeted]
    worse = count_below([_gain(effect.record) for effect in untargeted], criteria.alpha)
    return Spillover(rows, kept, effects, worse, criteria, demo, remarks)


def _check_targets(records: Sequence[Record], sources: Sequence[Source], targets: Mapping[str, str]) -> None:
    known = {r.method for r in records} | {source.name for source in sources if source.name}
    for name in targets:
        if name not in known:
            raise SettingsError(f"targets: no row {name!r} in this report, and no such run. {suggest(name, known)}")


def _asked(records: Sequence[Record], model: str, methods: Sequence[str]) -> list[Record]:
    """Return the records of the requested rows and their baselines."""
    for names, known in (
        ([model] * bool(model), {name for r in records for name in (r.model, plain_model(r.model))}),
        (methods, {r.method for r in records}),
    ):
        for name in names:
            if name not in known:
                raise RunError(f"no row {name!r} in this report. {suggest(name, known)}")
    wanted = {*(methods or [r.method for r in records])}
    return [
        r
        for r in records
        if model in ("", r.model, plain_model(r.model)) and (r.method in wanted or is_baseline(r.method))
    ]


def _remarks(records: Sequence[Record], sources: Sequence[Source], targets: Mapping[str, str]) -> tuple[str, ...]:
    """List rows without numbers on a benchmark, with the reason, and rows that changed no answer."""
    found = []
    for r in records:
        if is_baseline(r.method) or r.status == "ok":
            continue
        axes = ", ".join(filter(None, _fitted_on((r.model, r.method), sources, targets)))
        who = f"{r.method}, fitted on {axes}," if axes else r.method
        said = "left every answer as it was" if r.has_numbers else f"has no numbers ({r.status})"
        found.append(f"{who} {said} on {r.benchmark}{f': {r.note}' if r.note and not r.has_numbers else '.'}")
    return tuple(dict.fromkeys(found))


def _columns(records: Sequence[Record], metric: str | None, kind: Kind) -> list[Measured]:
    """Return the axes of every benchmark; a benchmark without bias is one column."""
    found = []
    biased = {m.benchmark for m in measures_of(records, "bias")}
    for benchmark in dict.fromkeys(r.benchmark for r in records):
        name = _metric(records, benchmark, metric, kind)
        if name is None:
            continue
        groups = dict.fromkeys(r.group for r in records if (r.benchmark, r.metric) == (benchmark, name))
        axes = [g for g in groups if g not in (OVERALL, WORST_GROUP) and g.removesuffix(NAMES) == g]
        found += [Measured(benchmark, name, axis) for axis in (axes if benchmark in biased and axes else [""])]
    if not found:
        known = [name for k in ("bias", "capability") for m in measures_of(records, k) for name in (m.metric, m.name)]
        wanted = f"metric={metric!r}: no such metric" if metric else f"no metric of {kind}"
        raise SettingsError(f"{wanted} in this report. {suggest(metric or kind, known)}")
    return found


def _metric(records: Sequence[Record], benchmark: str, metric: str | None, kind: Kind) -> str | None:
    kinds: tuple[Kind, ...] = (kind,) if metric is None else ("bias", "capability")
    own = [m for k in kinds for m in measures_of(records, k) if m.benchmark == benchmark]
    if metric is not None:
        return next((m.metric for m in own if metric in (m.metric, m.name)), None)
    main = {r.metric for r in records if r.benchmark == benchmark and r.main}
    shown = [m.metric for m in own if m.metric in main]
    # in ambiguous contexts, the accuracy is the share of abstentions
    answered = [name for name in shown if kind == "capability" and name.endswith("_disambiguated")]
    return next(iter([*answered, *shown]), None)


def _cells(
    records: Sequence[Record],
    columns: Sequence[Measured],
    sources: Sequence[Source],
    targets: Mapping[str, str],
) -> tuple[tuple[Fitted, ...], dict[tuple[Fitted, Measured], Record]]:
    """Return the rows, and the record of each cell that has a difference."""
    places = {(c.benchmark, c.metric, c.axis or OVERALL): c for c in columns}
    rows: dict[tuple[str, str], list[Fitted]] = {}
    cells: dict[tuple[Fitted, Measured], Record] = {}
    for r in records:
        column = places.get((r.benchmark, r.metric, r.group))
        if column is None or is_baseline(r.method) or not r.n:
            continue
        key = r.model, r.method
        rows[key] = rows.get(key) or [Fitted(*key, axis) for axis in _fitted_on(key, sources, targets)]
        cells |= {(row, column): r for row in rows[key]}
    return tuple(row for fits in rows.values() for row in fits), cells


def _fitted_on(row: tuple[str, str], sources: Sequence[Source], targets: Mapping[str, str]) -> tuple[str, ...]:
    """Return a row's axes, one per fit: from `targets`, else its training data, else its settings; "" if unnamed.

    The data come before the settings, which may belong to another part of a stack and be the same in every run. A
    joined report shows a row once if two fits gave the same answers, so a row can have several axes.
    """
    own = targets.get(row[1]) or axis_of_method(row[1])
    if row[1] in targets:
        return (own,)
    found = []
    for source in _runs_of(row, sources):
        trained = _names(row[1]) & _trained(source.manifest)
        data = axis_of_data(str(source.manifest.get("train_source") or "")) if trained else ""
        found.append(targets.get(source.name) or data or own)
    return tuple(dict.fromkeys(found)) or (own,)


def _runs_of(row: tuple[str, str], sources: Sequence[Source]) -> list[Source]:
    """Return the runs that finished a row; if none did, the first run with its model."""
    finished = [s for s in sources if any((u["model"], u["method"]) == row for u in s.usage)]
    begun = [s for s in sources if row[0] in {s.labels.get(name, name) for name in s.manifest.get("models", {})}]
    return finished or begun[:1]


def _names(method: str) -> set[str]:
    return {part.name for part in row_parts(method)}


def _trained(manifest: Mapping[str, Any]) -> set[str]:
    """Return the names of a run's methods that were fitted on its training data."""
    fitted = [made["method"] for made in manifest.get("applied", []) if made.get("training")]
    return set().union(*map(_names, fitted))


def _judged(
    cells: Mapping[tuple[Fitted, Measured], Record], criteria: Criteria
) -> dict[tuple[Fitted, Measured], Effect]:
    """Return the cells with p adjusted over the whole matrix (Holm)."""
    found = {}
    adjusted = holm([r.p for r in cells.values()])
    shown = holm([_p_of_gain(r, criteria.alpha) for r in cells.values()])
    for ((row, column), record), p, p_gain in zip(cells.items(), adjusted, shown, strict=True):
        r = replace(record, p_holm=p)
        significant = criteria.significant(r)
        targeted = same_axis(row.axis, column.axis)
        found[row, column] = Effect(r, targeted, improved(r.gain), significant, significant and p_gain < criteria.alpha)
    return found


def _p_of_gain(record: Record, alpha: float) -> float:
    """Return the two-sided p of the gain: that of the difference, unless a score that is best at 0 changes its sign."""
    if not _changes_sign(record):
        return record.p
    below = p_below(Gain(record.gain, record.gain_low, record.gain_high, record.degrees, record.p), alpha)
    return min(1.0, 2 * min(below, 1 - below)) if not isnan(below) else below


def _changes_sign(record: Record) -> bool:
    """Whether a score that is best at 0 changed its sign, so that its difference is larger than any gain or loss."""
    return record.direction == "zero" and record.value * (record.value - record.difference) < 0


def _gain(record: Record) -> Gain:
    """Return the gain, without an interval if there are few clusters, as elsewhere in a report; 0 if shown as 0."""
    few = fewest_clusters(record) < MIN_CLUSTERS
    value = record.gain if improved(record.gain) is not None or isnan(record.gain) else 0.0
    ends = (NAN, NAN) if few else (record.gain_low, record.gain_high)
    return Gain(value, *ends, record.degrees, record.p)
