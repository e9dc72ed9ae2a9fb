"""Terminal output as plain text, for `str`, `print` and files."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType

WIDTH = 80
"""Characters of a line."""


def plain_text(shown: RenderableType, width: int = WIDTH) -> str:
    """Render without colours, and without blanks at the ends of lines.

    In a notebook, rich would display what is printed to any console, whatever its file, and leave that file empty.

    Args:
        shown: Anything that rich can render.
        width: Characters of a line.
    """
    from rich.console import Console

    from evenhand.core.rich_output import Harmless

    out = io.StringIO()
    console = Console(file=out, width=width, color_system=None, legacy_windows=False, force_jupyter=False)
    console.print(Harmless(shown))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())
