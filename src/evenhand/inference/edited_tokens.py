"""Represent which tokens of a sequence are edited as part of the tokens.

The state of an edited token differs from that of the same token unedited, and so do the states of everything after it.
A symbol is a token id together with this flag: the id t of a token that is not edited, and ~t = -1 - t of one that is
edited. Sequences of symbols are sorted into prefix tries, looked up in the KV cache, and compared as
sequences of ids are, so that only tokens with the same flags throughout their past are shared.
"""

from __future__ import annotations

from collections.abc import Sequence

from evenhand.inference.activation_edits import ActivationEdit
from evenhand.inference.requests import Prompt, Request

NEVER = 2**62
"""Start of the edited tokens in a sequence without any."""


def first_edited(edit: ActivationEdit | None, first_read: int) -> int:
    """Return the position from which on the tokens of a sequence are edited.

    Args:
        edit: None edits nothing.
        first_read: End of the prompt: the first position after which a token is read or written.
    """
    if edit is None:
        return NEVER
    start = {"all": 0, "answer": first_read, "after": first_read + 1}[edit.scope]
    return max(start, int(edit.skip_first))


def first_edited_of(edit: ActivationEdit | None, asked: Request | Prompt) -> int:
    """Return the first edited position of a request; a prompt is read at its last token."""
    if edit is None:
        return NEVER
    reads = asked.reads if isinstance(asked, Request) else ()
    return first_edited(edit, min((position for position, _ in reads), default=len(asked.ids) - 1))


def symbols(ids: Sequence[int], start: int) -> tuple[int, ...]:
    """Return the symbols of a sequence that is edited from a position on; without edited tokens they are the ids."""
    return tuple(ids) if start >= len(ids) else (*ids[:start], *(~token for token in ids[start:]))


def token_ids(row: Sequence[int]) -> list[int]:
    """Return the token ids of symbols."""
    return [symbol if symbol >= 0 else ~symbol for symbol in row]


def flags(row: Sequence[int]) -> list[bool]:
    """Return whether each symbol is edited."""
    return [symbol < 0 for symbol in row]
