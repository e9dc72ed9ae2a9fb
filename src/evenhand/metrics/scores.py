"""`Scores`: the numbers of one set of predictions."""

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

    It is made by `evenhand.metrics.NAME` and `evenhand.metrics.measure`. In a notebook it shows itself as a table.
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
        """Take answers that fit the items; the numbers are computed when they are first asked for."""
        self.benchmark, self.label, self.level = benchmark, label, level
        self.items, self.answers = given.items, list(answers)
        self._given, self._replicates, self._seed = given, replicates, bootstrap_seed
        self._criteria(level)  # which refuses a level that makes no sense

    @cached_property
    def report(self) -> Report:
        """The same numbers as a `Report`, with tables, a plot and a page."""
        return self._report([self._cell(BASELINE)], self.level)

    @property
    def records(self) -> list[Record]:
        """All numbers with everything that qualifies them."""
        return self.report.records

    @property
    def overall(self) -> dict[str, float]:
        """The value of every metric over all items; nan where it is not defined, such as where nothing is answered."""
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
        """The interval of every metric in one group, as reports give it.

        Args:
            level: Such as 0.95; None is the level of the whole.
            group: A group of the benchmark.

        Returns:
            By metric both ends; nan where an interval is missing, and the note in `frame()` says why.

        Raises:
            SettingsError: The group is unknown, or the level is not between 0.5 and 1.
        """
        report = self.report if level is None or level == self.level else self._report([self._cell(BASELINE)], level)
        groups = dict.fromkeys(r.group for r in report.records)
        if group not in groups:
            raise SettingsError(f"{self.benchmark.name}: no group {group!r} here; there are {', '.join(groups)}")
        return {r.metric: (r.low, r.high) for r in report.records if r.metric and r.group == group}

    def compare(self, predictions: Any, *, label: str = "other", margin: float = CRITERIA.margin) -> Report:
        """Other predictions on the same items, compared with these, pair by pair.

        Args:
            predictions: As the function that made these scores took them, or `Scores` of the same items.
            label: What to call them in tables.
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
        """One row per number, with all that is known of it."""
        return self.report.frame(main_only=main_only)

    def __repr__(self) -> str:
        """The main metrics with their intervals."""
        shown = [r for r in self.records if r.main and r.group == OVERALL]
        lines = [f"  {r.metric}: {number(r.value)} {interval(r.low, r.high)}".rstrip() for r in shown]
        head = f"{self.label} on {self.benchmark.spec}, {len(self.items):,} items, {100 * self.level:g} % intervals"
        return "\n".join([f"Scores({head})", *lines])

    def _repr_html_(self) -> str:
        """The report's tables; every name in them is escaped."""
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
