"""The heat map: one metric by method and axis, each cell with its n and interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import TYPE_CHECKING, NamedTuple

from evenhand.core.records import WORST_GROUP, Record
from evenhand.core.text_output import count, interval, number, visible
from evenhand.report.board import improved
from evenhand.report.measures import chosen_measures
from evenhand.statistics.criteria import Criteria

if TYPE_CHECKING:
    import pandas as pd


class HeatCell(NamedTuple):
    """Value of one method on one group."""

    model: str
    method: str
    group: str
    value: float
    low: float
    high: float
    n: float
    """Number of answers that the value rests on."""
    clusters: int
    difference: float
    """Value minus that of the baseline."""
    better: bool | None
    significant: bool

    @property
    def text(self) -> str:
        """Value, interval and n."""
        ends = interval(self.low, self.high)
        return " ".join(filter(None, (number(self.value) + "*" * self.significant, ends, f"n={count(self.n)}")))


@dataclass(frozen=True)
class HeatMap:
    """One metric by row and group."""

    benchmark: str
    metric: str
    direction: str
    """Which way is better: "lower", "higher" or "zero" (nearer zero)."""
    groups: tuple[str, ...]
    rows: tuple[tuple[str, str], ...]
    """Rows as (model, method)."""
    cells: Mapping[tuple[str, str, str], HeatCell]
    """Cells by model, method and group, without groups in which a row has no answer."""

    def frame(self) -> pd.DataFrame:
        """Return one line per cell."""
        import pandas as pd

        return pd.DataFrame(list(self.cells.values()), columns=HeatCell._fields)

    def _repr_html_(self) -> str:
        table = self.frame()
        table["shown"] = [cell.text for cell in self.cells.values()]
        wide = table.pivot(index=["model", "method"], columns="group", values="shown")
        shown = wide.reindex(index=list(self.rows), columns=list(self.groups)).fillna("–")
        return visible(shown.to_html(escape=True))


def heat_map(
    records: Sequence[Record], criteria: Criteria, metric: str | None = None, benchmark: str = "", model: str = ""
) -> HeatMap:
    """Lay one metric out by method and group.

    Args:
        records: All numbers except costs.
        criteria: Level of the tests.
        metric: A metric of bias or capability, or "BENCHMARK:METRIC"; None takes the run's first bias metric.
        benchmark: Only this spec.
        model: Only this one.

    Raises:
        SettingsError: There is no such metric.
    """
    shown = [r for r in records if model in ("", r.model) and benchmark in ("", r.benchmark)]
    kinds = {name: r.kind for r in shown for name in (r.metric, f"{r.benchmark}:{r.metric}")}
    is_capability = metric is not None and kinds.get(metric, kinds.get(metric.rpartition(":")[2])) == "capability"
    names = (None, metric) if is_capability else (metric, None)
    measures = chosen_measures(shown, *names)
    if not measures:
        return HeatMap(benchmark, metric or "", "none", (), (), {})
    measure = measures[-1] if is_capability else measures[0]
    mine = [r for r in shown if (r.benchmark, r.metric) == measure[:2] and r.group != WORST_GROUP]
    mine = [r for r in mine if r.n and not isnan(r.value)]
    groups = [g for g in dict.fromkeys(r.group for r in mine) if g != "overall"]
    cells = {(r.model, r.method, r.group): _cell(r, criteria) for r in mine}
    rows = tuple(dict.fromkeys((r.model, r.method) for r in mine))
    return HeatMap(measure.benchmark, measure.metric, measure.direction, ("overall", *groups), rows, cells)


def _cell(r: Record, criteria: Criteria) -> HeatCell:
    numbers = r.value, r.low, r.high, r.n, r.clusters, r.difference
    return HeatCell(r.model, r.method, r.group, *numbers, improved(r.gain), criteria.significant(r))
