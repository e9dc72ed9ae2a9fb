"""The content of a spillover matrix: the effects on every axis of a method that was fitted on one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from evenhand.core.axes import same_axis
from evenhand.core.records import Record
from evenhand.core.text_output import UNKNOWN, interval, number, percent
from evenhand.errors import suggest
from evenhand.report.board import BETTER, BETTER_FOUND, OVERALL, WORSE, WORSE_FOUND
from evenhand.statistics.counts import CountBelow
from evenhand.statistics.criteria import MIN_CLUSTERS, Criteria

if TYPE_CHECKING:
    import pandas as pd

ALL = "all axes"
"""Row name of a method that was not fitted on a single axis."""


def plain_model(name: str) -> str:
    """Return a model's own name, also if a joined report calls it "MODEL @ RUN"."""
    return name.partition(" @ ")[0]


class Fitted(NamedTuple):
    """A row: a method fitted on one axis."""

    model: str
    method: str
    axis: str
    """"" where it was fitted on no single axis."""


class Measured(NamedTuple):
    """A column: one axis of a benchmark."""

    benchmark: str
    metric: str
    axis: str
    """"" where the benchmark has no axes, so that all of it is meant."""


@dataclass(frozen=True)
class Effect:
    """Effect of a method, fitted on one axis, on one measured axis."""

    record: Record
    """Record with the paired difference; its p_holm is adjusted over the whole matrix."""
    targeted: bool
    """Whether the measured axis is the one that the method was fitted on."""
    better: bool | None
    """Whether it is better as measured; None if it is shown as no change, or is unknown."""
    significant: bool
    """Whether a test shows that the difference is not 0."""
    shown: bool
    """Whether a test shows the gain, too. A bias that changes sign can differ without being better or worse."""

    @property
    def mark(self) -> str:
        """Arrow for better or worse, hollow if no test shows it; a star if the difference is significant."""
        arrow = ""
        if self.better is not None:
            filled, hollow = (BETTER, BETTER_FOUND) if self.better else (WORSE, WORSE_FOUND)
            arrow = filled if self.shown else hollow
        return arrow + "*" * self.significant

    @property
    def lines(self) -> tuple[str, str]:
        """Return the difference with its mark, and its interval."""
        r = self.record
        if r.difference != r.difference:
            return UNKNOWN, ""
        ends = interval(r.difference_low, r.difference_high, signed=True)
        return f"{number(r.difference, signed=True)} {self.mark}".rstrip(), ends


@dataclass(frozen=True)
class SpilloverMatrix:
    """Paired differences from the baseline, by the axis that a method was fitted on and the axis measured."""

    rows: tuple[Fitted, ...]
    columns: tuple[Measured, ...]
    cells: Mapping[tuple[Fitted, Measured], Effect]
    """Effects by row and column, without cells that have no items."""
    worse: CountBelow
    """Number of cells of untargeted axes, and how many of them are worse than the baseline."""
    criteria: Criteria
    demo: bool = False
    remarks: tuple[str, ...] = ()
    """One sentence for each row that has no numbers, or that changed no answer."""

    def frame(self) -> pd.DataFrame:
        """Return one line per cell: both values, difference and interval, p over the matrix, and if it is targeted."""
        import pandas as pd

        lines = []
        for (row, column), effect in self.cells.items():
            r = effect.record
            lines.append(
                {
                    "model": row.model,
                    "method": row.method,
                    "fitted_on": row.axis or ALL,
                    "benchmark": column.benchmark,
                    "metric": column.metric,
                    "axis": column.axis or OVERALL,
                    "targeted": effect.targeted,
                    "value_before": r.value - r.difference,
                    "value_after": r.value,
                    "difference": r.difference,
                    "difference_low": r.difference_low,
                    "difference_high": r.difference_high,
                    "gain": r.gain,
                    "gain_low": r.gain_low,
                    "gain_high": r.gain_high,
                    "p_holm": r.p_holm,
                    "better": effect.better,
                    "significant": effect.significant,
                    "shown": effect.shown,
                    "n": r.n,
                    "clusters": r.clusters,
                }
            )
        return pd.DataFrame(lines)

    def summary(self) -> str:
        """Return how many cells of untargeted axes got worse, in one sentence."""
        found, low, high, cells, unknown = self.worse
        if not cells:
            return "Every axis that was measured is the one that the method was fitted on."
        what = "cells" if any(not row.axis for row in self.rows) else "untargeted cells"
        share = f"{found} of {cells} {what} ({percent(found / cells)}) got worse as measured"
        left = f"; {unknown} with fewer than {MIN_CLUSTERS} clusters or no interval may be either" if unknown else ""
        return f"{share}; of the true number, {self.criteria.level:g} % interval [{low}, {high}]{left}."

    def notes(self) -> list[str]:
        """Return notes beyond the numbers: rows without numbers or effect, and axes that were not measured."""
        known = list(dict.fromkeys(column.axis for column in self.columns if column.axis))
        lines = list(self.remarks)
        for axis in dict.fromkeys(row.axis for row in self.rows):
            if axis and not any(same_axis(axis, other) for other in known):
                told = suggest(axis, known)
                lines.append(f"{axis} is not an axis that was measured, so it has no targeted cell. {told}")
        return lines
