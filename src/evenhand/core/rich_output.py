"""`Harmless`: what rich draws, in which no text acts on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.segment import Segment

from evenhand.core.text_output import visible

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult


class Harmless:
    """Anything that rich can render; colours are rich's own, and control characters of its texts are spelled out.

    It is around everything that is printed, so that a text that nobody thought of does no harm. Where a name stands in
    a table, `evenhand.core.sinks.one_line` is used as well, before the columns are measured.
    """

    def __init__(self, shown: RenderableType) -> None:
        """Take what to show."""
        self.shown = shown

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The same segments with visible texts; rich calls this."""
        for segment in console.render(self.shown, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)
