"""Run of a recipe, and comparison of what comes out with what was published."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any, Literal, NamedTuple

from evenhand.core import registry
from evenhand.core.records import BASELINE, NAN, Record, is_baseline
from evenhand.errors import SettingsError
from evenhand.experiment.comparison import compare
from evenhand.experiment.recipes import Named, PublishedOrder, PublishedRow, Recipe, filled_in
from evenhand.report import Report

SMOKE_REPLICATES = 200
ROUNDING = 1e-9
"""Rounding error that a difference of two decimal figures may have."""
Within = Literal["yes", "no", "not judged", "not run", "smoke"]


class Outcome(NamedTuple):
    """One row of a recipe after a run."""

    name: str
    published: float | None
    ours: float
    low: float
    """Lower end of our 95 % interval; nan for a ratio, and if there is none."""
    high: float
    difference: float
    """Ours minus the published figure."""
    within: Within
    note: str
    """Where the published figure stands; for a row that was not run, why."""


class Plan(NamedTuple):
    """Arguments of `compare`, with the keys of the recipe."""

    model: str
    methods: dict[str, Named]
    benchmarks: dict[str, Named]
    train: str | None
    options: dict[str, Any]


def plan(recipe: Recipe, *, smoke: bool = False, model: str | None = None) -> Plan:
    """Make the plan of what a recipe runs.

    Args:
        recipe: The recipe.
        smoke: Whether to run its small form on a demo model.
        model: A copy of the recipe's model, such as a folder; None is the one on the hub.

    Raises:
        SettingsError: $EVENHAND_DATA is not set and needed, or a smoke is wanted with another model.
    """
    if not smoke:
        options: dict[str, Any] = {"dtype": recipe.model.dtype, **recipe.settings.model_dump(exclude_none=True)}
        if model is None and recipe.model.revision is not None:
            options["revision"] = recipe.model.revision
        parts = filled_in({"methods": recipe.methods, "benchmarks": recipe.benchmarks})
        train = filled_in(recipe.train)
        return Plan(model or recipe.model.name, parts["methods"], parts["benchmarks"], train, options)
    if model is not None:
        raise SettingsError(f"model={model!r}: a smoke runs on {recipe.smoke.model}; leave the model out")
    small = recipe.smoke
    parts = filled_in({"methods": small.methods, "benchmarks": small.benchmarks})
    options = {"limit": small.limit, "replicates": SMOKE_REPLICATES}
    if recipe.settings.drop_refused is not None:
        options["drop_refused"] = recipe.settings.drop_refused
    return Plan(small.model, parts["methods"], parts["benchmarks"], filled_in(small.train), options)


def run(asked: Plan, *, out: str | Path | None = None, show_progress: bool = True, **load_options: Any) -> Report:
    """Compare the methods of a plan with the baseline; a run folder that was stopped is resumed."""
    return compare(
        asked.model,
        list(asked.methods.values()) or [BASELINE],
        list(asked.benchmarks.values()),
        out=out,
        train=asked.train,
        show_progress=show_progress,
        **{**asked.options, **load_options},
    )


def outcomes(recipe: Recipe, asked: Plan, records: Sequence[Record], *, smoke: bool = False) -> list[Outcome]:
    """Return the rows of a recipe, each with the published figure, ours and whether it is within what is accepted.

    The orders of rows follow: the share of pairs of rows in the published order, which is 1 where all are.

    Args:
        recipe: The recipe.
        asked: The plan that was run.
        records: Records of the run.
        smoke: Whether the small form was run, whose figures are compared with nothing.
    """
    groups = recipe.smoke.groups if smoke else {}
    found = []
    for row in recipe.rows:
        values, note = _values(row, asked, records, groups.get(row.group, row.group))
        found.append(_outcome(row, values, note, smoke))
    ours = {outcome.name: outcome.ours for outcome in found}
    published = {row.name: row.published for row in recipe.rows if row.published is not None}
    return [*found, *(_ordered(order, published, ours, smoke) for order in recipe.orders)]


def _ordered(order: PublishedOrder, published: Mapping[str, float], ours: Mapping[str, float], smoke: bool) -> Outcome:
    """Judge whether rows are in the order of their published figures, by the share of pairs of rows that are.

    Args:
        order: The rows, and how far published figures have to be apart to be told apart.
        published: Published figures by row.
        ours: Our figures by row; nan if there is none.
        smoke: Whether the small form was run.
    """
    pairs = [
        (low, high)
        for low, high in permutations(order.rows, 2)
        if published[high] - published[low] > order.apart + ROUNDING
    ]
    if missing := [name for name in order.rows if math.isnan(ours[name])]:
        return Outcome(order.name, 1.0, NAN, NAN, NAN, NAN, "not run", f"no figure of ours for {missing[0]!r}")
    turned = [(low, high) for low, high in pairs if not ours[low] < ours[high]]
    share = 1 - len(turned) / len(pairs) if pairs else 1.0
    note = f"share of {len(pairs)} pairs of rows in the published order"
    if turned:
        note += f"; not: {', '.join(f'{low!r} below {high!r}' for low, high in turned)}"
    within: Within = "smoke" if smoke else "no" if turned else "yes"
    return Outcome(order.name, 1.0, share, NAN, NAN, NAN if smoke else share - 1, within, note)


def _outcome(row: PublishedRow, values: tuple[float, float, float], note: str, smoke: bool) -> Outcome:
    ours, low, high = values
    off = NAN if row.published is None or smoke else ours - row.published
    bounds = row.bounds
    within: Within
    if math.isnan(ours):
        within = "not run"
    elif smoke:
        within = "smoke"
    elif bounds is None:
        within = "not judged"
    else:
        within = "yes" if bounds[0] <= ours <= bounds[1] else "no"
    return Outcome(row.name, row.published, ours, low, high, off, within, note or row.where)


def _values(
    row: PublishedRow, asked: Plan, records: Sequence[Record], group: str
) -> tuple[tuple[float, float, float], str]:
    """Return value and interval of a row, and why there are none."""
    benchmark = registry.build_benchmark(asked.benchmarks[row.benchmark]).spec
    mine = [r for r in records if r.benchmark == benchmark]
    method = _label(row.method, asked, mine)
    of_method = [r for r in mine if r.method == method]
    record = next((r for r in of_method if (r.metric, r.group) == (row.metric, group)), None)
    if record is None:
        why = next((r.note for r in of_method if r.note), f"no {row.metric} of {group!r} for {method} on {benchmark}")
        return (NAN, NAN, NAN), why
    if row.of == "value":
        return (record.value, record.low, record.high), record.note if math.isnan(record.value) else ""
    if row.of == "difference":
        return (record.difference, record.difference_low, record.difference_high), ""
    baseline = record.value - record.difference
    return (record.value / baseline if baseline else NAN, NAN, NAN), "" if baseline else "the baseline is 0"


def _label(method: str, asked: Plan, records: Sequence[Record]) -> str:
    """Return the row of the report: a method's spec, or the baseline that the recipe's methods are compared with."""
    if method != BASELINE:
        return registry.build_method(asked.methods[method]).spec
    labels = [r.baseline for r in records if r.baseline] or [r.method for r in records if is_baseline(r.method)]
    return labels[0] if labels else BASELINE
