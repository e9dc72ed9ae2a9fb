"""`Report`: the result of a comparison, for a notebook, a terminal or a file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evenhand.core import file_io
from evenhand.core.records import Record
from evenhand.errors import RunError, suggest
from evenhand.report import blocks
from evenhand.report.content import Content
from evenhand.report.gaps import unanswered, unread, without_numbers
from evenhand.report.text import DEMO_LABEL, intervals_mean, markdown, metric_name

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from rich.console import RenderableType

    from evenhand.report.transcript import Transcript

FEW = 30
"""Tables by group stand open on the page where they have at most that many rows together."""


class Report(Content):
    """Records with the facts behind them.

    In a notebook a report shows itself as a table; `table()`, `frame()` and `plot()` give the parts.
    """

    @classmethod
    def load(cls, folder: str | Path) -> Report:
        """Read the report of a run folder.

        Raises:
            RunError: The folder is no run, or a run that was stopped before it had numbers.
        """
        import pyarrow.parquet as pq

        path = Path(folder)
        scores, manifest = path / "scores.parquet", path / "manifest.json"
        if not manifest.is_file():
            raise RunError(f"{path} is no run folder: it holds no manifest.json")
        if not scores.is_file():
            raise RunError(f"the run in {path} was stopped before it had numbers: run the same command again to go on")
        names = {f.name for f in dataclasses.fields(Record)}
        rows = [{k: v for k, v in row.items() if k in names} for row in pq.read_table(scores).to_pylist()]
        facts = json.loads(manifest.read_text(encoding="utf-8"))
        return cls([Record(**row) for row in rows], facts, path)

    def frame(self, *, main_only: bool = False) -> pd.DataFrame:
        """One row per record."""
        import pandas as pd

        rows = [dataclasses.asdict(r) for r in self.records if r.main or not main_only]
        return pd.DataFrame(rows, columns=[f.name for f in dataclasses.fields(Record)])

    def table(self, group: str = "overall") -> pd.DataFrame:
        """Main metrics of one group: a row per model, benchmark and method, cells with value and interval."""
        import pandas as pd

        rows = {}
        for benchmark, metrics, lines in self.grids(group):
            for (model, method), cells in lines.items():
                named = {
                    c.title if not c.counts else f"n of {metric_name(c.metric)}": text
                    for c, text in zip(metrics, cells, strict=True)
                }
                rows[model, benchmark, method] = named
        index = pd.MultiIndex.from_tuples(rows, names=["model", "benchmark", "method"]) if rows else None
        table = pd.DataFrame(list(rows.values()), index=index)
        if self.demo:
            table.attrs["label"] = DEMO_LABEL
            table.columns.name = DEMO_LABEL
        return table

    def plot(self, metrics: Sequence[str] | None = None, group: str = "overall") -> Figure:
        """Value and interval of every method, one panel a metric; the main metrics unless named."""
        from evenhand.report.plot import interval_plot

        return interval_plot(self.records, metrics, group, self.demo, 100 * (1 - self.criteria.alpha))

    def transcripts(self, item: str, *, model: str = "", method: str = "", benchmark: str = "") -> list[Transcript]:
        """The whole dialogues behind the answers to one item, of every cell that fits.

        Args:
            item: Its id, as in answers/*.parquet.
            model: Only this one; "" takes all.
            method: Only this spec, such as "none".
            benchmark: Only this spec.

        Raises:
            RunError: The report has no run folder, or no such answer.
        """
        from evenhand.report.transcript import transcripts

        if self.folder is None:
            raise RunError("answers are kept in a run folder only; give compare(..., out=FOLDER)")
        wanted = {"model": model, "method": method, "benchmark": benchmark}
        usage = self.manifest.get("usage", [])
        return transcripts(self.folder, usage, item, {k: v for k, v in wanted.items() if v})

    def markdown(self) -> str:
        """The summary as Markdown; names from models and plugins are escaped."""
        return self._rendered("summary.md.j2", markup=False)

    def html(self) -> str:
        """A page of its own: all tables, by group too, and the interval plot. Every name is escaped."""
        import base64
        import io

        picture = io.BytesIO()
        self.plot().savefig(picture, dpi=110, format="png")
        return self._rendered("page.html.j2", plot=base64.b64encode(picture.getvalue()).decode())

    def save(self, folder: str | Path) -> None:
        """Write report.html, summary.md and intervals.png; each appears whole or not at all."""
        target = Path(folder)
        _replace(target / "report.html", lambda f: f.write_text(self.html(), encoding="utf-8"))
        _replace(target / "summary.md", lambda f: f.write_text(self.markdown(), encoding="utf-8"))
        _replace(target / "intervals.png", lambda f: self.plot().savefig(f, dpi=130, format="png"))

    def _rendered(self, template: str, *, markup: bool = True, **more: Any) -> str:
        from jinja2 import Environment, PackageLoader, StrictUndefined

        environment = Environment(
            loader=PackageLoader("evenhand.report"),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            autoescape=markup,  # in Markdown every name goes through the md filter instead
        )
        environment.filters["md"] = markdown
        environment.filters["words"] = metric_name
        return environment.get_template(template).render(
            manifest=self.manifest,
            demo=DEMO_LABEL if self.demo else "",
            grids=self.grids("overall"),
            counts=self.counts,
            sections=self.sections,
            by_group=self.by_group,
            verdicts=self.verdicts(),
            unread=unread(self.numbers),
            unanswered=unanswered(self.manifest, self.numbers),
            untold=self.untold(),
            troubles=without_numbers(self.numbers),
            few=FEW,
            meanings=". ".join([intervals_mean(self.criteria), *blocks.meanings(self.numbers, self.costs())]),
            **more,
        )

    def _repr_html_(self) -> str:
        return self._rendered("body.html.j2")

    def __rich__(self) -> RenderableType:
        """The terminal view; rich calls this."""
        return self.rendered()

    def rendered(self, group: str = "overall") -> RenderableType:
        """The terminal view of one group; "all" shows the overall numbers and those by group.

        Raises:
            RunError: There is no such group.
        """
        from evenhand.report.terminal import View

        groups = {r.group for r in self.records}
        if group != "all" and group not in groups and groups:
            raise RunError(f"no group {group!r} in this run. {suggest(group, groups)}")
        return View(self, group)

    def __repr__(self) -> str:
        """Short, for logs."""
        cells = {(r.model, r.method, r.benchmark) for r in self.records}
        return f"Report({len(cells)} comparisons, {len(self.records)} numbers, folder={self.folder})"


def _replace(target: Path, write: Any) -> None:
    try:
        file_io.write_with(target, write)
    except OSError as error:
        raise RunError(f"cannot write {target} ({error.strerror or error}); free some space and run again") from error
