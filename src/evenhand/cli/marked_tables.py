"""Generated tables in the documentation, in Markdown: written, and put between two marks of a document."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from evenhand.errors import SettingsError


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Render a table.

    Args:
        head: Names of the columns.
        rows: Cells as Markdown, in which "|" is escaped.
    """
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def put(text: str, begin: str, end: str, table: str, what: str) -> str:
    """Replace the text between two marks of a document with a table.

    Args:
        text: The document.
        begin: The line before the table.
        end: The line after it.
        table: The table in Markdown.
        what: What the table lists, for the error message.

    Raises:
        SettingsError: The document lacks one of the marks.
    """
    head, found, rest = text.partition(begin)
    _, closed, tail = rest.partition(end)
    if not found or not closed:
        raise SettingsError(f"no marks for the table of {what}: put a line {begin!r} and, after it, a line {end!r}")
    return f"{head}{begin}\n\n{table}\n\n{end}{tail}"
