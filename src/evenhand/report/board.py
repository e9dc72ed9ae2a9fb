"""The content of the leaderboard: columns, and a row per method and model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isnan
from typing import TYPE_CHECKING, NamedTuple

from evenhand.core.records import NAN
from evenhand.core.text_output import duration, number
from evenhand.report.pareto import Standing

if TYPE_CHECKING:
    import pandas as pd

OVERALL = "overall"
COSTS = ("calls", "seconds")
"""Keys of the columns without an interval."""
SHORT = ("bias", "disambiguated_accuracy", "abstention", "capability")
"""Columns shown in a terminal of 80 characters."""
BETTER, WORSE = "▲", "▼"
"""Arrows of changes shown by a test; `BETTER_FOUND` and `WORSE_FOUND` are for changes that were only measured."""
BETTER_FOUND, WORSE_FOUND = "△", "▽"


def written(key: str, value: float) -> str:
    """Format a number of the leaderboard: calls with two decimals, time as a duration, all others with three decimals.

    Args:
        key: Key of its column.
        value: The number.
    """
    return duration(value) if key == "seconds" else number(value, decimals=2 if key == "calls" else 3)


def improved(gain: float) -> bool | None:
    """Whether a gain is an improvement as tables show it; None if it is shown as 0, or is unknown."""
    return None if isnan(gain) or number(gain) == number(0.0) else gain > 0


class Column(NamedTuple):
    """Definition of a column."""

    key: str
    """bias, worst_group, disambiguated_accuracy, abstention, capability, right_to_wrong, calls or seconds."""
    title: str
    benchmark: str
    metric: str
    group: str
    direction: str
    """Which way is better: "lower", "higher", "zero" (nearer zero), or "none"."""


@dataclass(frozen=True)
class Cell:
    """One number of a row; unknown values are nan."""

    value: float = NAN
    low: float = NAN
    high: float = NAN
    difference: float = NAN
    """Value minus that of the baseline."""
    difference_low: float = NAN
    difference_high: float = NAN
    better: bool | None = None
    """Whether it is better than the baseline's as measured; None if neither is better, or if it is unknown."""
    significant: bool = False
    """Whether the difference is significant after Holm's adjustment."""
    note: str = ""
    """Which group is the worst, or why a cost is unknown."""
    n: float = 0
    clusters: int = 0
    seconds: bool = False
    """Whether the value is a time."""

    @property
    def half_width(self) -> float:
        """Half of the interval's width."""
        return (self.high - self.low) / 2

    @property
    def arrow(self) -> str:
        """Arrow for better or worse than the baseline, hollow if no test shows it; "" if it is neither."""
        if self.better is None:
            return ""
        if self.significant:
            return BETTER if self.better else WORSE
        return BETTER_FOUND if self.better else WORSE_FOUND

    @property
    def mark(self) -> str:
        """Arrow and star."""
        return self.arrow + "*" * self.significant

    @property
    def text(self) -> str:
        """Value, half of the interval's width, arrow and star."""
        if isnan(self.value):
            return "–"
        value = duration(self.value) if self.seconds else number(self.value)
        half = "" if isnan(self.half_width) else f" ±{number(self.half_width)}"
        return f"{value}{half}" + f" {self.mark}" * bool(self.mark)


class GroupLoss(NamedTuple):
    """A group on which a method is worse than its baseline."""

    group: str
    benchmark: str
    metric: str
    before: float
    after: float
    significant: bool
    """Whether a test shows the loss, after Holm's adjustment over the methods compared on this metric and group."""


@dataclass(frozen=True)
class Row:
    """One method on one model."""

    model: str
    method: str
    baseline: str
    """Row that the differences refer to; "" for a baseline itself."""
    status: str
    """Status as in records: ok, no effect, not applicable or failed."""
    note: str
    """Why there are no numbers, or no effect."""
    cells: Mapping[str, Cell]
    """Cells by column key."""
    pareto: Standing
    dominated_by: tuple[str, ...]
    """Rows that dominate it; if it is undecided, those that are at least as good as measured."""
    rank: int | None
    """Rank among the model's methods, from 1; None for baselines and for rows without a value."""
    got_worse: tuple[GroupLoss, ...] = ()
    """Groups on which it is worse in bias or capability: those with a star first, then by the size of the loss."""


@dataclass(frozen=True)
class Board:
    """The content of a leaderboard."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    demo: bool
    """Whether a demo model was compared; if so, every view is labelled."""
    level: float
    """Level of the intervals, in per cent."""
    explained: str
    """Meaning of the columns and signs."""
    missing: tuple[str, ...] = ()
    """Cells that were asked for and are not in this report, such as those of an interrupted run."""
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Metrics that `Report.leaderboard` can show, by "bias" and "capability"."""

    @property
    def models(self) -> tuple[str, ...]:
        """The models, in order."""
        return tuple(dict.fromkeys(row.model for row in self.rows))

    def column(self, key: str) -> Column | None:
        """Return the column of a key; None if the run has no such number."""
        return next((c for c in self.columns if c.key == key), None)

    def frame(self) -> pd.DataFrame:
        """Return one line per row: for each column its value, interval, difference and whether that is significant."""
        import pandas as pd

        return pd.DataFrame(list(map(self._line, self.rows)))

    def _line(self, row: Row) -> dict[str, object]:
        line: dict[str, object] = {"model": row.model, "method": row.method, "rank": row.rank, "pareto": row.pareto}
        for column in self.columns:
            cell, key = row.cells[column.key], column.key
            line[key] = cell.value
            if key not in COSTS:
                line |= {f"{key}_low": cell.low, f"{key}_high": cell.high}
            line |= {f"{key}_difference": cell.difference, f"{key}_better": cell.better}
            line[f"{key}_significant"] = cell.significant
        return {**line, "dominated_by": ", ".join(row.dominated_by), "status": row.status, "note": row.note}
