"""One method at several settings: bias against cost, as a table and a plot.

A sweep is a comparison like any other (`evenhand.compare`): a killed one resumes where it stopped, nothing is trained
twice, and every number has its interval.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from evenhand.core import file_io, registry, specs
from evenhand.core.records import BASELINE, Record, is_baseline
from evenhand.core.registry import BenchmarkLike, MethodLike, build_method
from evenhand.core.sinks import FIGURE_TEXT, csv_field, one_line
from evenhand.core.text_output import visible
from evenhand.errors import SettingsError, suggest
from evenhand.experiment import refusals, sweep_defaults
from evenhand.experiment.comparison import ModelLike, compare, parted_options
from evenhand.experiment.training_data import TrainLike
from evenhand.experiment.training_data import load as load_train
from evenhand.interfaces import Benchmark, Method, Model
from evenhand.models.loading import check, load
from evenhand.report.palette import COLOURS
from evenhand.report.plot import NotebookFigure
from evenhand.report.text import DEMO_LABEL, metric_name

if TYPE_CHECKING:
    import pandas as pd

Named = tuple[str, MethodLike]
"""A label and a method."""


class Point(NamedTuple):
    """A metric of one setting, with its interval and its paired difference from the baseline, which is read alike."""

    value: float
    low: float
    high: float
    difference: float
    difference_low: float
    difference_high: float


class Step(NamedTuple):
    """One setting, and what was measured with it."""

    label: str
    """The setting as it was given, such as a strength; "none" is the baseline."""
    method: str
    """Row of the comparison."""
    bias: Point
    cost: Point
    control: bool = False
    """Whether it is a control, shown next to the settings for comparison."""

    @property
    def untouched(self) -> bool:
        """Whether it is the baseline."""
        return is_baseline(self.method)


class Swept(NamedTuple):
    """Results of a sweep."""

    steps: tuple[Step, ...]
    """The baseline first; several baselines, if the settings' answers are read in several ways."""
    bias: str
    """Which metric, of which benchmark and group."""
    cost: str
    demo: bool
    setting: str = ""
    """What varies, for the plot."""

    def table(self) -> str:
        """Return comma-separated values, one setting per line."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        ends = [f.replace("value", "") for f in Point._fields]
        writer.writerow(
            ["label", "method", *(f"{k}{'_' if e else ''}{e}" for k in ("bias", "cost") for e in ends), "control"]
        )
        for step in self.steps:
            numbers = (f"{x:.6g}" for x in (*step.bias, *step.cost))
            writer.writerow([csv_field(step.label, settings=True), csv_field(step.method), *numbers, int(step.control)])
        return out.getvalue()

    def frame(self) -> pd.DataFrame:
        """Return the same as a pandas table, with a row per setting."""
        import pandas as pd

        return pd.read_csv(io.StringIO(self.table()), keep_default_na=False, na_values=["nan"])

    def __repr__(self) -> str:
        """Return a short form, for logs."""
        labels = ", ".join(step.label for step in self.steps)
        return visible(f"Swept({self.setting or 'settings'}: {labels}; {self.bias} against {self.cost})")

    def _repr_html_(self) -> str:
        """Return values and differences with their intervals, for a notebook."""
        return visible(self.frame().drop(columns="method").round(3).to_html(index=False))

    def plot(self) -> Figure:
        """Plot bias and cost by setting, and one against the other."""
        return _plot(self)

    def save(self, folder: str | Path) -> Path:
        """Write `sweep.csv` and `sweep.png`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        file_io.write_text(folder / "sweep.csv", self.table())
        file_io.write_with(folder / "sweep.png", lambda part: self.plot().savefig(part, dpi=130, format="png"))
        return folder


def varied(method: str, vary: str, controls: Sequence[str] = ()) -> tuple[str, list[Named], list[Named]]:
    """Read the settings of a sweep from text.

    Args:
        method: A method with the settings that all share, such as "pcgu(epochs=5)", or a stack.
        vary: A setting and its values, "edit_fraction=0.1,0.2"; in a stack whose methods share the setting,
            "pcgu.edit_fraction=...".
        controls: What to compare with: changed settings, such as "select=random,edit_fraction=0.3".

    Returns:
        The setting's name; labels and methods; the controls' labels and methods.

    Raises:
        SettingsError: There is no such setting, a value is not of its kind, or there are fewer than two values.
    """
    parts = [_with_present_names(part) for part in specs.stack(method)]
    name, sign, values = (text.strip() for text in vary.partition("="))
    texts = specs.split(values, ",")
    if not sign or len(texts) < 2:
        raise SettingsError(f"vary={vary!r}: give a setting and at least two values, such as strength=0.5,1,2")
    name = _present_name(parts, name)
    found = [(text, _changed(parts, [(name, text)])) for text in texts]
    beside = []
    for control in controls:
        sides = [part.partition("=") for part in specs.split(control, ",")]
        changes = [(own.strip(), text.strip()) for own, _, text in sides]
        if not changes or not all(all(change) for change in changes):
            raise SettingsError(f"control={control!r}: give changed settings, such as select=random,edit_fraction=0.3")
        changes = [(_present_name(parts, own), text) for own, text in changes]
        beside.append((", ".join("=".join(c) for c in changes), _changed(parts, changes)))
    return name, list(found), list(beside)


