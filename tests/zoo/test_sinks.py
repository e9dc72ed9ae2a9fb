"""One hostile name in every place of a report, and every output shows it harmlessly and readably."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
import unicodedata
import warnings
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt
from rich.console import Console
from tests.report.one_record import record

from evenhand.cli import app, output
from evenhand.core import progress, sinks
from evenhand.core.records import Record
from evenhand.core.rich_output import Harmless
from evenhand.core.run_folder import RunFolder
from evenhand.core.text_output import visible
from evenhand.errors import REASON, EvenhandError, RunError, SettingsError, short
from evenhand.interfaces import Message
from evenhand.models import saved
from evenhand.report import Report
from evenhand.report.changes import Changes
from evenhand.report.difference_parts import Pair, Refusal, Side
from evenhand.report.differences import Difference
from evenhand.report.exports import frame_csv
from evenhand.report.heat import heat_map
from evenhand.report.model_card import model_card
from evenhand.report.spillover_matrix import Spillover
from evenhand.report.spillover_parts import Effect, Fitted, Measured
from evenhand.report.transcript import Transcript
from evenhand.statistics.counts import CountBelow
from evenhand.statistics.criteria import CRITERIA

EVIL = "=$x_{1}$\x1b[31mred\x07\r\u202e\x9b2Jevil|`x`<script>alert(1)</script>[link](javascript:1)\n# next\\write18{ls}"
"""Colours, a bell, a direction of writing, a CSI of one byte, Markdown, HTML, formulas, a line, an order of LaTeX."""
READABLE = "alert(1)"


def evil(what: str) -> str:
    """The hostile name of one kind of thing."""
    return f"{EVIL} {what}"


METHOD, OTHER = evil("method"), evil("other")
NUMBERS: dict[str, Any] = dict(model=evil("model"), benchmark=evil("benchmark"))
RECORDS = [
    *(
        record(method, metric, value, group=group, baseline="" if method == "none" else "none", **NUMBERS, **more)
        for method, value, more in (("none", 0.5, {}), (METHOD, 0.2, {"difference": -0.3, "gain": 0.3, "p_holm": 0.01}))
        for metric in ("bias", evil("metric"))
        for group in ("overall", evil("group"))
    ),
    record(METHOD, "bias", 0.4, group="worst group", note=f"{evil('group')}; the worst of 2 groups", **NUMBERS),
    Record(model=evil("model"), method=OTHER, benchmark=evil("benchmark"), status="failed", note=evil("note")),
]
MANIFEST = {
    "models": {evil("model"): {"source": evil("source"), "fingerprint": evil("fingerprint")}},
    "benchmarks": {evil("benchmark"): {"rows": 5, "asked": 3, "source": evil("data"), "notes": [evil("said")]}},
    "command": f"evenhand compare {evil('argument')}",
    "remarks": [evil("remark")],
}


@pytest.fixture(scope="module")
def report() -> Report:
    return Report(RECORDS, MANIFEST)


def on_a_terminal(text: str) -> None:
    """Nothing in a text acts on a terminal, and the name can be read."""
    acting = {c for c in text if unicodedata.category(c)[0] == "C" and c not in "\n\t"}
    assert acting == set()
    assert READABLE in re.sub(r"\s", "", text), text[:2000]


class Page(HTMLParser):
    """The elements, attributes and texts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self._script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._script = tag == "script"
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        self._script = False

    def handle_data(self, data: str) -> None:
        (self.scripts if self._script else self.texts).append(data)


def as_html(text: str) -> None:
    """No name is an element, an attribute or a link; it can be read."""
    page = Page(text)
    assert not any(script.strip() == READABLE for script in page.scripts)
    assert any(f"<script>{READABLE}</script>" in shown for shown in page.texts)
    assert not any(name.startswith("on") or (value or "").startswith("javascript") for name, value in page.attributes)
    on_a_terminal(text)


