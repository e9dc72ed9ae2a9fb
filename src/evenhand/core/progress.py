"""Progress that the innermost loops report and the outermost program shows.

Inner code reports with `with track(total, "scoring") as step: step(n)`; its caller decides with `show()` whether that
appears: as a bar with an estimate on a terminal or in a notebook, and elsewhere as plain lines
(`evenhand.core.progress_lines`). Without `show()` nothing is printed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from evenhand.core.progress_lines import ProgressLines, progress_lines
from evenhand.core.sinks import one_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

Step = Callable[[int], None]
_shown: ContextVar[Any] = ContextVar("evenhand_progress", default=None)


@contextmanager
def show(enabled: bool = True) -> Iterator[Any]:
    """Show a progress bar for everything tracked within the block, or lines about it if there is no terminal."""
    if not enabled or _shown.get() is not None:
        yield _shown.get()
        return
    from rich.console import Console

    console = Console(stderr=True)  # standard output stays clean for --json
    with _bars(console) if console.is_terminal or console.is_jupyter else progress_lines() as shown:
        token = _shown.set(shown)
        try:
            yield shown
        finally:
            _shown.reset(token)


def _bars(console: Console) -> Progress:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=console, transient=True)


@contextmanager
def track(total: int, description: str, *, lines_only: bool = False) -> Iterator[Step]:
    """Report progress of `total` units; call the yielded function with the number of units just done.

    Args:
        total: Number of units.
        description: What is being done.
        lines_only: Whether to show no bar for it on a terminal, where it would be one among others.
    """
    bar = _shown.get()
    if bar is None or total == 0 or (lines_only and not isinstance(bar, ProgressLines)):
        yield lambda done: None
        return
    task = bar.add_task(one_line(description), total=total)
    try:
        yield lambda done: bar.advance(task, done)
    finally:
        bar.remove_task(task)
