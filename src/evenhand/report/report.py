"""`Report`: the result of a comparison, for a notebook, a terminal or a file."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evenhand.errors import RunError, suggest
from evenhand.records import Record
from evenhand.report import blocks
from evenhand.report.cost import Cost, costs
from evenhand.report.text import DEMO_LABEL, INTERVALS, cell, markdown, metric_name, number
from evenhand.report.verdict import Verdict, verdicts

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from rich.console import RenderableType

    from evenhand.report.transcript import Transcript

FEW = 30
"""Tables by group stand open on the page where they have at most that many rows together."""


class Report:
    """Records with the facts behind them.

    In a notebook a report shows itself as a table; `table()`, `frame()` and `plot()` give the parts.
    """

    def __init__(self, records: Sequence[Record], manifest: dict[str, Any], folder: Path | None = None) -> None:
        """Take the records of a run.

        Args:
            records: All numbers.
            manifest: Facts: models, benchmarks, versions, cost.
            folder: Run folder, if there is one.
        """
        self.records, self.manifest, self.folder = list(records), manifest, folder

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

    @property
    def demo(self) -> bool:
        """Whether a demo model was compared; every view then says so."""
        return bool(self.manifest.get("demo"))

    def frame(self, *, main_only: bool = False) -> pd.DataFrame:
        """One row per record."""
        import pandas as pd

        rows = [dataclasses.asdict(r) for r in self.records if r.main or not main_only]
        return pd.DataFrame(rows, columns=[f.name for f in dataclasses.fields(Record)])

    def table(self, group: str = "overall") -> pd.DataFrame:
        """Main metrics of one group: a row per model, benchmark and method, cells with value and interval."""
        import pandas as pd

        rows = {}
        for benchmark, metrics, lines in self._grid(group):
            for (model, method), cells in lines.items():
                named = {metric_name(m): c for m, c in zip(metrics, cells, strict=True)}
                rows[model, benchmark, method] = named
        index = pd.MultiIndex.from_tuples(rows, names=["model", "benchmark", "method"]) if rows else None
        table = pd.DataFrame(list(rows.values()), index=index)
        if self.demo:
            table.attrs["label"] = DEMO_LABEL
            table.columns.name = DEMO_LABEL
        return table

    def plot(self, metrics: Sequence[str] | None = None, group: str = "overall") -> Figure:
        """Value and 95 % interval of every method, one panel a metric; the main metrics unless named."""
        from evenhand.report.plot import interval_plot

        return interval_plot(self.records, metrics, group, self.demo)

    def verdicts(self) -> list[Verdict]:
        """A verdict in words for every method."""
        return verdicts(self.records)

    def costs(self) -> list[Cost]:
        """Calls, tokens and time per item of every cell, and what is more than the untouched model."""
        return costs(self.manifest)

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
            loader=PackageLoader("evenhand.report"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
            autoescape=markup,  # in Markdown every name goes through the md filter instead
        )  # fmt: skip
        environment.filters["md"] = markdown
        environment.filters["words"] = metric_name
        return environment.get_template(template).render(
            manifest=self.manifest,
            demo=DEMO_LABEL if self.demo else "",
            grids=list(self._grid("overall")),
            counts=self.counts,
            sections=self.sections,
            by_group=self.by_group,
            verdicts=self.verdicts(),
            troubles=[r for r in self.records if r.status in ("failed", "not applicable")],
            few=FEW,
            meanings=". ".join([INTERVALS, *blocks.meanings(self.records, self.costs())]),
            **more,
        )

    def sections(self, benchmark: str, model: str, group: str = "overall") -> list[blocks.Block]:
        """What stands below a benchmark's main table: answer changes and cost."""
        cost = [c for c in self.costs() if (c.benchmark, c.model) == (benchmark, model)]
        return [*blocks.change_blocks(self._of(benchmark, model), group), *blocks.cost_block(cost)]

    def by_group(self, benchmark: str, model: str) -> list[blocks.Block]:
        """The main metrics under every method, and the answer changes, group by group."""
        mine = self._of(benchmark, model)
        found = [*blocks.group_blocks(mine), *blocks.change_blocks(mine)]
        return [b._replace(title=f"By group: {b.title}") for b in found if len(b.rows) > 1]

    def _of(self, benchmark: str, model: str) -> list[Record]:
        return [r for r in self.records if (r.benchmark, r.model) == (benchmark, model)]

    def _grid(self, group: str) -> Iterator[tuple[str, list[str], dict[tuple[str, str], list[str]]]]:
        """Per benchmark: main metrics, and for every (model, method) its cells."""
        for benchmark in dict.fromkeys(r.benchmark for r in self.records):
            mine = [r for r in self.records if r.benchmark == benchmark]
            shown = [r for r in mine if r.main and r.group == group]
            metrics = list(dict.fromkeys(r.metric for r in shown))
            lines: dict[tuple[str, str], list[str]] = {}
            for model, method in dict.fromkeys((r.model, r.method) for r in mine):
                found = {r.metric: r for r in shown if (r.model, r.method) == (model, method)}
                status = next(r.status for r in mine if (r.model, r.method) == (model, method))
                if not found and metrics:
                    lines[model, method] = [status, *[""] * (len(metrics) - 1)]
                else:
                    lines[model, method] = [cell(found[m]) if m in found else "–" for m in metrics]
                if status == "no effect" and metrics:
                    lines[model, method][0] += " (no effect)"
            yield benchmark, metrics, lines

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

    def grids(self, group: str = "overall") -> list[tuple[str, list[str], dict[tuple[str, str], list[str]]]]:
        """Per benchmark the main metrics and every (model, method)'s cells, for renderers."""
        return list(self._grid(group))

    def counts(self, benchmark: str) -> str:
        """How many answers and clusters stand behind a benchmark's overall numbers."""
        mine = [r for r in self.records if r.benchmark == benchmark and r.group == "overall" and r.metric]
        return f"n = {number(max(r.n for r in mine)).removesuffix('.000')}, {mine[0].clusters} clusters" if mine else ""


def _replace(target: Path, write: Any) -> None:
    part = target.with_name(f".{target.name}.part")
    try:
        write(part)
        os.replace(part, target)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise RunError(f"cannot write {target} ({error.strerror or error}); free some space and run again") from error