def _with_present_names(part: specs.Part) -> specs.Part:
    return specs.Part(part.name, registry.methods.get(part.name).with_present_names(part.settings))


def _present_name(parts: Sequence[specs.Part], name: str) -> str:
    """Return the present name of a setting, which may be given by an old one, with or without its method's name."""
    method, dot, own = name.rpartition(".")
    classes = [registry.methods.get(p.name) for p in parts if method in ("", p.name)]
    if not any(own == f.name for cls in classes for f in fields(cls)):
        for cls in classes:
            (own,) = cls.with_present_names({own: None})
    return f"{method}{dot}{own}"


def _changed(parts: Sequence[specs.Part], changes: Sequence[tuple[str, str]]) -> Method:
    """Build the method, or the stack, with settings changed."""
    given = [specs.Part(part.name, dict(part.settings)) for part in parts]
    for name, text in changes:
        place, own = _place(parts, name)
        given[place].settings[own] = specs.parse(f"x({own}={text})").settings[own]
    return registry.build_parts(given)


def _place(parts: Sequence[specs.Part], name: str) -> tuple[int, str]:
    """Find the method of a stack that has a setting, and the setting's own name."""
    method, _, own = name.rpartition(".")
    known = [{"preset", *(f.name for f in fields(registry.methods.get(p.name)) if f.init)} for p in parts]
    at = [n for n, p in enumerate(parts) if own in known[n] and method in ("", p.name)]
    if not at:
        every = sorted(set().union(*known))
        whose = method or " + ".join(p.name for p in parts)
        raise SettingsError(f"{whose} has no setting {own!r}. {suggest(own, every)}")
    if len(at) > 1:
        raise SettingsError(f"{own!r} is a setting of several: write {parts[at[0]].name}.{own}=...")
    return at[0], own


