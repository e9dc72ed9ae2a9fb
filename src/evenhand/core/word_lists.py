"""Long lists of words that are written as text, several to a line."""

from __future__ import annotations


def listed(text: str) -> tuple[str, ...]:
    """Split a text at commas into entries; blanks and line breaks around an entry do not count.

    Raises:
        ValueError: An entry is empty, as between two commas, or occurs twice.
    """
    entries = tuple(" ".join(entry.split()) for entry in text.split(","))
    for n, entry in enumerate(entries):
        if not entry or entry in entries[:n]:
            what = f"repeats {entry!r}" if entry else "is empty"
            raise ValueError(f"entry {n + 1} of {len(entries)} {what}; remove it")
    return entries
