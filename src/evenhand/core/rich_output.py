"""`Harmless`: rich output whose texts cannot control the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.segment import Segment

from evenhand.core.text_output import visible

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult


class Harmless:
    """Anything that rich can render; colours are kept, and control characters in its texts are spelled out.

    Everything that is printed is wrapped in it, so that no text is overlooked. Names in a table also go through
    `evenhand.core.sinks.one_line`, before the columns are measured.
    """

    def __init__(self, shown: RenderableType) -> None:
        """Take what to render."""
        self.shown = shown

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the same segments with control characters spelled out; called by rich."""
        for segment in console.render(self.shown, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)
