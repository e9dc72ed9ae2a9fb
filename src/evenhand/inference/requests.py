"""What the engine is asked: token ids in, numbers or token ids out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

NOT_FINITE = "logits are not finite"
"""The note of an item whose logits hold nan or +inf, or -inf alone: nothing can be read from such."""


class Request(NamedTuple):
    """Read some log-probabilities of one sequence."""

    ids: tuple[int, ...]
    """Token ids that are fed; at least one."""
    reads: tuple[tuple[int, int], ...]
    """Pairs (position, token): read log p(token | ids[: position + 1])."""


class Prompt(NamedTuple):
    """Continue one sequence."""

    ids: tuple[int, ...]
    draw: int = 0
    beside: tuple[tuple[int, ...], ...] = ()
    """Sequences that get the same new tokens, and whose logits have a say in them."""


class Generated(NamedTuple):
    """A continuation."""

    ids: tuple[int, ...]
    """New token ids, without the end token and what follows it."""
    text: str
    finished: bool
    """False when it was cut at the token limit."""
    note: str = ""
    """Why there is no continuation; "" where there is one. Ids and text are empty then."""


def continuation_request(whole: Sequence[int], prompt_length: int) -> Request:
    """The request whose reads sum to log p(whole[prompt_length:] | whole[:prompt_length]).

    The last token is read but not fed, so K one-token continuations of a prompt are one and the same sequence.
    """
    start = min(max(prompt_length, 1), len(whole) - 1)
    return Request(tuple(whole[:-1]), tuple((i - 1, whole[i]) for i in range(start, len(whole))))


def buckets(
    lengths: Sequence[int], budget: int, widths: Sequence[int] | None = None, width: int = 0
) -> Iterator[list[int]]:
    """Group indices by length, longest first, so that padded tokens stay within `budget` a group.

    Longest first, so that a batch that does not fit the memory fails at once and not at the end.

    Args:
        lengths: Tokens of each row.
        budget: Most padded tokens in a group; a row that is longer than that is a group of its own.
        widths: Positions read of each row, if they are limited too.
        width: Most positions read in a group.
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
