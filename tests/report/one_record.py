"""A record of which a test says only what it is about."""

from __future__ import annotations

from typing import Any

from evenhand.core.records import Record

KINDS = {"bias": ("zero", "bias"), "abstention_disambiguated": ("none", "validity")}
"""Direction and kind of the metrics that are no capability."""


def record(method: str, metric: str, value: float, half: float = 0.1, **more: Any) -> Record:
    """A main number of a model "m" on BBQ with an interval of this half width; `more` replaces fields."""
    direction, kind = KINDS.get(metric, ("higher", "capability"))
    filled: dict[str, Any] = dict(
        model="m",
        method=method,
        benchmark="bbq",
        metric=metric,
        value=value,
        low=value - half,
        high=value + half,
        n=100,
        clusters=30,
        direction=direction,
        kind=kind,
        main=True,
    )
    return Record(**{**filled, **more})
