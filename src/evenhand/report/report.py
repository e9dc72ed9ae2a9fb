"""`Report`: the result of a comparison, for a notebook, a terminal or a file."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evenhand.core import file_io
from evenhand.core.records import Record
from evenhand.core.run_folder import MANIFEST, SCORES, RunFolder
from evenhand.core.sinks import one_line
from evenhand.errors import RunError, suggest
from evenhand.report import blocks
from evenhand.report.analysis import Analysis
from evenhand.report.answers import NOT_KEPT
from evenhand.report.filled import filled
from evenhand.report.gaps import unanswered, unread, without_numbers
from evenhand.report.plain_text import plain_text
from evenhand.report.text import DEMO_LABEL, intervals_mean, metric_name

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from rich.console import RenderableType

    from evenhand.report.provenance import Section
    from evenhand.report.transcript import Transcript

FEW = 30
"""Tables by group are expanded on the page if they have at most this many rows together."""


class Report(Analysis):
    """Records with the facts about them.

    In a notebook a report is shown as a table; `table()`, `frame()` and `plot()` return the parts.
    """

    @classmethod
    def load(cls, folder: str | Path) -> Report:
        """Read the report of a run folder.

        Raises:
            RunError: The folder is not a run, a run that was stopped before it had numbers, or one with a damaged file.
        """
        path = Path(folder)
        if not (path / MANIFEST).is_file():
            raise RunError(f"{path} is not a run folder: it contains no manifest.json")
        if not (path / SCORES).is_file():
            raise RunError(f"the run in {path} was stopped before it had numbers: run the same command again")
        run = RunFolder(path)
        return cls(run.read_scores(), run.manifest().content, path)

    def frame(self, *, main_only: bool = False) -> pd.DataFrame:
        """Return one row per record."""
        import pandas as pd

        rows = [dataclasses.asdict(r) for r in self.records if r.main or not main_only]
        return pd.DataFrame(rows, columns=[f.name for f in dataclasses.fields(Record)])

    def table(self, group: str = "overall") -> pd.DataFrame:
        """Return the main metrics of a group: a row per model, benchmark and method, with values and intervals."""
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

    def plot(self, metrics: str | Sequence[str] | None = None, group: str = "overall") -> Figure:
        """Plot value and interval of every method, one panel per metric; the main metrics unless some are named."""
        from evenhand.report.plot import interval_plot

        wanted = [metrics] if isinstance(metrics, str) else metrics
        return interval_plot(self.records, wanted, group, self.demo, self.criteria.level)

    def transcripts(self, item: str, *, model: str = "", method: str = "", benchmark: str = "") -> list[Transcript]:
        """Return the whole dialogues of the answers to one item, for every matching cell.

        Args:
            item: Id of the item, as in answers/*.parquet.
            model: Model of the dialogues; "" takes all.
            method: Specification of the method, such as "none"; "" takes all.
            benchmark: Specification of the benchmark; "" takes all.

        Raises:
            RunError: The report has no run folder, or no such answer.
        """
        from evenhand.report.transcript import transcripts

        wanted = {"model": model, "method": method, "benchmark": benchmark}
        wanted = {k: v for k, v in wanted.items() if v}
        kept = [(s.folder, s.usage) for s in self.sources if s.folder is not None]
        if not kept:
            raise RunError(NOT_KEPT)
        found: list[Transcript] = []
        for n, (folder, usage) in enumerate(kept, 1):
            try:
                found += transcripts(folder, usage, item, wanted)
            except RunError:
                if n == len(kept) and not found:  # some of several runs may have no such answer
                    raise
        return list(dict.fromkeys(found))

    @classmethod
    def join(cls, *reports: Report, names: Sequence[str] = ()) -> Report:
        """Combine several runs in one report, so that their rows are in one table and can be compared.

        Rows that are the same in two runs (model, benchmark, items and answers) are shown once. A model whose rows
        differ between runs is called "MODEL @ RUN" in the later ones. Stars are adjusted again over all methods.

        Args:
            *reports: At least two.
            names: Labels of the runs; the names of their folders, or run 1, run 2 ... unless given.

        Raises:
            SettingsError: There are fewer than two, names are too few or not distinct, or the runs were judged by
                different levels, margins or families.
        """
        from evenhand.report.join import joined

        return cls(*joined(reports, names))

    def markdown(self) -> str:
        """Return the summary as Markdown; names from models and plugins are escaped."""
        from evenhand.report.exports import leaderboard_sheet, markdown_table

        board = self.leaderboard()
        top = markdown_table(leaderboard_sheet(board)) if board.columns else ""
        more = {"leaderboard": top, "missing": board.missing, "rests_on": self.provenance()}
        return self._rendered("summary.md.j2", markup=False, **more)

    def export(self, form: str, group: str = "") -> str:
        """Return the tables as "csv", "latex" or "markdown", or their sources as "bibtex"; see `report.exports`."""
        from evenhand.report.exports import export

        return export(self, form, group)

    def latex(self, group: str = "overall") -> str:
        """Return tables for a paper, with booktabs' rules: the leaderboard, then every benchmark's main metrics.

        A value is bold if it is better than its baseline's after Holm's adjustment.
        """
        return self.export("latex", group)

    def bibtex(self) -> str:
        """Return BibTeX of the methods and benchmarks that have numbers here, and of evenhand."""
        from evenhand.report.bibliography import bibtex_of_run

        return bibtex_of_run(self.numbers, self.manifest)

    def provenance(self) -> list[Section]:
        """Return what the numbers rest on: command, settings, models, data and licences, training, versions, files."""
        from evenhand.report.provenance import provenance

        return provenance(self.manifest, self.records, self.folder)

    def html(self) -> str:
        """Return a self-contained page: leaderboard, charts, changed items, all tables and provenance."""
        return self._page(self.plot())

    def _page(self, figure: Figure) -> str:
        import base64
        import io

        from evenhand.report.page import context

        picture = io.BytesIO()
        figure.savefig(picture, dpi=110, format="png")
        plot = base64.b64encode(picture.getvalue()).decode()
        return self._rendered("page.html.j2", plot=plot, **context(self, self.provenance()))

    def save(self, folder: str | Path) -> None:
        """Write report.html, summary.md and intervals.png; each appears completely or not at all.

        In a run folder their checksums are written last, so that a process that is killed before leaves none that are
        wrong.
        """
        target, figure = Path(folder), self.plot()
        run = RunFolder(target)
        sealed = run.unseal_views() or (self.folder is not None and target.absolute() == self.folder.absolute())
        _replace(target / "report.html", lambda f: f.write_text(self._page(figure), encoding="utf-8"))
        _replace(target / "summary.md", lambda f: f.write_text(self.markdown(), encoding="utf-8"))
        _replace(target / "intervals.png", lambda f: figure.savefig(f, dpi=130, format="png"))
        if sealed:
            run.seal_views()

    def _rendered(self, template: str, *, markup: bool = True, **more: Any) -> str:
        return filled(
            template,
            markup=markup,
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
        from evenhand.report.leaderboard_view import as_html

        board = self.leaderboard()
        return self._rendered("body.html.j2", board=as_html(board) if board.columns else "")

    def __rich__(self) -> RenderableType:
        """Return the terminal view; rich calls this."""
        return self.rendered()

    def rendered(self, group: str = "overall", *, full: bool = False) -> RenderableType:
        """Return the terminal view.

        Args:
            group: "overall" shows the leaderboard; a group, such as "Age", its tables; "all" the overall tables, then
                those by group.
            full: Whether all tables and verdicts follow the leaderboard.

        Raises:
            RunError: The group does not exist.
        """
        from evenhand.report.terminal import Summary, View

        groups = {r.group for r in self.records}
        if group != "all" and group not in groups and groups:
            raise RunError(f"no group {group!r} in this run. {suggest(group, groups)}")
        return View(self, group) if full or group != "overall" else Summary(self)

    def __str__(self) -> str:
        """Return the leaderboard as text, 80 characters wide; `rendered(full=True)` has all tables."""
        return plain_text(self.rendered())

    def __repr__(self) -> str:
        """Return a short description, for logs."""
        cells = {(r.model, r.method, r.benchmark) for r in self.records}
        return f"Report({len(cells)} comparisons, {len(self.records)} numbers, folder={one_line(self.folder)})"


def _replace(target: Path, write: Any) -> None:
    try:
        file_io.write_with(target, write)
    except OSError as error:
        raise RunError(f"cannot write {target} ({error.strerror or error}); free some space and run again") from error
