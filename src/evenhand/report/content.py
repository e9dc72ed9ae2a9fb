"""Content of every view of a report: tables, verdicts and costs, as texts in their places."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from evenhand.core.records import Record
from evenhand.core.text_output import count
from evenhand.report import blocks
from evenhand.report.cost import Cost, costs, costs_in, is_cost
from evenhand.report.gaps import failures, remarked, unanswered, unread
from evenhand.report.text import cell, counted
from evenhand.report.verdict import Verdict, verdicts
from evenhand.statistics.criteria import Criteria

Grid = tuple[str, list[blocks.Column], dict[tuple[str, str], list[str]]]
"""A benchmark, the columns of its table, and the cells by (model, method)."""


class Content:
    """Records with the facts about them, laid out for the page, the terminal and the summary."""

    def __init__(self, records: Sequence[Record], manifest: dict[str, Any], folder: Path | None = None) -> None:
        """Take the records of a run.

        Args:
            records: All numbers.
            manifest: Facts: models, benchmarks, versions, cost.
            folder: Run folder, if there is one.
        """
        self.records, self.manifest, self.folder = list(records), manifest, folder

    @property
    def demo(self) -> bool:
        """Whether a demo model was compared, which every view then states."""
        return bool(self.manifest.get("demo"))

    @property
    def criteria(self) -> Criteria:
        """Level, margin and family of the run's tests."""
        return Criteria.of(self.manifest)

    @property
    def numbers(self) -> list[Record]:
        """The records without those of costs, which have a table of their own and are not judged."""
        return [r for r in self.records if not is_cost(r)]

    def verdicts(self) -> list[Verdict]:
        """Return a verdict in words for every method."""
        return verdicts(self.numbers, self.criteria)

    def untold(self) -> list[Verdict]:
        """Return what no verdict states: rows without numbers, missing or unreadable answers, and doubts."""
        numbers = self.numbers
        doubts = remarked(self.manifest, numbers)
        return [*failures(numbers), *unanswered(self.manifest, numbers), *unread(numbers), *doubts]

    def costs(self) -> list[Cost]:
        """Return calls, tokens and time per item of every row, and the surplus over the baseline."""
        told = {c[:3]: c for c in costs_in(self.records)}
        # rows without numbers and runs of earlier versions have no such records
        return list({**{c[:3]: c for c in costs(self.manifest)}, **told}.values())

    def grids(self, group: str = "overall") -> list[Grid]:
        """Return per benchmark the main metrics and the cells of every (model, method), for renderers."""
        return list(self._grid(group))

    def counts(self, benchmark: str) -> str:
        """Return how many items a benchmark asked, and their clusters; every number has its own n next to it."""
        mine = [r for r in self.numbers if r.benchmark == benchmark and r.group == "overall" and r.metric]
        if not mine:
            return ""
        asked = self.manifest.get("benchmarks", {}).get(benchmark, {}).get("asked")
        items = max(r.n for r in mine) if asked is None else asked
        return f"{count(items)} items, {count(max(r.clusters for r in mine))} clusters"

    def sections(self, benchmark: str, model: str, group: str = "overall") -> list[blocks.Block]:
        """Return what follows a benchmark's main table: answer changes and cost."""
        cost = [c for c in self.costs() if (c.benchmark, c.model) == (benchmark, model)]
        mine = self._of(benchmark, model)
        return [
            *blocks.detectable_block(mine, self.criteria, group),
            *blocks.spread_block(mine, group),
            *blocks.change_blocks(mine, group),
            *blocks.cost_block(cost),
        ]

    def by_group(self, benchmark: str, model: str) -> list[blocks.Block]:
        """Return the main metrics under every method, and the answer changes, group by group."""
        mine = self._of(benchmark, model)
        found = [*blocks.group_blocks(mine, self.criteria), *blocks.change_blocks(mine)]
        return [b._replace(title=f"By group: {b.title}") for b in found if len(b.rows) > 1]

    def _of(self, benchmark: str, model: str) -> list[Record]:
        return [r for r in self.numbers if (r.benchmark, r.model) == (benchmark, model)]

    def _grid(self, group: str) -> Iterator[Grid]:
        """Yield for each benchmark its columns, and the cells of every (model, method)."""
        numbers = self.numbers
        for benchmark in dict.fromkeys(r.benchmark for r in numbers):
            mine = [r for r in numbers if r.benchmark == benchmark]
            shown = [r for r in mine if r.main and r.group == group]
            found = {(r.model, r.method, r.metric): r for r in shown}
            rows = list(dict.fromkeys((r.model, r.method) for r in mine))
            metrics = list(dict.fromkeys(r.metric for r in shown))
            columns = blocks.with_counts({m: [found.get((*row, m)) for row in rows] for m in metrics})
            lines = {}
            for row in rows:
                status = next(r.status for r in mine if (r.model, r.method) == row)
                lines[row] = self._line([found.get((*row, c.metric)) for c in columns], columns, status)
            yield benchmark, columns, lines

    def _line(self, records: Sequence[Record | None], columns: Sequence[blocks.Column], status: str) -> list[str]:
        """Return the cells of one row; without numbers, the reason."""
        first = next((n for n, c in enumerate(columns) if not c.counts), None)
        if not any(records):
            return [status if n == first else "" for n in range(len(columns))]
        texts = [
            "–" if r is None else counted(r) if c.counts else cell(r, self.criteria)
            for c, r in zip(columns, records, strict=True)
        ]
        if status == "no effect" and first is not None:
            texts[first] += " (no effect)"
        return texts
