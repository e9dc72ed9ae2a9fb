"""Questions whose two persons or groups change places: the same text otherwise, found and verified in the texts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

_ARTICLE = re.compile(r"\A(?:the|a|an|my)\s+")
_AN = re.compile(r"\ban\b")


class Swap(NamedTuple):
    """The counterpart of a question, in which its two persons have changed places."""

    other: str
    """Id of the counterpart."""
    turned: tuple[int, ...]
    """For each option of this question, the option of the counterpart that says the same after the persons have changed
    places; an option that names nobody, such as "unknown", maps to itself."""


@lru_cache(maxsize=4096)  # questions and persons are repeated
def plain(text: str) -> str:
    """A text without what may differ when persons change places: case, blanks, and "an" for "a"."""
    return _AN.sub("a", " ".join(text.casefold().split()))


@lru_cache(maxsize=4096)
def bare(person: str) -> str:
    """How an option names a person, without article and full stop, as `plain` text."""
    return _ARTICLE.sub("", plain(person)).removesuffix(".")


def names_of(first: str, second: str) -> Iterator[tuple[str, str]]:
    """What may stand for two persons in a text, the longest first: the whole names, then the words that differ.

    "deaf person" and "blind person" are deaf and blind where the text says "one of them deaf and the other blind".
    """
    yield first, second
    one, two = first.split(), second.split()
    while min(len(one), len(two)) > 1 and one[-1] == two[-1]:
        one, two = one[:-1], two[:-1]
    while min(len(one), len(two)) > 1 and one[0] == two[0]:
        one, two = one[1:], two[1:]
    if (short := (" ".join(one), " ".join(two))) != (first, second):
        yield short


def exchanged(text: str, names: tuple[str, str]) -> str | None:
    """A `plain` text with both names exchanged wherever they stand; None where one of them does not stand there."""
    first, second = names
    found = set()

    def other(match: re.Match[str]) -> str:
        found.add(match[0])
        return second if match[0] == first else first

    turned = _pattern(first, second).sub(other, text)
    return turned if len(found) == 2 else None


@lru_cache(maxsize=4096)
def _pattern(first: str, second: str) -> re.Pattern[str]:
    longest = sorted((first, second), key=len, reverse=True)
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest))})(?!\w)")


def matched(texts: Sequence[tuple[str, str]], names: tuple[str, str]) -> Iterator[tuple[int, int]]:
    """Pairs of texts that are each other with the names exchanged.

    Args:
        texts: Context and question of each, as `plain` texts. The names must stand in the context; in the question they
            are exchanged where they do.
        names: Names of both persons, as in the texts.

    Yields:
        The places of both. Of equal texts the first is matched with the first of its counterparts, and so on; each is
        in one pair at most.
    """
    places: dict[tuple[str, str], list[int]] = {}
    for place, text in enumerate(texts):
        places.setdefault(text, []).append(place)
    for (context, question), mine in places.items():
        turned = exchanged(context, names)
        if turned is None:
            continue
        key = turned, exchanged(question, names) or _one_exchanged(question, names)
        if key > (context, question):  # each pair once, and no text that is its own counterpart
            yield from zip(mine, places.get(key, ()), strict=False)


def _one_exchanged(question: str, names: tuple[str, str]) -> str:
    """A question that names one person at most, with the other one instead."""
    first, second = names
    return _pattern(first, second).sub(lambda match: second if match[0] == first else first, question)
