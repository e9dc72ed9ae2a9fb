"""Find the items of a benchmark that were never answered, and why: a missing answer is not a number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, NamedTuple

from evenhand.core.answer_table import AnswerStatus, stated
from evenhand.interfaces import Choice, Reply, Usage


class _Part(NamedTuple):
    """One thing that a model was asked for an item."""

    answered: bool
    why: str = ""
    parsed: bool = True


class Outcome(NamedTuple):
    """Whether an item was answered; for an item with several answers, the worst of them."""

    status: AnswerStatus
    note: str = ""
    """Why it was not; "" if no reason is known."""


@dataclass(frozen=True)
class Gap:
    """Items of one cell without an answer, or with only a part of one."""

    items: int
    """Number of items with anything unanswered."""
    partly: int
    """Number of those that were answered in part."""
    asked: int
    first: str
    """Id of the first, and the reason if known."""

    @property
    def total(self) -> bool:
        """Whether nothing at all was answered."""
        return self.items == self.asked and not self.partly

    def joined(self, other: Gap) -> Gap:
        """Combine this gap with that of another cell."""
        return Gap(self.items + other.items, self.partly + other.partly, self.asked + other.asked, self.first)

    def __str__(self) -> str:
        """Describe the gap, as in "12 of 20 unanswered, the first: Age/8: the endpoint sent no reply"."""
        partly = f" ({self.partly} of them in part)" if self.partly else ""
        return f"{self.items:,} of {self.asked:,} unanswered{partly}, the first: {self.first}"


def gap(items: Sequence[Any], answers: Sequence[Any]) -> Gap | None:
    """Return what is missing among the answers; None if nothing is.

    Args:
        items: What was asked.
        answers: One per item: a `Choice`, a `Reply`, or a benchmark's own dataclass. Of the latter every `Choice` and
            `Reply` inside counts, every `reply` or `text`, and every field annotated with `float | None`, where None
            stands for a text that was not scored; its field `note` says why.
    """
    lost: list[tuple[str, str, bool]] = []
    for item, answer in zip(items, answers, strict=True):
        parts = list(_parts(answer))
        missing = [p for p in parts if not p.answered]
        if missing:
            lost.append((item.id, next((p.why for p in missing if p.why), ""), len(missing) < len(parts)))
    if not lost:
        return None
    where, why, _ = lost[0]
    return Gap(len(lost), sum(partly for *_, partly in lost), len(items), f"{where}: {why}" if why else where)


def outcome(answer: Any) -> Outcome:
    """Return whether an answer came and could be read.

    Args:
        answer: An answer as in `gap`. It is unanswered if `gap` counts it, even in part.
    """
    parts = list(_parts(answer))
    if missing := [p for p in parts if not p.answered]:
        return Outcome("unanswered", next((p.why for p in missing if p.why), ""))
    if unread := [p for p in parts if not p.parsed]:
        return Outcome("unparsed", next((p.why for p in unread if p.why), ""))
    return Outcome("answered")


def _parts(answer: Any) -> Iterator[_Part]:
    if isinstance(answer, Choice):
        yield _Part(answer.status != "unanswered", answer.note, answer.status != "unparsed")
    elif isinstance(answer, Reply):
        yield _Part(answer.text is not None, answer.note)
    elif isinstance(answer, tuple | list):
        for part in answer:
            yield from _parts(part)
    elif is_dataclass(answer) and not isinstance(answer, Usage):
        values = stated(answer)
        for field in fields(answer):
            lacking = _may_lack(field.name, str(field.type))
            value = values[field.name]
            yield from _measured(value, values.get("note", "")) if lacking else _parts(value)


def _may_lack(name: str, kind: str) -> bool:
    """Whether None in a field of a benchmark's own answer means that something was not answered."""
    return "float | None" in kind or (name in ("reply", "text") and "str | None" in kind)


def _measured(value: Any, why: str) -> Iterator[_Part]:
    if isinstance(value, tuple | list):
        for part in value:
            yield from _measured(part, why)
    else:
        yield _Part(value is not None, why or "no reply, or longer than the model's context")
