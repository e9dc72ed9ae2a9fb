"""Exported tables say what the records say, and no name in them acts in LaTeX, Markdown or a spreadsheet."""

from __future__ import annotations

import io
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from markdown_it import MarkdownIt
from tests.report import one_record
from typer.testing import CliRunner

from evenhand.cli.app import app
from evenhand.core.records import Record
from evenhand.core.run_folder import RunFolder
from evenhand.core.sinks import latex as latex_escaped
from evenhand.errors import RunError, SettingsError
from evenhand.report import Report
from evenhand.report.exports import FORMS, Entry, Sheet, latex_table, markdown_table

EVIL = r"[x] a_b & 50% $1$ #2 {y} ~ ^ \input{z} <b> | `c` –"


def record(method: str, metric: str, value: float, **more: Any) -> Record:
    return one_record.record(method, metric, value, **{"n": 1234, **more})


RECORDS = [
    record("none", "bias", 0.5),
    record("none", "accuracy", 0.8),
    record("none", "bias", 0.7, group="Age"),
    record("better", "bias", -0.125, baseline="none", difference=-0.625, gain=0.375, p_holm=0.01),
    record("better", "accuracy", 0.5, baseline="none", difference=-0.3, gain=-0.3, p_holm=0.01),
    record("better", "bias", 0.2, group="Age", baseline="none", difference=-0.5, gain=0.5, p_holm=0.2),
    record("vague", "bias", 0.4, baseline="none", difference=-0.1, gain=0.1, p_holm=0.06),
    record("vague", "accuracy", 0.9, baseline="none", difference=0.1, gain=0.1, p_holm=0.001, clusters=4),
    record(EVIL, "bias", 0.3, baseline="none", difference=-0.2, gain=0.2, p_holm=math.nan, low=math.nan, high=math.nan),
]


@pytest.fixture
def report() -> Report:
    return Report(RECORDS, {"benchmarks": {"bbq": {"asked": 1234}}})


def row_of(text: str, start: str) -> list[str]:
    (line,) = [line for line in main_table(text).splitlines() if line.startswith(start)]
    return [cell.strip() for cell in line.removesuffix(r"\\").split(" & ")]


def main_table(text: str) -> str:
    """The benchmark's table, without the leaderboard above it."""
    return text[text.index(r"\caption{bbq") :]


def test_latex_is_bold_only_where_it_is_significantly_better(report: Report) -> None:
    text = report.latex()
    assert row_of(text, "none ")[1:] == [
        r"$0.500$ {\scriptsize $[0.400,\,0.600]$}",
        r"$0.800$ {\scriptsize $[0.700,\,0.900]$}",
    ]
    better = row_of(text, "better ")
    assert better[1] == r"$\mathbf{-0.125}^{*}$ {\scriptsize $[-0.225,\,-0.025]$}", "a minus, and no hyphen"
    assert better[2] == r"$0.500^{*}$ {\scriptsize $[0.400,\,0.600]$}", "worse: a star, but not bold"
    assert row_of(text, "vague ")[1:] == [
        r"$0.400$ {\scriptsize $[0.300,\,0.500]$}",
        r"$0.900$ {\scriptsize $[0.800,\,1.000]$}",
    ], "p of .06, and 4 clusters, which is below what a star takes"


def test_latex_has_the_leaderboard_first_and_booktabs_rules(report: Report) -> None:
    text = report.latex()
    assert text.startswith("% \\usepackage{booktabs,graphicx}\n")
    captions = re.findall(r"\\caption\{(\w+)", text)
    assert captions == ["Leaderboard", "bbq"]
    for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\begin{table}[htbp]", r"\end{tabular}%"):
        assert text.count(rule) == 2
    assert r"\label{tab:evenhand-bbq}" in text and "1,234 answers in 30 clusters (few clusters)" in text


def test_latex_escapes_every_name(report: Report) -> None:
    text = report.latex()
    assert latex_escaped(EVIL) in text and EVIL not in text
    assert latex_escaped(EVIL) == (
        r"{[}x{]} a\_b \& 50\% \$1\$ \#2 \{y\} \textasciitilde{} \textasciicircum{} \textbackslash{}input\{z\} "
        r"\textless{}b\textgreater{} \textbar{} `c` --"
    )
    assert latex_escaped("a\n\n\x00b\t%") == r"a b \%", "an empty line would end the paragraph within a table"
    cells = row_of(text, "{[}x")
    assert cells[-2:] == ["$0.300$", "--"] and len(cells) == 3, r"the name's own \& is not a separator of cells"


def test_every_latex_row_has_as_many_cells_as_the_head() -> None:
    sheet = Sheet("a_b: c", ("method",), ("x ↑", "right → wrong"), [(("[n]",), [Entry("2.58 ms"), Entry("–")])], "50 %")
    text = latex_table(sheet)
    assert "{lrr}" in text and r"\caption{a\_b: c. 50 \%}" in text and r"\label{tab:evenhand-a_b}" in text
    assert r"method & x $\uparrow$ & right $\rightarrow$ wrong \\" in text
    assert "\n" + r"{[}n{]} & 2.58 ms & -- \\" in text, "a bracket at the head of a row would be an argument"


def test_a_group_or_all_groups_can_be_exported(report: Report) -> None:
    age = report.latex("Age")
    assert r"\caption{bbq, Age:" in age and "Leaderboard" not in age
    assert "$0.200$" in age and "$0.500$" not in age and "mathbf" not in age
    assert report.latex("all").count(r"\begin{table}") == 3
    with pytest.raises(RunError, match=r"no group 'Aeg'.*Did you mean 'Age'"):
        report.latex("Aeg")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = RunFolder(tmp_path)
    folder.write_scores(RECORDS)
    folder.write_manifest({"seed": 0})
    return tmp_path


