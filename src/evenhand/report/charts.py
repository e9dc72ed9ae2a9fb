"""Charts in Vega-Lite: bias against capability and cost, and a heat map of methods by groups.

A chart shows itself in a notebook; `chart.save("pareto.svg")`, `.pdf` and `.png` write vector and pixel files without a
network. The page draws the same charts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from evenhand.core.records import is_baseline
from evenhand.core.text_output import UNKNOWN, duration, for_json, interval, number
from evenhand.report.heat import HeatCell, HeatMap
from evenhand.report.palette import COLOURS
from evenhand.report.pareto import ParetoPoint
from evenhand.report.text import BETTER, DEMO_LABEL, metric_name

if TYPE_CHECKING:
    import altair as alt

STATES = {
    "baseline": "diamond",
    "front": "circle",
    "undecided": "triangle-up",
    "dominated": "cross",
}
"""Shape of a point by its place on the Pareto front according to the paired differences."""
WIDTH, HEIGHT, CELL = 560, 360, 96
NEAR_X, NEAR_Y = 0.35, 0.08
"""Fractions of the plotted range within which two names would overlap."""
LONGEST = 32


def pareto_chart(points: Sequence[ParetoPoint], *, bias: str, capability: str, demo: bool = False) -> alt.LayerChart:
    """Chart bias across, capability upwards and cost as the size of a point, with an interval in both directions.

    Args:
        points: Points of every method and model; those of a sweep are joined in the order of their setting.
        bias: Name of the metric across.
        capability: Name of the metric upwards.
        demo: Whether the chart must carry the demo label.

    Returns:
        A chart of one view; without points it is empty.
    """
    import altair as alt

    places = _label_places(points)
    base = alt.Chart({"values": [{**_point(p), "place": where} for p, where in zip(points, places, strict=True)]})
    models = list(dict.fromkeys(p.model for p in points))
    across = alt.X("bias:Q", title=bias, scale=alt.Scale(zero=False, nice=True))
    upwards = alt.Y("capability:Q", title=capability, scale=alt.Scale(zero=False, nice=True))
    legend = alt.Legend(orient="bottom", columns=1, labelLimit=400) if len(models) > 1 else None
    colour = alt.Color("model:N", scale=alt.Scale(domain=models, range=_colours(models)), legend=legend, title="model")
    layers: list[Any] = [
        base.mark_rule(opacity=0.45).encode(alt.X("bias_low:Q"), upwards, x2="bias_high:Q", color=colour),
        base.mark_rule(opacity=0.45).encode(across, alt.Y("capability_low:Q"), y2="capability_high:Q", color=colour),
        _symbols(base).encode(across, upwards, color=colour),
        *(_labels(base, place).encode(across, upwards) for place in dict.fromkeys(filter(None, places))),
    ]
    if any(p.curve for p in points):
        curves = base.transform_filter("datum.curve != ''").mark_line(strokeWidth=1.2, opacity=0.7)
        layers.append(curves.encode(across, upwards, color=colour, detail=["curve:N", "model:N"], order="position:Q"))
    title = "Bias, capability and cost" + (f" ({DEMO_LABEL})" if demo else "")
    return alt.LayerChart(layer=layers, width=WIDTH, height=HEIGHT, title=_title(title))


def _symbols(base: alt.Chart) -> alt.Chart:
    """Draw the points: their shape shows their place on the Pareto front, their size the cost."""
    import altair as alt

    below = alt.Legend(orient="bottom", direction="vertical", tickCount=3)
    shapes = alt.Scale(domain=list(STATES), range=list(STATES.values()))
    chart: alt.Chart = base.mark_point(filled=True, opacity=0.9).encode(
        shape=alt.Shape("state:N", title="Pareto", scale=shapes, legend=below),
        size=alt.Size("calls:Q", title="calls per item", scale=alt.Scale(range=[70, 420]), legend=below),
        tooltip=[alt.Tooltip(f"{field}:N", title=title) for field, title in TOLD.items()],
    )
    return chart


def _labels(base: alt.Chart, place: str) -> alt.Chart:
    """Draw the names of the points that have their name at this place."""
    offsets: dict[str, Any] = {"baseline": "bottom", "dy": -5} if place == "above" else {"baseline": "top", "dy": 5}
    chart = base.transform_filter(f"datum.place == '{place}'").mark_text(align="left", dx=7, fontSize=11, **offsets)
    named: alt.Chart = chart.encode(text="short:N").properties(name=f"names_{place}")
    return named


def _label_places(points: Sequence[ParetoPoint]) -> list[str]:
    """Choose the place of each point's name; only the front and baselines have one, and neighbours do not overlap."""
    wide, high = _range([p.bias for p in points]), _range([p.capability for p in points])
    taken: list[tuple[ParetoPoint, str]] = []
    places = []
    for p in points:
        near = [
            place
            for q, place in taken
            if abs(p.bias - q.bias) < NEAR_X * wide and abs(p.capability - q.capability) < NEAR_Y * high
        ]
        free = [place for place in ("above", "below") if place not in near]
        named = is_baseline(p.method) or p.pareto == "front"
        place = free[0] if named and free else ""
        places.append(place)
        if place:
            taken.append((p, place))
    return places