def as_markdown(text: str) -> None:
    """No name is HTML, code, a link, a heading or a formula; tables keep their columns."""
    on_a_terminal(text)
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    inner = [child for token in tokens for child in token.children or []]
    assert not [t for t in (*tokens, *inner) if t.type in ("html_block", "html_inline", "code_inline", "code_block")]
    assert not [t for t in inner if t.type == "link_open" and "javascript" in str(t.attrs)]
    assert not [t for t in inner if t.type == "text" and t.content.startswith("next")]
    assert "$" not in text
    assert any(READABLE in token.content for token in inner)


# ------------------------------------------------------------------------------------------------- views of a report


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("form", ["summary", "full", "group", "all"])
def test_a_terminal_shows_a_report(form: str, width: int, report: Report) -> None:
    shown = {
        "summary": lambda: report.rendered(),
        "full": lambda: report.rendered(full=True),
        "group": lambda: report.rendered(evil("group")),
        "all": lambda: report.rendered("all"),
    }[form]()
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=True, color_system=None).print(shown)
    on_a_terminal(out.getvalue())


def test_a_report_as_text_and_for_logs(report: Report, tmp_path: Path) -> None:
    on_a_terminal(str(report))
    on_a_terminal(str(report.leaderboard()))
    on_a_terminal(repr(report.leaderboard()))
    on_a_terminal(repr(Report([], {}, tmp_path / EVIL)))


def test_the_summary(report: Report) -> None:
    as_markdown(report.markdown())
    heads = next(line for line in report.markdown().splitlines() if line.startswith("| model | method |"))
    assert "<" not in heads and "\\`x\\`" in heads, "metrics at the head of a table are names, too"


