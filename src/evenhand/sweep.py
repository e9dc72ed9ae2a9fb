"""One method at several settings: bias against what it costs, as a table and a plot.

It is a comparison like any other (`evenhand.compare`), so a killed one goes on where it was, what was trained once is
trained once, and every number has its interval.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from evenhand.comparison import ModelLike, compare
from evenhand.errors import SettingsError, suggest
from evenhand.interfaces import Benchmark, Method
from evenhand.records import Record
from evenhand.registry import BenchmarkLike, MethodLike, build_benchmark, build_method
from evenhand.report.plot import COLOURS, NotebookFigure
from evenhand.report.text import DEMO_LABEL, metric_name
from evenhand.train_data import TrainLike

UNTOUCHED = "none"


class Point(NamedTuple):
    """A metric of one setting, with its 95 % interval and its paired difference to the untouched model."""

    value: float
    low: float
    high: float
    difference: float
    difference_low: float
    difference_high: float


class Step(NamedTuple):
    """One setting."""

    label: str
    """As it was given, such as a strength; "none" is the untouched model."""
    method: str
    bias: Point
    cost: Point


class Swept(NamedTuple):
    """What a sweep found."""

    steps: tuple[Step, ...]
    """The untouched model first."""
    bias: str
    """Which metric, of which benchmark and group."""
    cost: str
    demo: bool

    def table(self) -> str:
        """Comma-separated values, one setting a line."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        ends = [f.replace("value", "") for f in Point._fields]
        writer.writerow(["label", "method", *(f"{k}{'_' if e else ''}{e}" for k in ("bias", "cost") for e in ends)])
        for step in self.steps:
            writer.writerow([step.label, step.method, *(f"{x:.6g}" for x in (*step.bias, *step.cost))])
        return out.getvalue()

    def plot(self) -> Figure:
        """Bias and cost by setting, and one against the other."""
        return _plot(self)

    def save(self, folder: str | Path) -> Path:
        """Write `sweep.csv` and `sweep.png`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "sweep.csv").write_text(self.table(), encoding="utf-8")
        self.plot().savefig(folder / "sweep.png", dpi=130)
        return folder


def sweep(
    model: ModelLike,
    specs: Sequence[tuple[str, MethodLike]],
    *,
    bias: BenchmarkLike,
    cost: BenchmarkLike = "perplexity",
    bias_metric: str | None = None,
    cost_metric: str | None = None,
    group: str = "overall",
    train: TrainLike | None = None,
    out: str | Path | None = None,
    **options: Any,
) -> Swept:
    """Compare settings of a method.

    Args:
        model: What `evenhand.load` takes.
        specs: Labels and methods, in the order of the plot.
        bias: A benchmark of bias.
        cost: A benchmark of what it costs.
        bias_metric: Which metric of `bias`; None is its first main one that is of bias.
        cost_metric: Which metric of `cost`; None is its first main one.
        group: Of the bias.
        train: What methods fit on.
        out: Run folder, which gets `sweep.csv` and `sweep.png` too.
        **options: Handed to `evenhand.compare`: limit, seed, cache, show_progress and so on.

    Raises:
        SettingsError: No settings, the same one twice, or an unknown metric or group.
        EvenhandError: A method failed.
    """
    labels = [label for label, _ in specs]
    methods: list[Method] = [build_method(method) for _, method in specs]
    if not specs or len({m.spec for m in methods}) < len(methods) or len({*labels, UNTOUCHED}) <= len(labels):
        raise SettingsError("give settings that differ, each with a label of its own that is not 'none'")
    sides = build_benchmark(bias), build_benchmark(cost)
    first, second = _metric(sides[0], bias_metric, "bias"), _metric(sides[1], cost_metric, "")
    one, two = (side.spec for side in sides)
    report = compare(model, methods, sides[:1] if one == two else list(sides), train=train, out=out, **options)
    names = {UNTOUCHED: UNTOUCHED, **{m.spec: label for label, m in zip(labels, methods, strict=True)}}
    for r in report.records:
        if r.status in ("failed", "not applicable"):
            raise SettingsError(f"{r.method} on {r.benchmark}: {r.note}")
    steps = tuple(
        Step(
            label, method, _point(report.records, method, one, first, group),
            _point(report.records, method, two, second, "overall"),
        )
        for method, label in names.items()
    )  # fmt: skip
    where = "" if group == "overall" else f", {group}"
    found = Swept(
        steps, f"{metric_name(first)} ({one}{where})", f"{metric_name(second)} ({two})", bool(report.manifest["demo"])
    )
    if out is not None:
        found.save(out)
    return found


def _metric(benchmark: Benchmark, wanted: str | None, kind: str) -> str:
    infos = benchmark.metrics_info
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


def _plot(found: Swept) -> Figure:
    figure = NotebookFigure(figsize=(11, 3.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    places = range(len(found.steps))
    for axis, name, points, colour in (
        (left, found.bias, [s.bias for s in found.steps], COLOURS[0]),
        (middle, found.cost, [s.cost for s in found.steps], COLOURS[1]),
    ):
        axis.plot(places, [p.value for p in points], marker="o", color=colour, linewidth=1)
        axis.vlines(places, [p.low for p in points], [p.high for p in points], color=colour, alpha=0.55, linewidth=2.2)
        axis.axhline(points[0].value, color=colour, linestyle=":", linewidth=1)
        axis.set_xticks(places, [s.label for s in found.steps], fontsize=8, parse_math=False)
        axis.set_title(name, fontsize=9, parse_math=False)
    right.plot([s.cost.value for s in found.steps], [s.bias.value for s in found.steps], color="#999999", linewidth=0.8)
    for n, step in enumerate(found.steps):
        right.plot([step.cost.value], [step.bias.value], marker="o", color=COLOURS[2])
        right.annotate(
            step.label, (step.cost.value, step.bias.value), xytext=(4, 4 if n % 2 else -9), textcoords="offset points",
            fontsize=8, parse_math=False,
        )  # fmt: skip
    right.set_xlabel(found.cost, fontsize=8, parse_math=False)
    right.set_ylabel(found.bias, fontsize=8, parse_math=False)
    for axis in (left, middle, right):
        axis.tick_params(labelsize=8)
        axis.grid(color="#e6e6e6", linewidth=0.7)
        axis.set_axisbelow(True)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    title = "value and 95 % interval by setting; dotted line: the untouched model"
    figure.suptitle(title + (f"  ({DEMO_LABEL})" if found.demo else ""), fontsize=10, x=0.01, ha="left")
    return figure
