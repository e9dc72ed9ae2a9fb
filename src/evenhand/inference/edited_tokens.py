"""Which tokens of a sequence are edited, as a part of the tokens themselves.

The state of an edited token differs from that of the same token unedited, and so do the states of everything after it.
A symbol is a token id together with this flag: the id t of a token that is left alone, and ~t = -1 - t of one that is
edited. Sequences of symbols are sorted into prefix tries, looked up among kept keys and values, and compared as
sequences of ids are, so that only tokens with the same flags throughout their past are shared.
"""

from __future__ import annotations

from collections.abc import Sequence

from evenhand.inference.activation_edits import ActivationEdit
from evenhand.inference.requests import Prompt, Request

NEVER = 2**62
"""Where the edited tokens of a sequence begin that has none."""


def first_edited(edit: ActivationEdit | None, first_read: int) -> int:
    """The position from which on the tokens of a sequence are edited.

    Args:
        edit: None edits nothing.
        first_read: Where the prompt ends: the first position after which a token is read or written.
    """
    if edit is None:
        return NEVER
    start = {"all": 0, "answer": first_read, "after": first_read + 1}[edit.scope]
    return max(start, int(edit.skip_first))


def first_edited_of(edit: ActivationEdit | None, asked: Request | Prompt) -> int:
    """The same for a request; a prompt is read at its last token."""
    if edit is None:
        return NEVER
    reads = asked.reads if isinstance(asked, Request) else ()
    return first_edited(edit, min((position for position, _ in reads), default=len(asked.ids) - 1))


def symbols(ids: Sequence[int], start: int) -> tuple[int, ...]:
    """Symbols of a sequence that is edited from a position on; where nothing is, they are the ids."""
    return tuple(ids) if start >= len(ids) else (*ids[:start], *(~token for token in ids[start:]))


def token_ids(row: Sequence[int]) -> list[int]:
    """The token ids of symbols."""
    return [symbol if symbol >= 0 else ~symbol for symbol in row]


def flags(row: Sequence[int]) -> list[bool]:
    """Which symbols are edited."""
    return [symbol < 0 for symbol in row]
