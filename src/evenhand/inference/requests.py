"""Requests to engines: token ids in, numbers or token ids out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

NOT_FINITE = "logits are not finite"
"""Note of an item whose logits contain nan or +inf, or only -inf: nothing can be read from them."""


class Request(NamedTuple):
    """Request to read some log-probabilities of one sequence."""

    ids: tuple[int, ...]
    """Token ids that are fed; at least one."""
    reads: tuple[tuple[int, int], ...]
    """Pairs (position, token): read log p(token | ids[: position + 1])."""


class Prompt(NamedTuple):
    """Request to continue one sequence."""

    ids: tuple[int, ...]
    draw: int = 0
    beside: tuple[tuple[int, ...], ...] = ()
    """Sequences that receive the same new tokens, and whose logits help to choose them."""


class Generated(NamedTuple):
    """A continuation."""

    ids: tuple[int, ...]
    """New token ids, without the end token and what follows it."""
    text: str
    finished: bool
    """Whether it ended by itself; False if it was cut at the token limit."""
    note: str = ""
    """Why there is no continuation, with empty ids and text; "" if there is one."""


def continuation_request(whole: Sequence[int], prompt_length: int) -> Request:
    """Make the request whose reads sum to log p(whole[prompt_length:] | whole[:prompt_length]).

    The last token is read but not fed, so K one-token continuations of a prompt are the same sequence.
    """
    start = min(max(prompt_length, 1), len(whole) - 1)
    return Request(tuple(whole[:-1]), tuple((i - 1, whole[i]) for i in range(start, len(whole))))


def buckets(
    lengths: Sequence[int], budget: int, widths: Sequence[int] | None = None, width: int = 0
) -> Iterator[list[int]]:
    """Group indices by length, longest first, so that padded tokens stay within `budget` per group.

    With the longest first, a batch that does not fit into memory fails at once and not at the end.

    Args:
        lengths: Number of tokens of each row.
        budget: Maximum number of padded tokens in a group; a longer row is a group of its own.
        widths: Number of positions read in each row, if they are limited too.
        width: Maximum number of positions read in a group; 0 does not limit it.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    group: list[int] = []
    reads = 0
    for i in order:
        more = widths[i] if widths else 0
        longest = lengths[group[0]] if group else lengths[i]
        if group and ((len(group) + 1) * longest > budget or (width and reads + more > width)):
            yield group
            group, reads = [], 0
        group.append(i)
        reads += more
    if group:
        yield group