def test_a_status_and_a_link_of_the_summary_are_names_too(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    from evenhand.report.provenance import Fact, Section

    monkeypatch.setattr(report, "provenance", lambda: [Section("s", [Fact("n", "t", "x) <b>y</b> [z](javascript:1)")])])
    odd = Report([Record(model="m", method="x", benchmark="b", status="<b>odd</b>", note="n")], {})
    for one in (report, odd):
        assert "<b>" not in one.markdown() and not re.search(r"(?<!\\)\]\(javascript", one.markdown())


@pytest.mark.parametrize(
    ("target", "kept"),
    [
        ("https://huggingface.co/org/model", True),
        ("https://arxiv.org/abs/2402.01981", True),
        ("answers/", True),
        ("manifest.json", True),
        ("javascript:alert(1)", False),
        ("https://a.b/x) [y](z", False),
        ("../../etc/passwd", False),
        ("file:///etc/passwd", False),
        ("//evil.invalid", False),
        ("data:text/html,x", False),
    ],
)
def test_targets_of_links(target: str, kept: bool) -> None:
    assert sinks.link(target) == (target if kept else "")


def test_the_page_and_a_notebook(report: Report) -> None:
    as_html(report.html())
    as_html(report._repr_html_())
    as_html(report.leaderboard()._repr_html_())
    as_html(heat_map(report.numbers, CRITERIA)._repr_html_())


def test_latex(report: Report) -> None:
    for group in ("overall", "all"):
        text = report.latex(group)
        on_a_terminal(text)
        assert "\\write" not in text and r"\textbackslash{}write18\{ls\}" in text
        assert not re.search(r"(?<!\\)\$x", text) and r"\$x\_\{1\}\$" in text
        assert "\n# next" not in text


@pytest.mark.parametrize("separate", [True, False])
def test_csv(report: Report, separate: bool) -> None:
    rows = [record("@sum", "bias", 0.5, model="+1", benchmark="-a", group=" =x"), *report.records]
    text = Report(rows, {}).export("csv") if separate else frame_csv(Report(rows, {}).frame())
    on_a_terminal(text)
    first, *others = csv.DictReader(io.StringIO(text))
    assert (first["method"], first["model"], first["benchmark"], first["group"]) == ("'@sum", "'+1", "'-a", "' =x")
    assert sinks.csv_field("-0.5", settings=True) == "-0.5" and sinks.csv_field(-0.5) == -0.5
    assert first["value"] == "0.5" and any(row["difference"] == "-0.3" for row in others), "numbers stay numbers"
    for row in others:
        assert all(not str(cell).startswith(("=", "@", "\t", "\r")) for cell in row.values())


def test_the_sheet_of_a_paper(report: Report) -> None:
    as_markdown(report.export("markdown", "all"))
    on_a_terminal(report.export("bibtex") + READABLE)


@pytest.mark.parametrize("usetex", [False, True])
def test_a_plot_takes_no_name_for_a_formula(report: Report, usetex: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib as mpl
    from matplotlib.text import Text

    monkeypatch.setitem(mpl.rcParams, "text.usetex", usetex)
    figures = [report.plot(group=group) for group in ("overall", evil("group"))]
    figures.append(Report([Record(model="m", method="x", benchmark="b", status="failed", note=EVIL)], {}).plot())
    for figure in figures:
        texts = [t for t in figure.findobj(Text) if "$" in t.get_text()]
        assert texts and not any(t.get_parse_math() or t.get_usetex() for t in texts)
        assert not [t for t in texts if any(unicodedata.category(c)[0] == "C" and c != "\n" for c in t.get_text())]
    if not usetex:
        for figure in figures:
            figure.savefig(io.BytesIO(), format="png")


def test_the_plot_of_a_sweep_takes_no_name_for_a_formula() -> None:
    from matplotlib.text import Text

    from evenhand.experiment.sweep import Point, Step, Swept

    nothing = dict.fromkeys(Point._fields, 0.5)
    steps = tuple(
        Step(evil(str(n)), evil("method") if n else "none", Point(**nothing), Point(**nothing)) for n in range(3)
    )
    found = Swept(steps, evil("bias"), evil("cost"), demo=False, setting=evil("setting"))
    shown = [t for t in found.plot().findobj(Text) if "$" in t.get_text()]
    assert len(shown) > 6 and not any(t.get_parse_math() or t.get_usetex() for t in shown)
    on_a_terminal("".join(t.get_text() for t in shown))
    on_a_terminal(found.table())
    assert all(row[0].startswith("'=$") for row in list(csv.reader(io.StringIO(found.table())))[1:])


# ------------------------------------------------------------------------------- differences, spillover, transcripts


def matrix() -> Spillover:
    row, column = (
        Fitted(evil("model"), METHOD, evil("axis")),
        Measured(evil("benchmark"), evil("metric"), evil("group")),
    )
    effect = Effect(RECORDS[4], targeted=True, better=True, significant=True, shown=True)
    return Spillover((row,), (column,), {(row, column): effect}, CountBelow(0, 0, 0, 1, 0), CRITERIA, False, (EVIL,))


def difference() -> Difference:
    sides = Side(evil("run"), evil("model"), "none"), Side(evil("run"), evil("model"), METHOD)
    pair = Pair(*sides, evil("benchmark"), 3, 0, 0, 0, 0, tuple(RECORDS[4:6]), (evil("note"),))
    return Difference((pair,), (Refusal(evil("what"), evil("benchmark"), evil("reason")),), CRITERIA)


@pytest.mark.parametrize("made", [matrix, difference])
def test_a_matrix_and_a_difference(made: Callable[[], Any]) -> None:
    found = made()
    on_a_terminal(str(found))
    as_html(found._repr_html_())
    out = io.StringIO()
    Console(file=out, width=60, force_terminal=True, color_system=None).print(found)
    on_a_terminal(out.getvalue())
    text = frame_csv(found.frame())
    on_a_terminal(text)
    assert all(not cell.startswith("=") for row in csv.reader(io.StringIO(text)) for cell in row)


def test_a_transcript_says_who_speaks_and_nothing_else_does() -> None:
    turns = (Message("user", evil("question")), Message("assistant", evil("reply")))
    text = str(Transcript(evil("model"), METHOD, evil("benchmark"), evil("item"), turns, evil("outcome"), evil("note")))
    on_a_terminal(text)
    head, rule, *_ = text.splitlines()
    assert "item" in head and rule == "=" * len(head), "no name breaks the head"


def test_changed_items_in_a_notebook() -> None:
    assert "<script>" not in Changes([], 0)._repr_html_()


def test_a_model_card(tmp_path: Path) -> None:
    folder = tmp_path / "m\x1b[31m<script>"
    folder.mkdir()
    base = {"source": "demo", "options": {"name": EVIL}, "fingerprint": EVIL}
    saved.write(folder, {"kind": "mitigated", "method": {"self_debias": {"variant": "explanation"}}, "base": base})
    text = model_card(folder)
    header, _, body = text.removeprefix("---").partition("\n---\n")
    assert "\x1b" not in text and "\u202e" not in text and "<script>" not in re.sub(r"(?s)```.*?```", "", body)
    assert READABLE in body and "\n# next" not in header + body


# ------------------------------------------------------------------------------------------------- the command line


def told(capsys: pytest.CaptureFixture[str]) -> str:
    said = capsys.readouterr()
    return said.out + said.err


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("runs") / "run \x1b[31m$x$"
    place.mkdir()
    run = RunFolder(place)
    run.write_scores(RECORDS)
    run.write_manifest(MANIFEST)
    return place


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--full"],
        ["--group", evil("group")],
        ["--group", "all"],
        ["--json"],
        ["--format", "csv"],
        ["--format", "latex"],
        ["--format", "markdown"],
    ],
)
def test_show(
    words: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["evenhand", "show", str(folder), *words])
    with pytest.raises(SystemExit) as end:
        app.main()
    text = told(capsys)
    assert end.value.code in (0, None), text
    on_a_terminal(text)
    if words == ["--json"]:
        assert json.loads(text)[0]["model"] == evil("model"), "JSON has the name itself, as escapes"


