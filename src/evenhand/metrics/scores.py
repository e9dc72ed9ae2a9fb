"""`Scores`: the metrics of one set of predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from numbers import Real
from typing import TYPE_CHECKING, Any

from evenhand.core import registry
from evenhand.core.records import BASELINE, WORST_GROUP, Record, is_baseline
from evenhand.core.text_output import interval, number
from evenhand.errors import SettingsError
from evenhand.evaluation.base import OVERALL
from evenhand.experiment.cells import Cell
from evenhand.experiment.scoring import score
from evenhand.interfaces import Benchmark
from evenhand.metrics.answering import answers_of
from evenhand.metrics.given import Given, by_item
from evenhand.report import Report
from evenhand.statistics.criteria import CRITERIA, Criteria

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("group", "metric", "value", "low", "high", "n", "clusters", "main", "note")


class Scores:
    """Metrics of predictions on one benchmark, overall and by group, with intervals.

    It is made by `evenhand.metrics.NAME` and `evenhand.metrics.measure`. In a notebook it is shown as a table.
    """

    def __init__(
        self,
        benchmark: Benchmark,
        given: Given,
        answers: Sequence[Any],
        *,
        label: str,
        level: float,
        replicates: int,
        bootstrap_seed: int,
    ) -> None:
        """Take answers that fit the items; numbers are computed when first used."""
        self.benchmark, self.label, self.level = benchmark, label, level
        self.items, self.answers = given.items, list(answers)
        self._given, self._replicates, self._seed = given, replicates, bootstrap_seed
        self._criteria(level)  # which refuses an invalid level

    @cached_property
    def report(self) -> Report:
        """Return the same numbers as a `Report`, with tables, a plot and a page."""
        return self._report([self._cell(BASELINE)], self.level)

    @property
    def records(self) -> list[Record]:
        """Return all numbers with everything that qualifies them."""
        return self.report.records

    @property
    def overall(self) -> dict[str, float]:
        """The value of every metric over all items; nan where undefined, such as if nothing is answered."""
        return {r.metric: r.value for r in self.records if r.metric and r.group == OVERALL}

    @property
    def by_group(self) -> pd.DataFrame:
        """A line per group and metric: value, interval, numbers of answers and clusters, and why one is missing.

        The overall numbers and the worst group are in `frame()`.
        """
        import pandas as pd

        rows = [asdict(r) for r in self.records if r.metric and r.group not in (OVERALL, WORST_GROUP)]
        return pd.DataFrame(rows, columns=list(COLUMNS))

    def interval(self, level: float | None = None, group: str = OVERALL) -> dict[str, tuple[float, float]]:
        """Return the interval of every metric in one group, as in reports.

        Args:
            level: Level, such as 0.95; None is the level of these scores.
            group: A group of the benchmark.

        Returns:
            Both ends for each metric; nan if an interval is missing, for which the note in `frame()` gives the reason.

        Raises:
            SettingsError: The group is unknown, or the level is not between 0.5 and 1.
        """
        report = self.report if level is None or level == self.level else self._report([self._cell(BASELINE)], level)
        groups = dict.fromkeys(r.group for r in report.records)
        if group not in groups:
            raise SettingsError(f"{self.benchmark.name}: no group {group!r} here; there are {', '.join(groups)}")
        return {r.metric: (r.low, r.high) for r in report.records if r.metric and r.group == group}

    def compare(self, predictions: Any, *, label: str = "other", margin: float = CRITERIA.margin) -> Report:
        """Compare other predictions on the same items with these, pair by pair.

        Args:
            predictions: Predictions as for the function that made these scores, or `Scores` of the same items.
            label: Their name in tables.
            margin: A loss of capability below this is accepted: the verdict says "held".

        Returns:
            A `Report`: these predictions are its baseline, the row "none", and differences are of the others minus
            these. `verdicts()` puts them in words; `frame()` has differences, intervals and p-values.

        Raises:
            SettingsError: The predictions do not fit the items, or the label is a baseline's.
        """
        if not label or is_baseline(label):
            raise SettingsError(f"label={label!r} is what the first predictions are called; give another one")
        answers = self._others(predictions)
        return self._report([self._cell(BASELINE), self._cell(label, answers)], self.level, margin)

    def frame(self, *, main_only: bool = False) -> pd.DataFrame:
        """Return one row per number, with everything known about it."""
        return self.report.frame(main_only=main_only)

    def __repr__(self) -> str:
        """Show the main metrics with their intervals."""
        shown = [r for r in self.records if r.main and r.group == OVERALL]
        lines = [f"  {r.metric}: {number(r.value)} {interval(r.low, r.high)}".rstrip() for r in shown]
        head = f"{self.label} on {self.benchmark.spec}, {len(self.items):,} items, {100 * self.level:g} % intervals"
        return "\n".join([f"Scores({head})", *lines])

    def _repr_html_(self) -> str:
        """Show the report's tables, with every name escaped."""
        return self.report._repr_html_()

    def _others(self, predictions: Any) -> list[Any]:
        if not isinstance(predictions, Scores):
            return answers_of(self.benchmark, self.items, by_item(self.benchmark, self._given, predictions))
        if predictions.benchmark != self.benchmark or predictions.items != self.items:
            raise SettingsError(
                f"{self.benchmark.name}: the other scores are of other items or settings; give predictions for the "
                "same rows"
            )
        return predictions.answers

    def _cell(self, row: str, answers: Sequence[Any] | None = None) -> Cell:
        cell = Cell(self.label, registry.build_method(BASELINE), self.benchmark, row=row)
        cell.finish(self.items, self.answers if answers is None else answers)
        return cell

    def _criteria(self, level: float, margin: float = CRITERIA.margin) -> Criteria:
        if not isinstance(level, Real) or not 0.5 <= level < 1:
            raise SettingsError(f"level={level!r}: give the level of the intervals, from 0.5 to below 1; 0.95 is usual")
        return Criteria(alpha=round(1 - level, 12), margin=margin)  # 1 - 0.95 is not 0.05, in floating point

    def _report(self, cells: Sequence[Cell], level: float, margin: float = CRITERIA.margin) -> Report:
        criteria = self._criteria(level, margin)
        records = score(cells, replicates=self._replicates, seed=self._seed, criteria=criteria)
        name = {"model": self.label, "benchmark": self.benchmark.spec}
        gaps = [{**name, "method": c.row, **asdict(c.gap)} for c in cells if c.gap is not None]
        manifest: dict[str, Any] = {
            "benchmarks": {self.benchmark.spec: {**Benchmark.facts(self.benchmark), "asked": len(self.items)}},
            "statistics": {**criteria.facts, "replicates": self._replicates},
            "unanswered": gaps,
            "usage": [],
        }
        return Report(records, manifest)