def sweep(
    model: ModelLike,
    specs: Sequence[Named] | str = sweep_defaults.METHOD,
    *,
    vary: str | None = None,
    bias: BenchmarkLike | None = None,
    cost: BenchmarkLike | None = None,
    bias_metric: str | None = None,
    cost_metric: str | None = None,
    group: str = "overall",
    controls: Sequence[Named] = (),
    setting: str = "",
    train: TrainLike | None = None,
    out: str | Path | None = None,
    **options: Any,
) -> Swept:
    """Compare settings of a method.

    Args:
        model: What `evenhand.load` takes.
        specs: A method, such as "pcgu(epochs=2)", or labels and methods in the order of the plot.
        vary: A setting of the method and its values, such as "edit_fraction=0.1,0.2"; None is the usual one, where the
            method has one that trades bias against cost.
        bias: Benchmark of bias; None is BBQ, or the demo's for a demo model.
        cost: Benchmark of what it costs; None is the benchmark of bias.
        bias_metric: Metric of `bias`; None is its first main one that is of bias.
        cost_metric: Metric of `cost`; None is its first main one, or for BBQ the accuracy where the context
            states the answer.
        group: Group that the bias is read from.
        controls: Labels and methods to compare with, such as a random edit of the same size.
        setting: What varies, for the plot.
        train: What methods fit on; None on a demo model is what the demo has for the method.
        out: Run folder, which gets `sweep.csv` and `sweep.png` too. None keeps nothing afterwards.
        **options: Passed to `evenhand.compare`: limit, seed, cache, show_progress and so on.

    Raises:
        SettingsError: No settings, the same one twice, an unknown metric or group, or a method that cannot be applied.
        EvenhandError: A method failed.
    """
    if isinstance(specs, str):
        train = sweep_defaults.training(model, specs) if train is None else train
        setting, specs, _ = varied(specs, vary or sweep_defaults.values(specs))
    elif vary is not None:
        raise SettingsError(f"vary={vary!r} is for a method given as text; the settings given already differ")
    varying, beside = _with_controls(specs, controls)
    built = [*varying, *beside]
    labels, methods = [label for label, _ in built], [method for _, method in built]
    if not specs or len({m.spec for m in methods}) < len(methods) or len({*labels, BASELINE}) <= len(labels):
        raise SettingsError("give settings that differ, each with a label of its own that is not 'none'")
    if any(m.name == BASELINE for m in methods):
        raise SettingsError("none is what a sweep compares with; give a method whose setting varies")
    *sides, cost_metric = sweep_defaults.sides(model, bias, cost, cost_metric)
    first, second = _metric(sides[0], bias_metric, "bias"), _metric(sides[1], cost_metric, "")
    one, two = (side.spec for side in sides)
    loading, comparing = parted_options(options)
    opened = _opened(model, methods, sides, train, loading)
    with file_io.folder_for(out) as place:  # without a folder, each setting would train anew
        report = compare(
            opened,
            methods,
            sides[:1] if one == two else list(sides),
            train=train,
            out=place,
            **(options if opened is model else comparing),
        )
    for r in report.records:
        if r.status in ("failed", "not applicable"):
            raise SettingsError(f"{r.method} on {r.benchmark}: {r.note}")
    control_labels = {label for label, _ in beside}

    def step(label: str, on_one: str, on_two: str) -> Step:
        points = (
            _point(report.records, on_one, one, first, group),
            _point(report.records, on_two, two, second, "overall"),
        )
        return Step(label, on_one if on_two == BASELINE else on_two, *points, label in control_labels)

    pairs = dict.fromkeys(tuple(_baseline(report.records, m.spec, b) for b in (one, two)) for m in methods)
    steps = (
        *(step(next((row for row in pair if row != BASELINE), BASELINE), *pair) for pair in pairs),
        *(step(label, m.spec, m.spec) for label, m in built),
    )
    where = "" if group == "overall" else f", {group}"
    found = Swept(
        steps,
        f"{metric_name(first)} ({one}{where})",
        f"{metric_name(second)} ({two})",
        bool(report.manifest["demo"]),
        setting,
    )
    if out is not None:
        found.save(out)
    return found


def _with_controls(
    specs: Sequence[Named], controls: Sequence[Named]
) -> tuple[list[tuple[str, Method]], list[tuple[str, Method]]]:
    """Return labels and methods of the settings, and of all controls: those given and those that settings declare."""
    steps, beside = [], [(label, build_method(method)) for label, method in controls]
    for label, method in specs:
        rows = build_method(method).comparison_rows()
        steps.append((label, rows[""]))
        beside += [(f"{label}, {name}", row) for name, row in rows.items() if name]
    return steps, beside


def _opened(
    model: ModelLike,
    methods: Sequence[Method],
    asked: Sequence[Benchmark],
    train: TrainLike | None,
    loading: dict[str, Any],
) -> ModelLike:
    """Load the model, and check that data is there and every method can be applied, before anything is asked."""
    if isinstance(model, str | Path):
        check(model, **loading)
    for benchmark in asked:
        benchmark.load()
    data = None if train is None else load_train(train).data
    refusals.refuse(refusals.training_reasons(methods, train, data)[:1])
    opened = load(model, **loading) if isinstance(model, str | Path) else model
    if isinstance(opened, Model):
        for method in methods:
            if reason := method.unsupported_reason(opened, data):
                raise SettingsError(reason)
    return opened


def _metric(benchmark: Benchmark, wanted: str | None, kind: str) -> str:
    infos = benchmark.metrics
    known = [info.name for info in infos]
    if wanted is not None:
        if wanted not in known:
            raise SettingsError(f"{benchmark.name} has no metric {wanted!r}. {suggest(wanted, known)}")
        return wanted
    main = [info.name for info in infos if info.main and kind in ("", info.kind)]
    if not main:
        raise SettingsError(f"{benchmark.name} has no main metric of bias: name one, such as {known[0]}")
    return main[0]


def _point(records: Sequence[Record], method: str, benchmark: str, metric: str, group: str) -> Point:
    found = [r for r in records if (r.method, r.benchmark, r.metric) == (method, benchmark, metric)]
    own = [r for r in found if r.group == group]
    if not own:
        raise SettingsError(f"{benchmark} has no group {group!r}. {suggest(group, sorted({r.group for r in found}))}")
    return Point(*(getattr(own[0], field) for field in Point._fields))


