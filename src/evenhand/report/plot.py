"""The interval plot: one panel per metric, one row per method, and the baseline as a line."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from evenhand.core.records import Record, is_baseline
from evenhand.core.sinks import FIGURE_TEXT, one_line
from evenhand.errors import SettingsError, suggest
from evenhand.report.cost import COST_NAMES
from evenhand.report.palette import COLOURS
from evenhand.report.text import BETTER, DEMO_LABEL, metric_name

COLUMNS = 4
NAME_LENGTH = 36


class NotebookFigure(Figure):
    """A figure that a notebook shows by itself, without pyplot and its global state."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=110)
        return buffer.getvalue()


def interval_plot(
    records: Sequence[Record], metrics: Sequence[str] | None, group: str, demo: bool, level: float = 95
) -> Figure:
    """Small multiples of value and interval.

    Args:
        records: All records of a run.
        metrics: Which metrics; None takes the main ones.
        group: The group.
        demo: Whether the figure needs the demo label.
        level: Level of the intervals, in per cent.

    Raises:
        SettingsError: The metric or group does not exist.
    """
    wanted = _wanted(records, metrics, group)
    panels = list(dict.fromkeys((r.benchmark, r.metric) for r in wanted))
    rows = list(dict.fromkeys((r.model, r.method) for r in wanted))
    if not panels:
        return _empty(records)
    columns = min(COLUMNS, len(panels))
    lines = math.ceil(len(panels) / columns)
    height = lines * (1.15 + 0.34 * len(rows)) + 0.5
    figure = NotebookFigure(figsize=(2.6 + 2.7 * columns, height), layout="constrained")
    axes = figure.subplots(lines, columns, sharey=True, squeeze=False)
    above = _told_apart([benchmark for benchmark, _ in panels])
    for axis, panel in zip(axes.flat, panels, strict=False):
        _panel(axis, [r for r in wanted if (r.benchmark, r.metric) == panel], rows, above[panel[0]])
    for axis in list(axes.flat)[len(panels) :]:
        axis.set_visible(False)
    title = f"{one_line(group)}: value and {level:g} % interval; dotted line: the baseline"
    figure.suptitle(title + (f"  ({DEMO_LABEL})" if demo else ""), fontsize=10, x=0.01, ha="left", **FIGURE_TEXT)
    return figure


def _wanted(records: Sequence[Record], metrics: Sequence[str] | None, group: str) -> list[Record]:
    numbers = [r for r in records if r.metric and r.has_numbers]
    known = sorted({r.metric for r in numbers})
    for name in metrics or ():
        if name not in known:
            raise SettingsError(f"no metric {name!r} in this run. {suggest(name, known)}")
    groups = {r.group for r in numbers}
    if numbers and group not in groups:
        raise SettingsError(f"no group {group!r} in this run. {suggest(group, groups)}")
    return [r for r in numbers if r.group == group and (r.metric in metrics if metrics else r.main)]


def _told_apart(benchmarks: Sequence[str]) -> dict[str, str]:
    """Return prefixes of metrics: the benchmark, if there are several; with settings, if two have one name."""
    specs = list(dict.fromkeys(benchmarks))
    names = [spec.partition("(")[0] for spec in specs]
    if len(specs) == 1:
        return {specs[0]: ""}
    return {spec: f"{name if names.count(name) == 1 else spec}: " for spec, name in zip(specs, names, strict=True)}


def _panel(axis: Any, records: Sequence[Record], rows: Sequence[tuple[str, str]], above: str) -> None:
    models = list(dict.fromkeys(model for model, _ in rows))
    for r in records:
        y = rows.index((r.model, r.method))
        colour = COLOURS[models.index(r.model) % len(COLOURS)]
        if not math.isnan(r.low):
            axis.plot([r.low, r.high], [y, y], color=colour, linewidth=2.2, solid_capstyle="butt", alpha=0.55)
        axis.plot([r.value], [y], marker="o", color=colour, markersize=5)
        if is_baseline(r.method):
            referring = [o for o in records if o.model == r.model and o.baseline == r.method]
            same = [rows.index((o.model, o.method)) for o in (r, *referring)]
            axis.vlines(r.value, min(same) - 0.45, max(same) + 0.45, color=colour, linestyle=":", linewidth=1)
        if r.status == "no effect":
            axis.annotate(
                "no effect", (r.value, y), xytext=(6, 5), textcoords="offset points", fontsize=7, color="#555"
            )
    first = records[0]
    if first.direction == "zero":
        axis.axvline(0, color="#999999", linewidth=0.8)
    better = BETTER[first.direction]
    what = _cut(one_line(above + metric_name(first.metric)))
    axis.set_title(f"{what}\n{better}", fontsize=9, **FIGURE_TEXT)
    several = len({m for m, _ in rows}) > 1
    axis.set_yticks(range(len(rows)), [_name(m, method, several) for m, method in rows], fontsize=8, **FIGURE_TEXT)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.tick_params(axis="x", labelsize=8)
    axis.xaxis.set_major_locator(MaxNLocator(4))
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x", color="#e6e6e6", linewidth=0.7)
    axis.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)


def _name(model: str, method: str, several: bool) -> str:
    text = f"{model}: {method}" if several else method
    return _cut(one_line(text))


def _cut(text: str) -> str:
    return text if len(text) <= NAME_LENGTH else text[: NAME_LENGTH - 1] + "…"


def _empty(records: Sequence[Record]) -> Figure:
    figure = NotebookFigure(figsize=(7, 1.5))
    reason = next((r.note for r in records if r.note and r.metric not in COST_NAMES), "no numbers")
    figure.text(0.02, 0.5, f"Nothing to plot: {one_line(reason[:150])}", fontsize=9, wrap=True, **FIGURE_TEXT)
    return figure
