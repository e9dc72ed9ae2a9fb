"""The proving ground's findings in the terminal and as Markdown."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Group
from rich.table import Table
from rich.text import Text

from evenhand.core import progress
from evenhand.core.text_output import interval, number
from evenhand.proving_ground.checking import Finding
from evenhand.proving_ground.statements import Effect, verdicts
from evenhand.report.text import DEMO_LABEL


@contextmanager
def steps() -> Iterator[Callable[[str], None]]:
    """Report progress: on a terminal at once, elsewhere in an occasional line."""
    from rich.console import Console

    console = Console(stderr=True)
    if not (console.is_terminal or console.is_jupyter):
        with progress.show():
            yield lambda text: None
        return
    with console.status("reading the demo models") as status:
        yield status.update


def check_table(found: Sequence[Finding]) -> Group:
    """Tabulate planted and measured values, one line per group; quantities outside their tolerance are red."""
    tables: list[Table | Text] = [Text(DEMO_LABEL, style="bold yellow")]
    for model in dict.fromkeys(f.model for f in found):
        table = Table(title=model, title_justify="left", box=None, padding=(0, 1))
        for name in ("quantity", "group"):
            table.add_column(name)
        for name in ("planted", "measured", "95 % interval", "tolerance", ""):
            table.add_column(name, justify="right")
        last = ""
        for f in (f for f in found if f.model == model):
            cells = [f.quantity if f.quantity != last else "", f.group, number(f.planted), number(f.measured)]
            cells += [interval(f.low, f.high), number(f.tolerance, decimals=2), "ok" if f.ok else f.note]
            table.add_row(*cells, style="" if f.ok else "red")
            last = f.quantity
        tables.append(table)
    right = sum(f.ok for f in found)
    tables.append(
        Text(f"{right} of {len(found)} quantities as planted", style="green" if right == len(found) else "red")
    )
    return Group(*tables)


def check_markdown(found: Sequence[Finding]) -> str:
    """Return the findings as Markdown tables, for the documentation."""
    lines: list[str] = []
    for model in dict.fromkeys(f.model for f in found):
        lines += [
            f"### {model}",
            "",
            "| quantity | group | planted | measured | 95 % interval |",
            "|---|---|--:|--:|--:|",
        ]
        for f in (f for f in found if f.model == model):
            lines.append(
                f"| {f.quantity} | {f.group} | {number(f.planted)} | {number(f.measured)} | {interval(f.low, f.high)} |"
            )
        lines.append("")
    return "\n".join(lines)


def effects_table(found: Sequence[Effect]) -> Group:
    """Tabulate what each method moved and left unchanged, with the verdict per method."""
    table = Table(box=None, padding=(0, 1))
    for name in ("model", "method", "", "quantity", "group"):
        table.add_column(name)
    for name in ("before", "after", "change", "95 % interval", "bound", ""):
        table.add_column(name, justify="right")
    for e in found:
        bound = f"{'>=' if e.kind == 'moves' else '<='} {number(e.bound, decimals=2)}"
        bound += "" if math.isnan(e.at_most) else f", <= {number(e.at_most, decimals=2)}"
        cells = [e.model, e.method, f"must {'move' if e.kind == 'moves' else 'stay'}", e.quantity, e.group]
        cells += [number(e.before), number(e.after), number(e.change, signed=True), interval(e.low, e.high), bound]
        table.add_row(*cells, "ok" if e.ok else "no", style="" if e.ok else "dim" if e.must_fail else "red")
    controls = {f"{e.model} x {e.method}" for e in found if e.must_fail}
    lines = [
        Text(f"{name}: {_verdict(ok, name in controls)}", style="green" if ok else "red")
        for name, ok in verdicts(found).items()
    ]
    notes = [Text(f"known side effect: {note}", style="dim") for note in dict.fromkeys(e.note for e in found if e.note)]
    return Group(Text(DEMO_LABEL, style="bold yellow"), table, *lines, *notes)


def _verdict(ok: bool, control: bool) -> str:
    if control:
        return "told apart from a working method" if ok else "NOT told apart from a working method"
    return "as stated" if ok else "NOT as stated"