def test_the_command_prints_them(run: Path) -> None:
    report = Report.load(run)
    for form in FORMS:
        done = CliRunner().invoke(app, ["show", str(run), "--format", form], catch_exceptions=False)
        assert done.output.rstrip("\n") == report.export(form).rstrip("\n")
    done = CliRunner().invoke(app, ["show", str(run), "--format", "latex", "--group", "Age"], catch_exceptions=False)
    assert done.output.rstrip("\n") == report.latex("Age").rstrip("\n")


def test_the_command_refuses_two_outputs_at_once(run: Path) -> None:
    with pytest.raises(SettingsError, match=r"--format csv .*leave out --item, --json and --full"):
        CliRunner().invoke(app, ["show", str(run), "--format", "csv", "--json"], catch_exceptions=False)


def test_an_unknown_format_is_refused(report: Report) -> None:
    with pytest.raises(SettingsError, match="format 'xlsx' is not known; give one of csv, latex, markdown, bibtex"):
        report.export("xlsx")


def test_bibtex_is_a_format_as_well(report: Report) -> None:
    assert report.export("bibtex") == report.bibtex() and "parrish2022bbq" in report.export("bibtex")


def test_csv_has_every_record_and_reads_back_as_the_same_numbers(report: Report) -> None:
    text = report.export("csv")
    back = pd.read_csv(io.StringIO(text), keep_default_na=False, na_values={"value": "", "p_holm": ""})
    frame = report.frame()
    assert list(back.columns) == list(frame.columns) and len(back) == len(RECORDS)
    assert list(back["method"]) == list(frame["method"]) and EVIL in set(back["method"])
    assert back["value"].tolist() == frame["value"].tolist()
    assert math.isnan(back["p_holm"].iloc[-1]) and "nan" not in text.lower()
    age = pd.read_csv(io.StringIO(report.export("csv", "Age")))
    assert age["value"].tolist() == [0.7, 0.2]


@pytest.mark.parametrize("name", ["=1+1", "+a", "-2", "@sum(a)", "\tx"])
def test_a_name_is_no_formula_of_a_spreadsheet(name: str) -> None:
    text = Report([record(name, "bias", -0.5)], {}).export("csv")
    (method,) = pd.read_csv(io.StringIO(text))["method"]
    assert method == f"'{name}"
    assert ",-0.5," in text, "numbers stay numbers"


def test_no_name_acts_on_a_terminal_or_as_a_formula() -> None:
    name = "red \x1b[31m $x^2$ \u202e"
    found = Report([record(name, "bias", -0.5)], {})
    for form in ("csv", "latex", "markdown"):
        text = found.export(form)
        assert "\x1b" not in text, form
        assert "red" in text
    assert "$x" not in found.export("markdown") and "&#36;x^2&#36;" in found.export("markdown")
    assert "\\x1b[31m $x^2$" in found.export("csv")


def tables_in(text: str) -> list[list[list[str]]]:
    """The tables that a renderer of GitHub's Markdown makes, as rows of cells; no rule is left in a text."""
    tables: list[list[list[str]]] = []
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type == "table_open":
            tables.append([])
        elif token.type == "tr_open":
            tables[-1].append([])
        elif token.type in ("th_open", "td_open"):
            tables[-1][-1].append("")
        elif token.type == "inline":
            assert "|---" not in token.content and "| ---" not in token.content, token.content
            if tables and tables[-1] and tables[-1][-1] and tables[-1][-1][-1] == "":
                tables[-1][-1][-1] = "".join(c.content for c in token.children or [])
    return tables


def test_markdown_has_the_same_tables_with_escaped_names(report: Report) -> None:
    board, main = tables_in(report.export("markdown"))
    assert board[0][:2] == ["method", "Pareto"] and [row[0] for row in main] == [
        "method",
        "none",
        "better",
        "vague",
        EVIL,
    ]
    assert main[2][1:] == ["-0.125 [-0.225, -0.025] *", "0.500 [0.400, 0.600] *"]
    assert "| better | **-0.125** \\[-0.225, -0.025\\] \\* | 0.500" in report.export("markdown")
    assert {len(row) for row in main} == {3}


def test_a_demo_model_is_said_in_every_table() -> None:
    demo = Report(RECORDS, {"demo": True})
    for form in ("latex", "markdown"):
        assert demo.export(form).count("say nothing about real models") == 2


def test_the_summary_renders_as_tables() -> None:
    changes = [
        replace(record(m, "accuracy", 0.1, group=group), metric=name, kind="change", direction="none", main=False)
        for m in ("better", "vague")
        for name in ("became_right", "became_wrong", "changed_wrong")
        for group in ("overall", "Age")
    ]
    full = Report([*RECORDS, *changes], {"benchmarks": {"bbq": {"asked": 1234}}})
    tables = tables_in(full.markdown())
    heads = [table[0] for table in tables]
    assert heads[0][0] == "method" and heads[1][:2] == ["model", "method"] and len(tables) >= 4
    assert all(len(row) == len(table[0]) for table in tables for row in table)
    assert [row[1] for row in tables[1][1:]] == ["none", "better", "vague", EVIL], "no line of what follows is a row"


def test_markdown_of_one_sheet() -> None:
    sheet = Sheet("t|t", ("method",), ("x",), [(("a|b",), [Entry("0.5", "±0.1", star=True, bold=True)])], "n*")
    assert markdown_table(sheet) == "**t\\|t**\n\n| method | x |\n| --- | --: |\n| a\\|b | **0.5** ±0.1 \\* |\n\nn\\*"
