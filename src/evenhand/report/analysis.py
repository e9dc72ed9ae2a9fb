"""`Analysis`: the questions that a report answers beyond its tables: which method, at what cost, on which items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evenhand.core.records import BASELINE, Record
from evenhand.report.answers import Source, StoredCell, answer_frame, chosen, stored_cells
from evenhand.report.changes import Changes, changed_items
from evenhand.report.content import Content
from evenhand.report.gaps import unfinished
from evenhand.report.heat import HeatMap, heat_map
from evenhand.report.leaderboard import Cell, Leaderboard, leaderboard
from evenhand.report.pareto import ParetoPoint, settings_of, with_curves
from evenhand.report.rivals import rivals_in

if TYPE_CHECKING:
    import altair as alt
    import pandas as pd

    from evenhand.report.differences import Difference
    from evenhand.report.spillover_matrix import Kind, Spillover


class Analysis(Content):
    """The records of a run with its facts, and its answers if they are kept."""

    def __init__(
        self,
        records: Sequence[Record],
        manifest: dict[str, Any],
        folder: Path | None = None,
        sources: Sequence[Source] = (),
    ) -> None:
        """Take the records of a run.

        Args:
            records: All numbers of the run.
            manifest: Facts of the run: models, benchmarks, versions, cost.
            folder: Run folder, if there is one.
            sources: The runs that were joined; empty if there is only this one.
        """
        super().__init__(records, manifest, folder)
        self.sources = tuple(sources) or (Source("", folder, manifest, {}),)

    def cells(self) -> list[StoredCell]:
        """Return every finished cell whose answers are kept; none without a run folder."""
        return stored_cells(self.sources)

    def missing(self) -> list[str]:
        """Return what was asked for and has no numbers, because the run was interrupted or a row failed."""
        if len(self.sources) == 1:
            return unfinished(self.manifest, self.numbers)
        return [f"{s.name}: {line}" for s in self.sources for line in unfinished(s.manifest, self.numbers, s.labels)]

    def leaderboard(self, bias: str | None = None, capability: str | None = None) -> Leaderboard:
        """Rank methods by their bias, with accuracy, abstention, capability and cost.

        Args:
            bias: Metric to rank by, such as "bias_ambiguous" or "bbq(source=demo):bias_ambiguous"; None takes the run's
                first main metric of bias.
            capability: Metric of capability; None takes one of a benchmark that does not measure bias, if there is one.

        Raises:
            SettingsError: There is no such metric in this run.
        """
        return leaderboard(
            self.numbers,
            self.costs(),
            rivals_in(self.manifest),
            self.criteria,
            bias=bias,
            capability=capability,
            demo=self.demo,
            missing=self.missing(),
        )

    def pareto(self, bias: str | None = None, capability: str | None = None) -> list[ParetoPoint]:
        """Return every row with its bias, capability and cost, with intervals; rows without a bias are left out.

        Points that differ in a single number, such as those of a sweep, have the same `curve`.

        Args:
            bias: As in `leaderboard`.
            capability: As in `leaderboard`.

        Raises:
            SettingsError: There is no such metric in this run.
        """
        return _points(self.leaderboard(bias, capability))

    def heat(self, metric: str | None = None, *, benchmark: str = "", model: str = "") -> HeatMap:
        """Lay out one metric by method and group, each cell with its n and interval.

        Args:
            metric: A metric of bias or capability, or "BENCHMARK:METRIC"; None takes the run's first bias metric.
            benchmark: Only this spec.
            model: Only this one.

        Raises:
            SettingsError: There is no such metric in this run.
        """
        return heat_map(self.numbers, self.criteria, metric, benchmark, model)

    def pareto_chart(self, bias: str | None = None, capability: str | None = None) -> alt.LayerChart:
        """Chart the points of `pareto`: bias across, capability upwards, cost as size; `.save("pareto.svg")` writes it.

        Args:
            bias: As in `leaderboard`.
            capability: As in `leaderboard`.

        Raises:
            SettingsError: There is no such metric in this run.
        """
        from evenhand.report.charts import pareto_chart

        board = self.leaderboard(bias, capability)
        able = board.column("capability") or board.column("disambiguated_accuracy")
        titles = [
            column.title if column else kind for column, kind in ((board.column("bias"), "bias"), (able, "capability"))
        ]
        return pareto_chart(_points(board), bias=titles[0], capability=titles[1], demo=self.demo)

    def heat_chart(self, metric: str | None = None, *, benchmark: str = "", model: str = "") -> alt.LayerChart:
        """Chart the result of `heat`; `.save("groups.svg")`, or .pdf, writes it.

        Args:
            metric: As in `heat`.
            benchmark: Only this spec.
            model: Only this one.

        Raises:
            SettingsError: There is no such metric in this run.
        """
        from evenhand.report.charts import heat_chart

        return heat_chart(self.heat(metric, benchmark=benchmark, model=model), demo=self.demo)

    def answers(self, *, model: str = "", method: str = "", benchmark: str = "") -> pd.DataFrame:
        """Return all answers as one table, with one line per item and row of the report.

        The columns are those of the files (docs/results.md), plus `run`, `seed` and `wording`.

        Args:
            model: Only this one; "" takes all.
            method: Only this row.
            benchmark: Only this spec.

        Raises:
            RunError: No answers are kept, there is no such name, or a file is damaged.
        """
        return answer_frame(chosen(self.cells(), model=model, benchmark=benchmark, method=method))

    def changes(self, method: str, against: str = BASELINE, *, model: str = "", benchmark: str = "") -> Changes:
        """Find the items that two rows answer differently; those that turned from right to wrong come first.

        Args:
            method: Row of the report, such as "self_debias".
            against: Row to compare it with. "none" is the method's own baseline, whose answers are read in the same
                way.
            model: Only this one; "" takes all.
            benchmark: Only this spec; "" takes all.

        Raises:
            RunError: No answers are kept, there is no such row, or the two have no item in common.
        """
        return changed_items(self.cells(), method, against, model=model, benchmark=benchmark)

    def difference(self, a: str, b: str, *, model: str = "", method: str = "", benchmark: str = "") -> Difference:
        """Compute the change from `a` to `b`: every metric of b minus that of a, paired on items that both answered.

        Args:
            a: A row of the report (a method), a model, a run of a joined report, or a benchmark. If it is a benchmark,
                `b` must ask the same in another language, as "esbbq" and "cabbq" do, and parallel items are paired.
            b: Another one of the same kind.
            model: Only this one; "" takes all.
            method: Only this row.
            benchmark: Only this spec.

        Raises:
            RunError: No answers are kept, there is no such row, or nothing can be compared; the message says why.
            SettingsError: `a` and `b` are of different kinds.
        """
        from evenhand.report.differences import difference
        from evenhand.report.paired_numbers import Bootstrap

        wanted = {"model": model, "method": method, "benchmark": benchmark}
        return difference(self.cells(), self.criteria, a, b, **wanted, bootstrap=Bootstrap.of(self.manifest))

    def spillover(
        self,
        metric: str | None = None,
        *,
        kind: Kind = "bias",
        model: str = "",
        methods: Sequence[str] = (),
        targets: Mapping[str, str] | None = None,
    ) -> Spillover:
        """Show what methods that were fitted on one axis of bias did to every axis and benchmark.

        Join the runs of several axes (`Report.join`), or let `evenhand.spillover` make them. The axis that a row was
        fitted on is read from its run's training data, as in train="bbq(axes=('Age',),part=fit)", else from its
        settings (`axis=`).

        Args:
            metric: One metric, or "BENCHMARK:METRIC"; None takes every benchmark's first main one of `kind`.
            kind: "bias" or "capability".
            model: Only this one, in every run; "" takes all.
            methods: Only these rows; empty takes all, controls included.
            targets: The axis that rows were fitted on, by their method or by the label of their run, where neither the
                training data nor the settings say so.

        Raises:
            RunError: There is no such row, or none with a difference.
            SettingsError: There is no such metric or method.
        """
        from evenhand.report.spillover_matrix import spillover

        wanted: dict[str, Any] = {"kind": kind, "model": model, "methods": methods, "targets": targets}
        return spillover(self.numbers, self.criteria, self.sources, metric, **wanted, demo=self.demo)


def _points(board: Leaderboard) -> list[ParetoPoint]:
    """Return the rows that have a bias as points."""
    nothing = Cell()
    points = []
    for row in board.rows:
        found = row.cells.get("bias", nothing)
        able = row.cells.get("capability") or row.cells.get("disambiguated_accuracy") or nothing
        calls, seconds = (row.cells.get(key, nothing).value for key in ("calls", "seconds"))
        numbers = found.value, found.low, found.high, able.value, able.low, able.high, calls, seconds
        if not isnan(found.value):
            names = row.model, row.method, row.baseline, settings_of(row.method)
            points.append(ParetoPoint(*names, *numbers, row.pareto, row.dominated_by))
    return with_curves(points)
