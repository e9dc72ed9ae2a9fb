"""`evenhand methods` as a table: what each method needs, trains on and costs, where it comes from, and an example."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from evenhand.core.catalogue import MethodFacts

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.table import Table

WIDE = 120
"""Width of a terminal, in columns, from which sources are shown."""
UNLIMITED = 220
"""Width, in columns, of a table that is not printed to a terminal."""


def print_methods(rows: Sequence[MethodFacts]) -> None:
    """Print all methods at the width of the terminal; a file or pipe gets all columns."""
    from rich.console import Console

    from evenhand.core.rich_output import Harmless

    console = Console() if sys.stdout.isatty() else Console(width=UNLIMITED)
    console.print(Harmless(laid_out(rows, console)))


def laid_out(rows: Sequence[MethodFacts], console: Console) -> Group:
    """Lay out the table for a console, with a line about what it leaves out."""
    from rich.console import Group

    wide = console.width >= WIDE
    more = "`evenhand methods NAME` lists the settings of a method with the values that they take."
    return Group(_table(rows, wide), "", more if wide else f"{more} A terminal of {WIDE} columns shows sources, too.")


def _table(rows: Sequence[MethodFacts], wide: bool) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold", collapse_padding=True)
    table.add_column("method, and an example", width=46 if wide else 38, overflow="fold")
    table.add_column("needs", width=18 if wide else 14)
    table.add_column("trains on", width=12 if wide else 9)
    table.add_column("calls/question" if wide else "calls", width=16 if wide else 13)
    if wide:
        table.add_column("source", min_width=20, max_width=60)
    for row in rows:
        example = (f"\n{row.example}", "cyan") if row.example not in ("", row.name) else ""
        first = Text.assemble((row.name, "bold"), f"\n{row.about}", example)
        others = (row.needs, row.trains, row.calls, *((row.source,) if wide else ()))
        table.add_row(first, *(Text(text or "–") for text in others))
    return table
