"""`evenhand plan`: the cost of a comparison, and the smallest effects that it could detect, before it is run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any

from evenhand.cli.output import show_rich, write
from evenhand.core.text_output import number

if TYPE_CHECKING:
    from rich.table import Table

    from evenhand.experiment.forecast import Forecast, ModelForecast

ABOUT = "Estimate what `evenhand compare` would cost with the same options, and what it could detect. Asks no model."


def planned(compare: Callable[..., None], asked_for: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[..., None]:
    """Make the command `plan`, with the options of another command.

    Args:
        compare: The command whose options it takes over.
        asked_for: Turns that command's options into the arguments of the comparison.
    """

    @wraps(compare)
    def plan(**options: Any) -> None:
        from evenhand.experiment.forecast import forecast

        asked = asked_for(options)
        loading = asked.pop("load")
        asked.pop("plugins")
        made = forecast(**asked, **loading, workers=options["workers"])
        if options["as_json"]:
            from evenhand.core.sinks import json_text

            write(json_text(facts(made), 1))
            return
        for table in (_models(made), _benchmarks(made)):
            show_rich(table)
        write("\n".join(_lines(made)))

    plan.__name__, plan.__doc__ = "plan", ABOUT
    return plan


def facts(made: Forecast) -> dict[str, Any]:
    """Convert a forecast to JSON values; nan, which JSON lacks, becomes None.

    Args:
        made: What `evenhand.experiment.forecast.forecast` returns.
    """
    from evenhand.core.text_output import for_json

    return {
        "cells": made.cells,
        "hours_on_one_device": made.hours,
        "workers": made.workers,
        "devices": [device._asdict() for device in made.devices],
        "alpha": made.alpha,
        "models": {model.name: _of_model(model) for model in made.models},
        "benchmarks": {
            b.name: {
                "items": b.items,
                "clusters": b.clusters,
                "tests": b.tests,
                "smallest_change_of_share": [for_json(v) for v in b.share],
                "smallest_difference_in_deviations": [for_json(v) for v in b.deviations],
            }
            for b in made.benchmarks
        },
    }


def _of_model(model: ModelForecast) -> dict[str, Any]:
    one, cost = model.sketched, model.cost
    return {
        "cells": sum(not cell.refused for cell in model.cells),
        "calls": cost.calls,
        "prompt_tokens": cost.prompt_tokens,
        "new_tokens_at_most": cost.new_tokens,
        "trained_tokens_about": round(sum(model.trained_tokens.values())),
        "tokens_counted_by": "its own tokenizer" if one.exact else "an estimate",
        "parameters": one.parameters,
        "dtype": one.dtype,
        "memory_bytes": model.memory,
        "hours": model.hours,
        "notes": list(one.notes),
        "not_asked": _reasons(model, "refused"),
        "not_counted": _reasons(model, "uncounted"),
    }


def _reasons(model: ModelForecast, which: str) -> dict[str, str]:
    """Group the cells that are not asked, or not counted, by the reason."""
    found: dict[str, list[str]] = {}
    for cell in model.cells:
        if why := cell.refused if which == "refused" else cell.uncounted:
            found.setdefault(why, []).append(f"{cell.row} x {cell.benchmark}")
    return {why: ", ".join(dict.fromkeys(cells)) for why, cells in found.items()}


def _models(made: Forecast) -> Table:
    from evenhand.experiment.estimates import GIB

    columns = ("model", "cells", "calls", "tokens read", "written at most", "trained on", "memory GiB", "hours")
    rows = []
    for model in made.models:
        cost, exact = model.cost, "" if model.sketched.exact else "about "
        rows.append(
            (
                model.name,
                f"{sum(not cell.refused for cell in model.cells):,}",
                _short(cost.calls),
                f"{exact}{_short(cost.prompt_tokens)}",
                _short(cost.new_tokens),
                _short(sum(model.trained_tokens.values())),
                "not known" if model.memory is None else f"{model.memory / GIB:,.1f}",
                _hours(model.hours),
            )
        )
    return _table(columns, rows)


def _benchmarks(made: Forecast) -> Table:
    columns = ("benchmark", "items", "clusters", "tests", "smallest effect: share", "mean, in sd")
    rows = [
        (b.name, f"{b.items:,}", f"{b.clusters:,}", str(b.tests), _range(b.share), _range(b.deviations))
        for b in made.benchmarks
    ]
    return _table(columns, rows)


def _table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    from evenhand.core.text_output import visible

    table = Table(box=None, padding=(0, 1))
    for n, name in enumerate(columns):
        table.add_column(name, justify="right" if n else "left")
    for row in rows:
        table.add_row(*(Text(visible(value)) for value in row))
    return table


def _range(bounds: tuple[float, float]) -> str:
    """Format a range, the smaller value first."""
    one, other = sorted(bounds)
    if math.isnan(one):
        return "none"
    low, high = number(one), number(other)
    return low if low == high else f"{low} to {high}"


def _short(count: float) -> str:
    """Format a number in thousands, millions or billions, with three digits."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count:.0f}"


def _hours(hours: float | None) -> str:
    if hours is None:
        return "not known"
    return f"{hours:,.2f}" if hours < 10 else f"{hours:,.0f}"


def _lines(made: Forecast) -> list[str]:
    total, lacking = made.hours, [model.name for model in made.models if model.hours is None]
    names = ", ".join(dict.fromkeys(device.name for device in made.devices))
    shared = "" if made.workers == 1 else f", {_hours(total / made.workers)} on {made.workers} of them"
    without = f", without {', '.join(lacking)}" if lacking else ""
    lines = [
        f"\n{made.cells:,} cells; {_hours(total)} hours on one device ({names}){shared}{without}. Hours are an "
        "upper bound where matrix products dominate: shared prompt prefixes and cached answers are not deducted.",
        f"Effects: power 80 %, level {made.alpha:g} after Holm over the tests. The range is from independent items to "
        "a cluster counting once; for shares, one item in five changes.",
    ]
    for model in made.models:
        lines += [f"{model.name}: {note}" for note in model.sketched.notes]
        for which, what in (("refused", "not asked"), ("uncounted", "counted as the baseline")):
            lines += [f"{model.name}: {what}: {rows}: {why}" for why, rows in _reasons(model, which).items()]
    return lines