def _baseline(records: Sequence[Record], method: str, benchmark: str) -> str:
    """Return the row that a method is compared with on a benchmark."""
    found = (r.baseline for r in records if (r.method, r.benchmark) == (method, benchmark))
    return next(filter(None, found), BASELINE)


def _plot(found: Swept) -> Figure:
    figure = NotebookFigure(figsize=(11, 3.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for axis, name, points, colour in (
        (left, found.bias, [s.bias for s in found.steps], COLOURS[0]),
        (middle, found.cost, [s.cost for s in found.steps], COLOURS[1]),
    ):
        _by_setting(axis, found, points, colour)
        axis.set_title(one_line(name), fontsize=9, **FIGURE_TEXT)
    _against(right, found)
    for axis in (left, middle, right):
        axis.tick_params(labelsize=8)
        axis.ticklabel_format(axis="y", useOffset=False)
        axis.grid(color="#e6e6e6", linewidth=0.7)
        axis.set_axisbelow(True)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    title = "value by setting, with the 95 % interval of its difference from the baseline (dotted)"
    title += "; hollow: a control" if any(s.control for s in found.steps) else ""
    figure.suptitle(title + (f"  ({DEMO_LABEL})" if found.demo else ""), fontsize=10, x=0.01, ha="left")
    return figure


def _by_setting(axis: Axes, found: Swept, points: Sequence[Point], colour: str) -> None:
    """Plot values in the order of the settings; a control stands apart, is hollow, and is joined to nothing.

    Intervals are those of the differences: a value's own is mostly due to the items, which all settings share.
    """
    untouched = [n for n, s in enumerate(found.steps) if s.untouched]
    places = [n + s.control for n, s in enumerate(found.steps)]
    joined = _joined(found)
    beside = [n for n, s in enumerate(found.steps) if s.control]
    axis.plot(joined, [points[n].value for n in joined], marker="o", color=colour, linewidth=1)
    own = [(n, p) for n, p in enumerate(points) if n not in untouched]
    ends = [[p.value - p.difference + d for d in (p.difference_low, p.difference_high)] for _, p in own]
    axis.vlines([places[n] for n, _ in own], *zip(*ends, strict=True), color=colour, alpha=0.55, linewidth=2.2)
    axis.plot(
        [places[n] for n in beside],
        [points[n].value for n in beside],
        marker="o",
        linestyle="",
        color=colour,
        mfc="white",
        zorder=3,
    )
    for value in {points[n].value for n in untouched}:
        axis.axhline(value, color=colour, linestyle=":", linewidth=1)
    axis.set_xticks(places, [_wrapped(s.label) for s in found.steps], fontsize=8, **FIGURE_TEXT)
    axis.set_xlabel(one_line(found.setting), fontsize=8, **FIGURE_TEXT)


def _joined(found: Swept) -> list[int]:
    """Return the steps that a line joins: the settings, and the baseline if it is one and the same for all."""
    alone = sum(s.untouched for s in found.steps) == 1
    return [n for n, s in enumerate(found.steps) if not s.control and (alone or not s.untouched)]


def _against(axis: Axes, found: Swept) -> None:
    """Plot bias against cost."""
    path = [found.steps[n] for n in _joined(found)]
    axis.plot([s.cost.value for s in path], [s.bias.value for s in path], color="#999999", linewidth=0.8)
    costs = [s.cost.value for s in found.steps]
    for n, step in enumerate(found.steps):
        place = (step.cost.value, step.bias.value)
        axis.plot(*place, marker="o", color=COLOURS[2], mfc="white" if step.control else COLOURS[2])
        above = (n == 0 or bool(n % 2)) and not step.control  # a control's label, the longest, goes below
        inwards = step.cost.value > (min(costs) + max(costs)) / 2  # so that no label leaves the panel
        axis.annotate(
            _wrapped(step.label),
            place,
            xytext=(-5 if inwards else 5, 5 if above else -5),
            textcoords="offset points",
            ha="right" if inwards else "left",
            va="bottom" if above else "top",
            fontsize=8,
            **FIGURE_TEXT,
        )
    axis.margins(0.12)
    axis.xaxis.set_major_locator(MaxNLocator(5))  # numbers that differ in their last digits are long
    axis.ticklabel_format(axis="x", useOffset=False)
    axis.set_xlabel(one_line(found.cost), fontsize=8, **FIGURE_TEXT)
    axis.set_ylabel(one_line(found.bias), fontsize=8, **FIGURE_TEXT)


def _wrapped(label: str) -> str:
    return one_line(label).replace(", ", "\n")
