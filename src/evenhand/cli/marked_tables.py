"""Tables of the documentation that code writes: what stands between two marks is written anew."""

from __future__ import annotations

from evenhand.errors import SettingsError


def put(text: str, begin: str, end: str, table: str, what: str) -> str:
    """A document with a table in place of what stood between its marks.

    Args:
        text: The document.
        begin: The line before the table.
        end: The line after it.
        table: In Markdown.
        what: The table is of, for the message.

    Raises:
        SettingsError: It has no such marks.
    """
    head, found, rest = text.partition(begin)
    _, closed, tail = rest.partition(end)
    if not found or not closed:
        raise SettingsError(f"no marks for the table of {what}: put a line {begin!r} and, after it, a line {end!r}")
    return f"{head}{begin}\n\n{table}\n\n{end}{tail}"
