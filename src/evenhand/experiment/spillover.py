"""`evenhand.spillover`: a method fitted on one axis of bias at a time, and measured on every axis.

One comparison per axis, each in a folder of its own, with one answer cache: the baseline is asked once, and a run that
was stopped resumes where it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evenhand.core import catalogue, file_io, registry, specs
from evenhand.core.hashing import json_hash
from evenhand.core.registry import BenchmarkLike
from evenhand.errors import SettingsError
from evenhand.experiment import training_sources
from evenhand.experiment.comparison import ModelLike, benchmarks_of, compare, parted_options
from evenhand.models.demo_names import is_demo
from evenhand.models.loading import load
from evenhand.report import Report
from evenhand.report.spillover_matrix import Spillover

AXIS = "{axis}"
"""Placeholder for the axis in a method and in training data."""
BENCHMARK, DEMO_BENCHMARK = "bbq(part=test)", "bbq(source=demo)"
EXAMPLE = f"bbq(axes=('{AXIS}',),part=fit)"
KINDS = {"pairs": f"pairs:{EXAMPLE}", "questions": EXAMPLE}
DEMO_KINDS = {"biased": f"demo:biased:{AXIS}", "pairs": f"demo:pairs:{AXIS}"}
"""Default training data, by what a method trains on."""


def spillover(
    model: ModelLike,
    method: str,
    axes: Sequence[str],
    *,
    benchmarks: BenchmarkLike | Sequence[BenchmarkLike] | None = None,
    train: str | None = None,
    metric: str | None = None,
    out: str | Path | None = None,
    **options: Any,
) -> Spillover:
    """Fit a method on one axis at a time, and measure it on every axis of every benchmark.

    Args:
        model: What `evenhand.load` takes, or a `Model`.
        method: A method, such as "steering(layer=2)". "{axis}" in it is replaced by each axis, as in
            "instruction(wording=ours_low_1,axis={axis})". A method that neither trains nor names an axis is measured
            once, and every axis is counted.
        axes: Axes as the training data name them, such as ("Age", "Religion").
        benchmarks: Benchmarks to measure on; None is BBQ's half that nothing is fitted on, and the demo's for a demo.
        train: Training data with "{axis}" for the axis; None takes BBQ's other half, or the demo's data of the axis.
        metric: Metric, as `Report.spillover` takes it.
        out: Folder that gets a run folder per axis; None keeps nothing afterwards.
        **options: Passed to `evenhand.compare`: limit, seed, show_progress and so on, or to `evenhand.load`.

    Raises:
        SettingsError: No axis is given, one is given twice, the training data do not have one, or training data are
            needed and have no place for the axis; nothing was asked or fitted by then.
        EvenhandError: `evenhand.compare` raised it.
    """
    data = training(model, method, train)
    per_axis = _per_axis(method, data, axes)
    wanted = benchmarks if benchmarks is not None else DEMO_BENCHMARK if is_demo(model) else BENCHMARK
    asked = wanted if wanted == "all" else benchmarks_of(wanted)  # read once for all axes
    _check(method, data, per_axis)
    opened, options = _opened(model, options)
    with file_io.folder_for(out) as folder:
        cache = options.pop("cache", None) or folder / "cache.sqlite"
        folder.mkdir(parents=True, exist_ok=True)
        reports, rows, targets = [], [], {}
        for axis in per_axis:
            own = method.replace(AXIS, axis)
            row = registry.build_method(own)
            fit = None if data is None else data.replace(AXIS, axis)
            where = folder / _folder_name(axis)
            reports.append(compare(opened, [row], asked, out=where, cache=cache, train=fit, **options))
            rows.append(row.spec)
            if axis:  # rows of several runs have one name where the axis is not in it; their runs are named by axis
                targets[axis if len(per_axis) > 1 and AXIS not in method else row.spec] = axis
        report = reports[0] if len(reports) == 1 else Report.join(*reports, names=list(per_axis))
        return report.spillover(metric, methods=list(dict.fromkeys(rows)), targets=targets)


def training(model: ModelLike, method: str, train: str | None) -> str | None:
    """Return training data with a place for the axis; None if the method needs none.

    Args:
        model: The model to be measured: a demo model is fitted on the demo's data.
        method: A method, or a stack.
        train: The training data that was given.

    Raises:
        SettingsError: The method needs data, and neither those nor its settings have a place for the axis.
    """
    if train is not None:
        if AXIS not in train and AXIS not in method:
            raise SettingsError(
                f"train={train!r} is the same for every axis; write {AXIS} for the axis, as in {EXAMPLE}"
            )
        return train
    parts = specs.stack(method.replace(AXIS, "Age"))  # any axis would do: only the names of the methods matter
    needed = [facts for part in parts if (facts := catalogue.method_facts(part.name)).trains]
    if not needed:
        return None
    usual = DEMO_KINDS if is_demo(model) else KINDS
    found = [next((data for kind, data in usual.items() if kind in f.trains), None) for f in needed]
    if None in found:
        lacking = needed[found.index(None)]
        raise SettingsError(
            f"{lacking.name} trains on {lacking.trains}; name data of one axis with --train (train= in Python), with "
            f"{AXIS} for the axis"
        )
    return " & ".join(dict.fromkeys(data for data in found if data is not None))


def _per_axis(method: str, data: str | None, axes: Sequence[str]) -> tuple[str, ...]:
    """Return the axes to fit on, or a single "" if nothing depends on an axis."""
    if not axes or len({*axes}) < len(axes) or not all(axis.strip() for axis in axes):
        raise SettingsError(f"axes={tuple(axes)!r}: give axes that differ, such as Age,Religion")
    return tuple(axes) if AXIS in method or (data is not None and AXIS in data) else ("",)


def _check(method: str, data: str | None, per_axis: Sequence[str]) -> None:
    """Refuse wrong settings and axes without training data before a model is loaded or anything is fitted."""
    for axis in per_axis:
        registry.build_method(method.replace(AXIS, axis))
    for source in dict.fromkeys(data.replace(AXIS, axis) for axis in per_axis) if data is not None else ():
        found = training_sources.load(source).data
        if not (found.questions or found.texts or found.pairs):
            raise SettingsError(f"the training source {source!r} is empty; leave this axis out, or name other data")


def _folder_name(axis: str) -> str:
    """Return a distinct name of a folder for every axis, however it is written."""
    if not axis:
        return "all"
    plain = "".join(c if c.isalnum() or c in "-_" else "_" for c in axis)
    return plain if plain == axis else f"{plain}-{json_hash(axis)[:6]}"


def _opened(model: ModelLike, options: dict[str, Any]) -> tuple[ModelLike, dict[str, Any]]:
    """Return the model, loaded once for all axes, and what is left of the options for `compare`."""
    if not isinstance(model, str | Path):
        return model, options
    loading, comparing = parted_options(options)
    return load(model, **loading), comparing
