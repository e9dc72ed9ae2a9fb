"""Read a rewrite of a question in two fields, and check whether the options are still there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from evenhand.errors import EvenhandError
from evenhand.prompting.prompt_packs import BiasFreeTexts
from evenhand.prompting.reply_parsing import LETTERS, normal_form

_FENCE = "```"
_LETTERED = re.compile(r"\s*\(?([A-Z])[).:]\s+(.+?)\s*")


class UnusableRewriteError(EvenhandError):
    """Raised for a rewrite that cannot be asked instead of the question; the message says why."""


class Fields(NamedTuple):
    """The two fields of a rewrite."""

    system: str
    """The system prompt; "" if there is none."""
    question: str


@dataclass(frozen=True, slots=True)
class Listed:
    """Lettered options in a text."""

    stem: str
    """Text before the options."""
    order: tuple[int, ...]
    """Identity of the option at each letter."""
    rest: str
    """Text after the options."""


def read_fields(text: str, marks: BiasFreeTexts) -> Fields:
    """Return the fields of a rewrite; anything before the first is left out.

    Args:
        text: The reply, without its thought.
        marks: Headings of the fields.

    Raises:
        UnusableRewriteError: A mark is missing, duplicated or misplaced, or the question is empty.
    """
    lines = [_bare(line) for line in text.splitlines()]
    first, second = _bare(marks.system_mark), _bare(marks.question_mark)
    if lines.count(first) != 1 or lines.count(second) != 1 or lines.index(first) > lines.index(second):
        raise UnusableRewriteError("it is not in the form of two fields")
    at, then = lines.index(first), lines.index(second)
    written = _unfenced(text.splitlines(), at)
    system, question = "\n".join(written[at + 1 : then]).strip(), "\n".join(written[then + 1 :]).strip()
    if not question:
        raise UnusableRewriteError("its question is empty")
    nothing = _bare(system).strip("()[].\"'") == marks.no_system.casefold()
    return Fields("" if nothing else system, question)


def _unfenced(lines: list[str], at: int) -> list[str]:
    """Return the lines without the end of a code block that was opened before the fields."""
    opened = sum(line.strip().startswith(_FENCE) for line in lines[:at]) % 2
    return lines[:-1] if opened and lines[-1].strip() == _FENCE else lines


def alike(options: Sequence[str]) -> bool:
    """Whether two options have the same words, so that a line of a rewrite does not tell which one it is."""
    return len(set(map(_words, options))) < len(options)


def names_all(text: str, options: Sequence[str]) -> bool:
    """Whether the words of every option occur in a text."""
    written = _words(text)
    return all(_words(option) in written for option in options)


def listed(text: str, options: Sequence[str]) -> Listed | None:
    """Return a text's lettered options, one per line from A on; None unless each occurs once, in its own words.

    Blanks, case and a full stop at the end are not part of the words.

    Args:
        text: A question with its options.
        options: Their texts by identity.
    """
    lines = text.splitlines()
    found = [(n, match) for n, line in enumerate(lines) if (match := _LETTERED.fullmatch(line))]
    # A context may have lettered lines, too, so the options are the last ones, and no line is left over.
    last = found[-len(options) :]
    if [match[1] for _, match in last] != list(LETTERS[: len(options)]):
        return None
    between = lines[last[0][0] : last[-1][0] + 1]
    if sum(bool(line.strip()) for line in between) != len(options):
        return None
    order = _order([match[2] for _, match in last], options)
    if order is None:
        return None
    start, end = last[0][0], last[-1][0] + 1
    return Listed("\n".join(lines[:start]).strip(), order, "\n".join(lines[end:]).strip())


def _order(texts: Sequence[str], options: Sequence[str]) -> tuple[int, ...] | None:
    """Return which option each text is; None unless every option occurs once."""
    left = list(range(len(options)))
    order = []
    for text in texts:
        same = [o for o in left if _words(options[o]) == _words(text)]
        if not same:
            return None
        order.append(same[0])
        left.remove(same[0])
    return tuple(order)


def _words(text: str) -> str:
    return " ".join(normal_form(text).casefold().split()).rstrip(".")


def _bare(line: str) -> str:
    """Return a line without markup around it."""
    return line.strip().strip("*_#`: ").casefold()