def _range(values: Sequence[float]) -> float:
    known = [v for v in values if math.isfinite(v)]
    return max(known, default=1.0) - min(known, default=0.0) or 1.0


TOLD = {
    "method": "method",
    "model": "model",
    "settings": "settings",
    "bias_told": "bias",
    "capability_told": "capability",
    "calls_told": "calls per item",
    "time_told": "time per item",
    "state_told": "Pareto front",
}
"""Titles of the values shown when the pointer is over a point."""


def _point(p: ParetoPoint) -> dict[str, Any]:
    state = "baseline" if is_baseline(p.method) else p.pareto or "undecided"
    behind = f", by {', '.join(p.dominated_by)}" if state == "dominated" and p.dominated_by else ""
    return {
        **{name: for_json(value) for name, value in p._asdict().items() if isinstance(value, str | float | int)},
        "calls": 1.0 if math.isnan(p.calls) else p.calls,  # an unknown cost is drawn as that of a single call
        "position": for_json(p.position),
        "settings": ", ".join(f"{k}={v}" for k, v in p.settings.items()) or "defaults",
        "state": state,
        "state_told": state + behind,
        "short": p.method if len(p.method) <= LONGEST else p.method[: LONGEST - 1] + "…",
        "bias_told": f"{number(p.bias)} {interval(p.bias_low, p.bias_high)}".rstrip(),
        "capability_told": f"{number(p.capability)} {interval(p.capability_low, p.capability_high)}".rstrip(),
        "calls_told": number(p.calls, decimals=2),
        "time_told": duration(p.seconds),
    }


def heat_chart(heat: HeatMap, *, demo: bool = False) -> alt.LayerChart:
    """Chart a metric by group and method: value, number of answers and interval in every cell.

    Args:
        heat: One metric of one benchmark.
        demo: Whether the chart must carry the demo label.
    """
    import altair as alt

    several = len({model for model, _ in heat.rows}) > 1
    methods = [_row_name(*row, several=several) for row in heat.rows]
    values = [
        {**_heat_cell(cell), "row": _row_name(cell.model, cell.method, several=several)} for cell in heat.cells.values()
    ]
    base = alt.Chart({"values": values}).encode(
        alt.X("row:N", sort=methods, title=None, axis=alt.Axis(orient="top", labelAngle=-35, labelLimit=220)),
        alt.Y("group:N", sort=list(heat.groups), title=None, axis=alt.Axis(labelLimit=220)),
    )
    tips = [alt.Tooltip(f"{field}:N") for field in ("row", "group", "shown", "interval", "n", "clusters", "difference")]
    largest = max((abs(c.value) for c in heat.cells.values() if math.isfinite(c.value)), default=1.0) or 1.0
    layers: list[Any] = [
        base.mark_rect().encode(color=_heat_colour(heat, largest), tooltip=tips),
        base.mark_text(fontSize=11, dy=-6).encode(text="shown:N", color=_readable(largest), tooltip=tips),
        base.mark_text(fontSize=8.5, dy=8).encode(text="below:N", color=_readable(largest), tooltip=tips),
    ]
    better = BETTER.get(heat.direction) or "no direction"
    title = f"{metric_name(heat.metric)}, {heat.benchmark} ({better})" + (f" ({DEMO_LABEL})" if demo else "")
    return alt.LayerChart(layer=layers, width=alt.Step(CELL), height=alt.Step(40), title=_title(title))


def _heat_colour(heat: HeatMap, largest: float) -> alt.Color:
    import altair as alt

    if heat.direction == "zero":
        scale = alt.Scale(scheme="blueorange", domain=[-largest, 0, largest])
    else:
        scale = alt.Scale(scheme="blues", domain=[0, largest])
    return alt.Color("value:Q", scale=scale, title=metric_name(heat.metric), legend=None)


def _readable(largest: float) -> Any:
    """Choose white text on the darkest colours and black on all others."""
    import altair as alt

    dark = f"isValid(datum.value) && abs(datum.value) > {0.7 * largest}"
    return alt.condition(dark, alt.value("white"), alt.value("black"))


def _heat_cell(cell: HeatCell) -> dict[str, Any]:
    bounds = interval(cell.low, cell.high)
    return {
        "group": cell.group,
        "value": for_json(cell.value),
        "shown": number(cell.value) + ("*" if cell.significant else ""),
        "interval": bounds or UNKNOWN,
        "n": number(cell.n, decimals=0),
        "clusters": str(cell.clusters),
        "difference": number(cell.difference, signed=True),
        "below": f"{bounds} n={number(cell.n, decimals=0)}".strip(),
    }


def _row_name(model: str, method: str, *, several: bool) -> str:
    return f"{model}: {method}" if several else method


def _colours(models: Sequence[str]) -> list[str]:
    shown = COLOURS[:-1]  # without black
    return [shown[n % len(shown)] for n, _ in enumerate(models)]


def _title(text: str) -> Any:
    import altair as alt

    return alt.TitleParams(text, anchor="start", fontSize=13)
