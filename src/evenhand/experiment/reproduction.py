"""Running a recipe: is everything there, what comes out, and is it what was published."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from evenhand.core import registry
from evenhand.core.records import BASELINE, Record, is_baseline
from evenhand.core.text_output import size
from evenhand.data.io import locate
from evenhand.data.io.checksums import check as check_files
from evenhand.data.sets import DATASETS
from evenhand.errors import SettingsError
from evenhand.experiment.comparison import compare
from evenhand.experiment.estimates import estimate
from evenhand.experiment.recipes import DATA, DataNeed, Named, PublishedRow, Recipe, filled_in
from evenhand.report import Report

SMOKE_REPLICATES = 200
Within = Literal["yes", "no", "not judged", "not run", "smoke"]
NAN = float("nan")


class Check(NamedTuple):
    """One thing that a run needs."""

    what: str
    ok: bool
    found: str
    """What was found; where it is not ok, what to do as well."""


class Outcome(NamedTuple):
    """One row of a recipe after a run."""

    name: str
    published: float | None
    ours: float
    low: float
    """Lower end of our 95 % interval; nan for a ratio and where there is none."""
    high: float
    difference: float
    """Ours minus the published figure."""
    within: Within
    note: str
    """Where the published figure stands; of a row that was not run, why."""


class Plan(NamedTuple):
    """What `compare` is asked for, with the keys of the recipe."""

    model: str
    methods: dict[str, Named]
    benchmarks: dict[str, Named]
    train: str | None
    options: dict[str, Any]


def plan(recipe: Recipe, *, smoke: bool = False, model: str | None = None) -> Plan:
    """What a recipe runs.

    Args:
        recipe: The recipe.
        smoke: Whether its small form on a demo model is wanted.
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
    """The rows of a recipe, each with the published figure, ours and whether it is within what is accepted.

    Args:
        recipe: The recipe.
        asked: What was run.
        records: What came out.
        smoke: Whether the small form was run, whose figures are compared with nothing.
    """
    groups = recipe.smoke.groups if smoke else {}
    found = []
    for row in recipe.rows:
        values, note = _values(row, asked, records, groups.get(row.group, row.group))
        found.append(_outcome(row, values, note, smoke))
    return found


def checks(recipe: Recipe, *, free: float, device: str) -> list[Check]:
    """Whether the data is there and as published, and the memory suffices.

    Args:
        recipe: The recipe.
        free: Free memory in bytes.
        device: Where that is, for the message.
    """
    needed = estimate(recipe).memory
    short = "" if needed <= free else "; take a larger device, or `--device-map auto` over several"
    memory = Check("memory", not short, f"about {size(int(needed))} of {size(int(free))} free on {device}{short}")
    return [*(_data_check(need) for need in recipe.data), memory]


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
    """Value and interval of a row, and why there are none."""
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
    """The row of the report: a method's spec, or the baseline that the recipe's methods are compared with."""
    if method != BASELINE:
        return registry.build_method(asked.methods[method]).spec
    labels = [r.baseline for r in records if r.baseline] or [r.method for r in records if is_baseline(r.method)]
    return labels[0] if labels else BASELINE


def _data_check(need: DataNeed) -> Check:
    base = os.environ.get(locate.FOLDER_VARIABLE)
    if need.file is not None:
        path = None if base is None else Path(base).expanduser() / need.file
        there = path is not None and path.exists()
        found = str(path) if there else f"there is no {DATA}/{need.file}: {need.how}"
        return Check(need.file, there, found)
    dataset = DATASETS[str(need.name)]
    folder = locate.folder_of(dataset)
    if folder is None or not folder.is_dir():
        hub = folder is None and bool(dataset.hub)
        return Check(dataset.name, hub, "from the hub, when it runs" if hub else locate.how_to_get(dataset))
    verdicts = check_files(dataset.name, folder)
    differs = sorted(path for path, verdict in verdicts.items() if verdict == "differs")
    if differs:
        return Check(dataset.name, False, f"{folder}/{differs[0]} is not the published file; fetch it again")
    official = sum(verdict == "official" for verdict in verdicts.values())
    hashes = f"{official} of {len(verdicts)} published files" if verdicts else "no published hashes to check"
    return Check(dataset.name, True, f"{folder} ({hashes})")