@pytest.mark.parametrize(
    "words", [["show", EVIL], ["show", ".", "--format", EVIL], ["methods", EVIL], ["debias", EVIL, "x", "--out", "y"]]
)
def test_errors(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["evenhand", *words])
    with pytest.raises(SystemExit) as end:
        app.main()
    assert end.value.code != 0
    on_a_terminal(told(capsys) + READABLE)


def test_facts_lines_progress_and_warnings(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {EVIL: EVIL, "nested": {EVIL: [EVIL, {EVIL: EVIL}]}}
    output.facts(facts, False)
    text = told(capsys)
    on_a_terminal(text)
    assert sum(line.startswith("# next") for line in text.splitlines()) <= 4, "keys stay on their line"
    output.facts(facts, True)
    text = told(capsys)
    on_a_terminal(text)
    assert json.loads(text) == facts
    output.write(EVIL)
    on_a_terminal(told(capsys))
    output.show_rich(EVIL)
    on_a_terminal(told(capsys))
    app._show_warning(UserWarning(EVIL), UserWarning)
    on_a_terminal(told(capsys))
    with progress.show() as lines, progress.track(2, EVIL):
        on_a_terminal(lines.line())
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    with progress.show() as bar, progress.track(2, f"[red]{EVIL}"):
        described = bar.tasks[-1].description
    on_a_terminal(described)
    assert described.startswith("[red]"), "no markup of rich's acts, either: it is shown"


@pytest.mark.parametrize("kind", [EvenhandError, SettingsError, RunError])
def test_a_message_cannot_act_where_python_prints_it(kind: type[Exception]) -> None:
    on_a_terminal(str(kind(EVIL)))
    assert str(kind("two\nlines\tand a tab, äöü, 한국어, 🙂")) == "two\nlines\tand a tab, äöü, 한국어, 🙂"
    assert str(kind()) == ""
    with warnings.catch_warnings(record=True):
        assert visible(str(kind(EVIL))) == str(kind(EVIL)), "once is enough"


# ------------------------------------------------------------------------------------------------- each sink by hand


@pytest.mark.parametrize(
    ("sink", "expected"),
    [
        (visible, "a\\x1bb\nc\td\\u202e\\u2028\\x9b"),
        (sinks.one_line, "a\\x1bb\\nc\\td\\u202e\\u2028\\x9b"),
        (sinks.markdown, "a\\\\x1bb c d\\\\u202e \\\\x9b"),
        (sinks.in_html, "a\\x1bb\nc\td\\u202e\\u2028\\x9b"),
        (sinks.latex, "a b c d\\textbackslash{}u202e\\textbackslash{}u2028 "),
        (sinks.csv_field, "a\\x1bb\nc\td\\u202e\\u2028\\x9b"),
        (sinks.json_text, '"a\\u001bb\\nc\\td\\u202e\\u2028\\u009b"'),
    ],
)
def test_what_is_not_seen_is_spelled_out(sink: Callable[[str], str], expected: str) -> None:
    assert sink("a\x1bb\nc\td\u202e\u2028\x9b") == expected


@pytest.mark.parametrize("sink", [visible, sinks.one_line, sinks.markdown, sinks.in_html, sinks.latex, sinks.csv_field])
def test_plain_names_stay_as_they_are(sink: Callable[[str], str]) -> None:
    for name in ("demo", "Qwen2.5-0.5B", "Größe", "성별", "性别"):
        assert sink(name) == name


def test_json_stays_json() -> None:
    content = {"é": ["\U000e0001", "\x7f\x00", "\ud800", 1.5, None, Path("a")]}
    for indent in (None, 2):
        text = sinks.json_text(content, indent)
        assert json.loads(text) == {"é": ["\U000e0001", "\x7f\x00", "\ud800", 1.5, None, "a"]}
        assert "é" in text and text.encode()
        assert "".join(text.split("\n")).isprintable()


def test_rich_keeps_its_own_colours_and_nothing_else() -> None:
    from rich.text import Text

    out = io.StringIO()
    console = Console(file=out, force_terminal=True, color_system="standard", width=80)
    console.print(Harmless(Text("a\x1b[32mb", style="red")))
    assert out.getvalue() == "\x1b[31ma\\x1b[32mb\x1b[0m\n"


def test_short_messages_are_one_printable_line() -> None:
    assert short(EVIL, REASON).isprintable()


# ------------------------------------------------------------------------------------------------- nothing else writes

ALLOWED = {
    "rich.console import Console": {
        *("cli/output.py", "cli/method_table.py", "core/progress.py", "report/plain_text.py", "core/rich_output.py"),
        *("report/terminal.py", "report/leaderboard.py", "report/spillover_matrix.py", "report/differences.py"),
    },
    "sys.stdout": {"cli/output.py", "cli/method_table.py", "cli/signals.py"},
    "to_html(": {"report/changes.py", "report/heat.py", "experiment/sweep.py"},
    "to_csv(": {"report/exports.py"},
    "html import escape": set(),
    "parse_math": {"core/sinks.py"},
}
"""Who may use what an output is written with; others go through `evenhand.core.sinks` or `evenhand.cli.output`."""


@pytest.mark.parametrize("what", ALLOWED)
def test_every_output_goes_through_its_sink(what: str) -> None:
    source = Path(sinks.__file__).resolve().parents[1]
    parts = ("cli", "core", "report", "experiment", "integrations", "metrics")
    found = {
        str(f.relative_to(source)) for part in parts for f in (source / part).rglob("*.py") if what in f.read_text()
    }
    assert found - ALLOWED[what] == set()
