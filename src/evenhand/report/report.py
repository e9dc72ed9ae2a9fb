"""`Report`: the result of a comparison, for a notebook, a terminal or a file."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evenhand.errors import RunError
from evenhand.records import Record
from evenhand.report.text import DEMO_LABEL, INTERVALS, cell, markdown, metric_name, number
from evenhand.report.verdict import Verdict, verdicts

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from rich.console import RenderableType


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

    def markdown(self) -> str:
        """The summary as Markdown; names from models and plugins are escaped."""
        from jinja2 import Environment, PackageLoader, StrictUndefined

        environment = Environment(
            loader=PackageLoader("evenhand.report"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
            autoescape=False,  # Markdown, not HTML: every name goes through the md filter
        )  # fmt: skip
        environment.filters["md"] = markdown
        environment.filters["words"] = metric_name
        template = environment.get_template("summary.md.j2")
        return template.render(
            manifest=self.manifest,
            demo=DEMO_LABEL if self.demo else "",
            grids=list(self._grid("overall")),
            verdicts=self.verdicts(),
            troubles=[r for r in self.records if r.status in ("failed", "not applicable")],
            intervals=INTERVALS,
        )

    def save(self, folder: str | Path) -> None:
        """Write summary.md and intervals.png; each appears whole or not at all."""
        target = Path(folder)
        _replace(target / "summary.md", lambda f: f.write_text(self.markdown(), encoding="utf-8"))
        _replace(target / "intervals.png", lambda f: self.plot().savefig(f, dpi=130, format="png"))

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
        parts = [f"<p><b>{escape(DEMO_LABEL)}</b></p>"] if self.demo else []
        for benchmark, metrics, lines in self._grid("overall"):
            head = "".join(f"<th>{escape(metric_name(m))}</th>" for m in ("model", "method", *metrics))
            body = "".join(
                "<tr>" + "".join(f"<td>{escape(c)}</td>" for c in (model, method, *cells)) + "</tr>"
                for (model, method), cells in lines.items()
            )
            parts.append(
                f"<p>{escape(benchmark)}</p><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
            )
        verdict = "".join(f"<li>{escape(f'{v.model}, {v.method}: {v.text}')}</li>" for v in self.verdicts())
        return (
            "".join(parts) + (f"<ul>{verdict}</ul>" if verdict else "") + f"<p><small>{escape(INTERVALS)}</small></p>"
        )

    def __rich__(self) -> RenderableType:
        """The terminal view; rich calls this."""
        from evenhand.report.terminal import render

        return render(self)

    def __repr__(self) -> str:
        """Short, for logs."""
        cells = {(r.model, r.method, r.benchmark) for r in self.records}
        return f"Report({len(cells)} comparisons, {len(self.records)} numbers, folder={self.folder})"

    def grids(self) -> list[tuple[str, list[str], dict[tuple[str, str], list[str]]]]:
        """Per benchmark the main metrics and every (model, method)'s cells, for renderers."""
        return list(self._grid("overall"))

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
