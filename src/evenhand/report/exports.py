"""Tables of a report for other programs: LaTeX and Markdown for a paper, CSV for a spreadsheet or R.

LaTeX and Markdown have the same tables: the leaderboard, then the main metrics of every benchmark. A value is bold
if it is better than its baseline's after Holm's adjustment, and has a star if it differs from it in either
direction, by the same rule as everywhere else (`Criteria.significant`). CSV has the records, one row each.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, NamedTuple

from evenhand.core.records import Record
from evenhand.core.sinks import csv_field, latex, markdown
from evenhand.core.text_output import UNKNOWN, count, interval, number
from evenhand.errors import RunError, SettingsError, suggest
from evenhand.report.bibliography import bibtex_of_run
from evenhand.report.board import COSTS, written
from evenhand.report.text import DEMO_LABEL, FEW, headed, metric_name
from evenhand.statistics.criteria import FAMILIES, FEW_CLUSTERS, Criteria, fewest_clusters

if TYPE_CHECKING:
    import pandas as pd

    from evenhand.report.analysis import Analysis
    from evenhand.report.leaderboard import Cell, Leaderboard

FORMS = ("csv", "latex", "markdown", "bibtex")

SIGNS = "Bold: better than the baseline; *: differs from the baseline."


class Entry(NamedTuple):
    """One cell of a table."""

    value: str
    spread: str = ""
    """Interval or half-width; "" if there is none."""
    star: bool = False
    """Whether the value differs from its baseline's."""
    bold: bool = False
    """Whether it is better than its baseline's."""


class Sheet(NamedTuple):
    """One table, whose first columns are names and the others entries."""

    title: str
    names: tuple[str, ...]
    """Heads of the columns with names."""
    head: tuple[str, ...]
    """Heads of the columns with entries."""
    rows: list[tuple[tuple[str, ...], list[Entry]]]
    note: str
    """Explanation of the signs."""


def export(report: Analysis, form: str, group: str = "") -> str:
    """Return a report's tables in another program's format.

    Args:
        report: The report.
        form: One of `FORMS`.
        group: Group whose numbers are written, such as "Age"; "all" is every group. "" is "overall" for tables, which
            then begin with the leaderboard, and every group for CSV.

    Raises:
        SettingsError: The format is unknown.
        RunError: The run has no such group.
    """
    known = dict.fromkeys(r.group for r in report.numbers if r.metric)
    if group not in ("", "all") and group not in known:
        raise RunError(f"no group {group!r} in this run. {suggest(group, known)}")
    if form not in FORMS:
        raise SettingsError(f"format {form!r} is not known; give one of {', '.join(FORMS)}")
    if form == "bibtex":
        return bibtex_of_run(report.numbers, report.manifest)
    if form == "csv":
        return csv_of(report.records, group)
    laid_out = latex_table if form == "latex" else markdown_table
    found = [sheet for one in (known if group == "all" else (group or "overall",)) for sheet in sheets(report, one)]
    return "\n\n".join([*([PREAMBLE] if form == "latex" else []), *map(laid_out, found)]) + "\n"


def sheets(report: Analysis, group: str = "overall") -> list[Sheet]:
    """Return the leaderboard, if the group is "overall", and the main metrics of every benchmark in one group."""
    top = [leaderboard_sheet(report.leaderboard())] if group == "overall" else []
    return [sheet for sheet in [*top, *_by_benchmark(report, group)] if sheet.rows and sheet.head]


# ------------------------------------------------------------------------------------------------------------- CSV


def csv_of(records: Sequence[Record], group: str = "") -> str:
    """Return records as CSV with a header line; a missing number is empty.

    A text that a spreadsheet would take for a formula gets an apostrophe in front, and control characters are spelled
    out, since a terminal shows CSV as well.
    """
    rows = [asdict(r) for r in records if group in ("", "all", r.group)]
    written = io.StringIO()
    table = csv.DictWriter(written, [f.name for f in fields(Record)], lineterminator="\n")
    table.writeheader()
    table.writerows({name: _field(value) for name, value in row.items()} for row in rows)
    return written.getvalue()


def frame_csv(frame: pd.DataFrame) -> str:
    """Return a table as CSV with a header line, without its index; texts are written as in `csv_of`."""
    plain = frame.map(csv_field).rename(columns=csv_field)
    return str(plain.to_csv(index=False))


def _field(value: Any) -> Any:
    return "" if value is None or value != value else csv_field(value)


# ----------------------------------------------------------------------------------------------------------- sheets


def leaderboard_sheet(board: Leaderboard) -> Sheet:
    """Return the leaderboard as a table: values with half the width of their intervals, and the Pareto front."""
    several = len({row.model for row in board.rows}) > 1
    rows = []
    for row in board.rows:
        names = (row.method, *((row.model,) if several else ()), row.pareto)
        entries = [_board_entry(column.key, row.cells.get(column.key)) for column in board.columns]
        rows.append((names, entries))
    names = ("method", *(("model",) if several else ()), "Pareto")
    head = tuple(headed(column.title, column.direction) for column in board.columns)
    return Sheet("Leaderboard", names, head, rows, _board_note(board))


def _board_note(board: Leaderboard) -> str:
    """Return what the leaderboard's numbers are, and what its signs mean."""
    measured = [f"{c.title}: {c.benchmark}" for c in map(board.column, ("bias", "capability")) if c is not None]
    pareto = (
        "Pareto: on the front of bias, capability and calls; dominated by a row that is at least as good in all of "
        "these and shown to be better in one; or undecided"
    )
    return " ".join(
        [
            *_demo_note(board.demo),
            *(
                f"{text}."
                for text in ("; ".join(measured), f"± is half the {board.level:g} % interval", pareto)
                if text
            ),
            SIGNS,
        ]
    )


