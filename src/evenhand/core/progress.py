"""Progress that the innermost loops report and the outermost program shows.

An engine says `with track(total, "scoring") as step: step(n)`; whoever called it decides with `show()` whether a bar
with an estimate appears. Without `show()` nothing is printed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from evenhand.core.sinks import one_line

Step = Callable[[int], None]
_shown: ContextVar[Any] = ContextVar("evenhand_progress", default=None)


@contextmanager
def show(enabled: bool = True) -> Iterator[Any]:
    """Show a rich progress bar for everything tracked inside."""
    if not enabled or _shown.get() is not None:
        yield _shown.get()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)  # standard output stays clean for --json
    with Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=console, transient=True) as bar:
        token = _shown.set(bar)
        try:
            yield bar
        finally:
            _shown.reset(token)


@contextmanager
def track(total: int, description: str) -> Iterator[Step]:
    """Report progress of `total` units; call the yielded function with the number of units just done."""
    bar = _shown.get()
    if bar is None or total == 0:
        yield lambda done: None
        return
    task = bar.add_task(one_line(description), total=total)
    try:
        yield lambda done: bar.advance(task, done)
    finally:
        bar.remove_task(task)
