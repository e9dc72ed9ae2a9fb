"""Messages about items whose texts must not be published: the kind of an error and the items' ids, never a text.

Third-party methods, models and servers quote what they were given in their errors, notes and warnings.
"""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

WINDOW = 12
"""Letters and digits in a row that a text must share with an item to count as a quotation; about 15 characters."""
PIECE, STEP = 8, 5
"""Every STEP-th piece of a text is indexed: each window of it contains a whole one, as PIECE + STEP - 1 = WINDOW."""
SHORT = 6
"""Minimum letters and digits of a short text, such as an option, that counts as quoted if it occurs as a whole."""
REASON = "what it said is withheld, as the benchmark's texts must not be published"

Place = TypeVar("Place")


class Withheld:
    """A filter that keeps the texts of some items out of what is stored and shown."""

    def __init__(self, items: Sequence[Any] = ()) -> None:
        """Take the items; their texts are indexed only when a message has to be checked.

        Args:
            items: All that were asked. Without them, `error` shows no text at all.
        """
        self._items = items
        self._known: dict[str, list[int]] = {}  # cached, since many answers have the same note

    def error(self, error: BaseException, *, own: bool = False) -> str:
        """Describe an error by its kind and the items that it is about.

        Args:
            error: The error that was raised.
            own: Whether evenhand raised it on purpose; it is then shown if it quotes no item.
        """
        said, kind = str(error), type(error).__name__
        if own and self._items and not self._quoted(said):
            return said
        about = self.ids(said)
        return f"{' about '.join([kind, *([', '.join(about)] if about else [])])}; {REASON}"

    def trace(self, error: BaseException) -> str:
        """Return the traceback of an error and of its causes, without their messages."""
        lines = []
        for link in _chain(error):
            lines += [*traceback.format_tb(link.__traceback__), f"{type(link).__name__}\n"]
        return f"{''.join(lines)}{self.error(error)}"

    def note(self, text: str) -> str:
        """Return a note or warning as it is or, if it quotes an item, a note that names the items that it is about."""
        if not self._quoted(text):
            return text
        return f"a note about {', '.join(self.ids(text)) or 'an item'}; {REASON}"

    def answers(self, answers: Sequence[Any]) -> list[Any]:
        """Return answers with their notes passed through `note`."""
        return [self._answer(answer) if is_dataclass(answer) else answer for answer in answers]

    @contextmanager
    def warnings(self) -> Iterator[None]:
        """Pass the warnings of the block through `note`."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                yield
            finally:
                heard = list(caught)
        said = dict.fromkeys((self.note(str(w.message)), w.category, w.filename, w.lineno) for w in heard)
        for text, category, file, line in said:
            warnings.warn_explicit(text, category, file, line)

    def ids(self, said: str) -> list[str]:
        """Return the ids of the items that a text names or quotes."""
        named = (number for word in said.replace(",", " ").split() for number in self._numbers.get(word, ()))
        return [self._items[number].id for number in sorted({*named, *self._quotes(said)})]

    def _answer(self, answer: Any) -> Any:
        note = dict(_fields(answer)).get("note")
        return replace(answer, note=self.note(note)) if isinstance(note, str) and note else answer

    def _quoted(self, said: str) -> bool:
        return bool(self._quotes(said))

    def _quotes(self, said: str) -> list[int]:
        """Return the indices of the items that a text quotes."""
        if said not in self._known:
            bare = _bare(said)
            whole = {part for size in range(SHORT, WINDOW) for part in _windows(bare, size) if part in self._texts}
            alike = {text for part in _windows(bare, PIECE) for text in self._pieces.get(part, ())}
            parts = _windows(bare, WINDOW)
            found = whole.union(text for text in alike if _shares(parts, text))
            self._known[said] = sorted({number for text in found for number in self._texts[text]})
        return self._known[said]

    @cached_property
    def _numbers(self) -> dict[str, list[int]]:
        """Indices of the items with each id."""
        return _places((item.id, number) for number, item in enumerate(self._items))

    @cached_property
    def _texts(self) -> dict[str, list[int]]:
        """Indices of the items that have each text, by its letters and digits."""
        own = ((text, number) for number, item in enumerate(self._items) for text in _strings(item) if text != item.id)
        return _places((_bare(text), number) for text, number in own)

    @cached_property
    def _pieces(self) -> dict[str, list[str]]:
        """The longer texts that contain each piece."""
        longer = [text for text in self._texts if len(text) >= WINDOW]
        return _places((text[i : i + PIECE], text) for text in longer for i in range(0, len(text) - PIECE + 1, STEP))


def _places(pairs: Iterable[tuple[str, Place]]) -> dict[str, list[Place]]:
    """Group the values of pairs by key, in order."""
    found: dict[str, list[Place]] = {}
    for key, place in pairs:
        found.setdefault(key, []).append(place)
    return found


def _shares(parts: set[str], text: str) -> bool:
    """Whether any of these parts occurs in a text."""
    return not parts.isdisjoint(_windows(text, WINDOW))


def _windows(said: str, size: int) -> set[str]:
    return {said[i : i + size] for i in range(len(said) - size + 1)}


def _bare(text: str) -> str:
    return "".join(c for c in text.casefold() if c.isalnum())


def _strings(value: Any) -> Iterator[str]:
    """Yield all texts in a value, however deeply nested."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for entry in value.values():
            yield from _strings(entry)
    elif isinstance(value, list | tuple | set | frozenset):
        for entry in value:
            yield from _strings(entry)
    elif not isinstance(value, type):
        for _, entry in _fields(value):
            yield from _strings(entry)


def _fields(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield names and values of an object's fields; one with slots has no `__dict__`."""
    if is_dataclass(value):
        yield from ((field.name, getattr(value, field.name)) for field in fields(value))
    elif hasattr(value, "__dict__"):
        yield from vars(value).items()


def _chain(error: BaseException) -> list[BaseException]:
    """Return an error and its causes, the earliest first."""
    found = [error]
    while (before := found[0].__cause__ or found[0].__context__) is not None and before not in found:
        found.insert(0, before)
    return found