def _demo_note(demo: bool) -> list[str]:
    return [f"A {DEMO_LABEL}: these numbers say nothing about real models."] if demo else []


def _board_entry(key: str, cell: Cell | None) -> Entry:
    if cell is None or math.isnan(cell.value):
        return Entry(UNKNOWN)
    spread = "" if math.isnan(cell.half_width) or key in COSTS else f"±{number(cell.half_width)}"
    return Entry(written(key, cell.value), spread, cell.significant, cell.significant and cell.better is True)


def _by_benchmark(report: Analysis, group: str) -> Iterator[Sheet]:
    criteria = report.criteria
    signs = (
        f"[ ]: {criteria.level:g} % interval over clusters. {SIGNS[:-1]}, p < {criteria.alpha:g} after "
        f"Holm's adjustment over {FAMILIES[criteria.family]}."
    )
    note = " ".join([*_demo_note(report.demo), signs])
    several = len({r.model for r in report.numbers}) > 1
    for benchmark in dict.fromkeys(r.benchmark for r in report.numbers):
        shown = [r for r in report.numbers if r.benchmark == benchmark and r.main and r.group == group]
        metrics = list(dict.fromkeys(r.metric for r in shown))
        found = {(r.model, r.method, r.metric): r for r in shown}
        rows = [
            (
                (*((model,) if several else ()), method),
                [_entry(found.get((model, method, m)), criteria) for m in metrics],
            )
            for model, method in dict.fromkeys((r.model, r.method) for r in shown)
        ]
        directions = {r.metric: r.direction for r in shown}
        head = tuple(headed(metric_name(m), directions[m]) for m in metrics)
        title = benchmark if group == "overall" else f"{benchmark}, {group}"
        yield Sheet(f"{title}: {_size(shown)}", (*(("model",) if several else ()), "method"), head, rows, note)


def _entry(record: Record | None, criteria: Criteria) -> Entry:
    if record is None or math.isnan(record.value):
        return Entry(UNKNOWN)
    star = criteria.significant(record)
    return Entry(number(record.value), interval(record.low, record.high), star, star and record.gain > 0)


def _size(records: Sequence[Record]) -> str:
    """Return the maximum numbers of answers and clusters on which a table's numbers are based."""
    if not records:
        return ""
    few = f" ({FEW})" if min(map(fewest_clusters, records)) < FEW_CLUSTERS else ""
    most = count(max(r.n for r in records)), count(max(r.clusters for r in records))
    return f"up to {most[0]} answers in {most[1]} clusters{few}"


# -------------------------------------------------------------------------------------------------------- Markdown


def markdown_table(sheet: Sheet) -> str:
    """Return a sheet as a GitHub Markdown table, with its title and note; names are escaped."""
    lines = [
        f"**{markdown(sheet.title)}**",
        "",
        _line(map(markdown, (*sheet.names, *sheet.head))),
        _line(["---"] * len(sheet.names) + ["--:"] * len(sheet.head)),
        *(_line([*map(markdown, names), *map(_markdown_entry, entries)]) for names, entries in sheet.rows),
        "",
        markdown(sheet.note),
    ]
    return "\n".join(lines)


def _markdown_entry(entry: Entry) -> str:
    value = f"**{markdown(entry.value)}**" if entry.bold else markdown(entry.value)
    return f"{value} {markdown(entry.spread)}".rstrip() + (r" \*" if entry.star else "")


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


# ----------------------------------------------------------------------------------------------------------- LaTeX

PREAMBLE = "% \\usepackage{booktabs,graphicx}"
"""LaTeX packages that a document needs for these tables: rules, and scaling of wide tables."""
_NUMBER = re.compile(r"[-+]?\d[\d.]*")


def latex_table(sheet: Sheet) -> str:
    """Return a sheet as a floating table with booktabs' rules; one that is too wide is scaled to the line."""
    import pandas as pd

    columns = [latex(text) for text in (*sheet.names, *sheet.head)]
    rows = [[*map(latex, names), *map(_latex_entry, entries)] for names, entries in sheet.rows]
    styled = pd.DataFrame(rows, columns=pd.Index(range(len(columns)))).style.hide(axis="index")
    heads: dict[object, str] = dict(enumerate(columns))
    styled.format_index(heads.__getitem__, axis=1)
    layout = "l" * len(sheet.names) + "r" * len(sheet.head)
    tabular = styled.to_latex(hrules=True, column_format=layout).rstrip()
    caption = latex(f"{sheet.title}. {sheet.note}")
    label = re.sub(r"\W+", "-", sheet.title.partition(":")[0].lower(), flags=re.A).strip("-")
    return "\n".join(
        [
            r"\begin{table}[htbp]",
            r"\centering\small",
            rf"\caption{{{caption}}}",
            rf"\label{{tab:evenhand-{label}}}",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            f"{tabular}%",
            "}",
            r"\end{table}",
        ]
    )


def _latex_entry(entry: Entry) -> str:
    """Return numbers in math mode, so that a minus is not a hyphen; other texts, such as "200 ms", unchanged."""
    star = "^{*}" if entry.star else ""
    if _NUMBER.fullmatch(entry.value):
        value = f"$\\mathbf{{{entry.value}}}{star}$" if entry.bold else f"${entry.value}{star}$"
    else:
        value = latex(entry.value) + (f"${star}$" if star else "")
    spread = entry.spread.replace("±", r"\pm ").replace(", ", r",\,")
    return f"{value} {{\\scriptsize ${spread}$}}" if spread else value
