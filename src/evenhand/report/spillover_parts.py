"""The content of a spillover matrix: what a method fitted on one axis does to every other one."""

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
"""Name of the row of a method that was fitted on no single axis."""


def plain_model(name: str) -> str:
    """A model's own name, where a joined report calls it "MODEL @ RUN"."""
    return name.partition(" @ ")[0]


class Fitted(NamedTuple):
    """A row: a method as it was fitted on one axis."""

    model: str
    method: str
    axis: str
    """"" where it was fitted on no single axis."""


class Measured(NamedTuple):
    """A column: an axis of a benchmark."""

    benchmark: str
    metric: str
    axis: str
    """"" where the benchmark has no axes, so that all of it is meant."""


@dataclass(frozen=True)
class Effect:
    """What a method, fitted on one axis, did to an axis."""

    record: Record
    """With the paired difference; its p_holm is adjusted over the whole matrix."""
    targeted: bool
    """Whether it is the axis that the method was fitted on."""
    better: bool | None
    """As measured; None where it shows as no change, or is not known."""
    significant: bool
    """Whether the difference is not 0, by a test."""
    shown: bool
    """Whether a test shows the gain, too. A bias that changes sign can differ without being better or worse."""

    @property
    def mark(self) -> str:
        """Better or worse, hollow where no test says so; a star where the difference is significant."""
        arrow = ""
        if self.better is not None:
            filled, hollow = (BETTER, BETTER_FOUND) if self.better else (WORSE, WORSE_FOUND)
            arrow = filled if self.shown else hollow
        return arrow + "*" * self.significant

    @property
    def lines(self) -> tuple[str, str]:
        """Difference with its mark, and its interval."""
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
    """Cells without an item are left out."""
    worse: CountBelow
    """Cells of axes that were not targeted, and how many of them are worse than the baseline."""
    criteria: Criteria
    demo: bool = False
    remarks: tuple[str, ...] = ()
    """Rows that have no numbers, or that changed no answer, a sentence each."""

    def frame(self) -> pd.DataFrame:
        """One line per cell: both values, the difference with its interval, p over the matrix, and whether targeted."""
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
        """How many cells of axes that were not targeted got worse, in one sentence."""
        found, low, high, cells, unknown = self.worse
        if not cells:
            return "Every axis that was measured is the one that the method was fitted on."
        what = "cells" if any(not row.axis for row in self.rows) else "untargeted cells"
        share = f"{found} of {cells} {what} ({percent(found / cells)}) got worse as measured"
        left = f"; {unknown} with fewer than {MIN_CLUSTERS} clusters or no interval may be either" if unknown else ""
        return f"{share}; of the true number, {self.criteria.level:g} % interval [{low}, {high}]{left}."

    def notes(self) -> list[str]:
        """What the numbers do not say: rows without numbers or effect, and axes that were not measured."""
        known = list(dict.fromkeys(column.axis for column in self.columns if column.axis))
        lines = list(self.remarks)
        for axis in dict.fromkeys(row.axis for row in self.rows):
            if axis and not any(same_axis(axis, other) for other in known):
                told = suggest(axis, known)
                lines.append(f"{axis} is not an axis that was measured, so it has no targeted cell. {told}")
        return lines
