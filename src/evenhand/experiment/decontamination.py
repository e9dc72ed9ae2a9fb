"""Overlap of training data with what is asked: the same text, an asked sentence in it, or a shared template.

A training text overlaps if it has the words of an asked text; if an asked question or whole sentence of at least
`WHOLE` words occurs in it; or if it shares `RUN` words in a row with an asked text, as a piece of the same document
does. Questions do not count as such documents: those of two templates may share a scene, and are told apart by the
template; but what a question's context says is searched for by itself. Case, punctuation and blanks do not count.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from itertools import chain
from typing import Any

from evenhand.experiment.training_sources import cluster_of
from evenhand.interfaces import Benchmark, Dialogue, Pair, Passage, Question

WHOLE = 4
"""Minimum words of a sentence that is searched for inside others; "He was late." may occur anywhere."""
RUN = 13
"""n-gram size: two texts do not share so many words in a row by chance. Brown et al. 2020 (arXiv 2005.14165) use the
same."""
Words = tuple[str, ...]


class Asked:
    """What the benchmarks of a comparison ask."""

    def __init__(self, asked: Sequence[tuple[Benchmark, Sequence[Any]]]) -> None:
        """Collect it from the items; every text in an item counts as asked."""
        self.clusters: set[str] = set()
        self.questions: set[tuple[str, frozenset[str]]] = set()
        texts: dict[str, bool] = {}
        questions: set[str] = set()
        for benchmark, items in asked:
            for item in items:
                self.clusters |= {cluster_of(benchmark, item), cluster_of(benchmark.original, item)}
                self._gather(item, texts, questions)
        self._documents = {words: whole for text, whole in texts.items() if (words := _words(text))}
        self.words = self._documents | {words: True for text in questions if (words := _words(text))}
        self._lengths: dict[Words, set[int]] = defaultdict(set)
        for words, whole in self.words.items():
            if whole and len(words) >= WHOLE:
                self._lengths[words[:WHOLE]].add(len(words))
        self._runs: set[int] | None = None

    def has_question(self, question: Question) -> bool:
        """Whether the question is asked, with the same options in whatever order."""
        return _identity(question) in self.questions

    def has_text(self, text: str) -> bool:
        """Whether a text is asked, or something asked occurs in it."""
        words = _words(text)
        return words in self.words or self._holds(words) or self._shares(words)

    def has_pair(self, pair: Pair) -> bool:
        """Whether either text of a pair is asked, or what comes before both."""
        prompt = pair.prompt
        before = prompt if isinstance(prompt, str) else "\n".join(message.content for message in prompt.messages)
        begun = _words(before)
        if begun and begun in self.words:
            return True
        return any(self.has_text(before + side + pair.suffix) for side in (pair.stereotyped, pair.counter_stereotyped))

    def _gather(self, item: Any, texts: dict[str, bool], questions: set[str]) -> None:
        for found in _leaves(item):
            if isinstance(found, Question):
                self.questions.add(_identity(found))
                questions |= {f"{found.context} {found.question}", found.context}
            else:
                texts.setdefault(found, _is_whole(found))

    def _holds(self, words: Words) -> bool:
        """Whether an asked question or whole sentence occurs in the words."""
        for i in range(len(words) - WHOLE + 1):
            for length in self._lengths.get(words[i : i + WHOLE], ()):
                if self.words.get(words[i : i + length], False):
                    return True
        return False

    def _shares(self, words: Words) -> bool:
        """Whether the words share an n-gram of `RUN` words with what is asked."""
        if len(words) < RUN:
            return False
        if self._runs is None:
            self._runs = {run for asked in self._documents for run in _runs(asked)}
        return not self._runs.isdisjoint(_runs(words))


def sentences_of(item: Any) -> Iterator[str]:
    """Yield all texts in an item, except its questions."""
    return (found for found in _leaves(item) if isinstance(found, str))


def words_of(text: str) -> Words:
    """Return the words of a text, by which two texts are the same whatever their case, punctuation and blanks."""
    return _words(text)


def _leaves(item: Any) -> Iterator[Question | str]:
    """Yield the questions and texts in an item, however deep; a text next to a context also with that before it."""
    if isinstance(item, str | Question):
        yield item
    elif isinstance(item, Passage | Dialogue):
        yield _said(item)
    elif item is not None and not isinstance(item, int | float):
        parts = _parts(item)
        context = parts.get("context")
        for part in parts.values():
            yield from _leaves(part)
            if isinstance(context, str) and isinstance(part, str):
                yield f"{context} {part}"


def _parts(item: Any) -> Mapping[Any, Any]:
    """Return the parts of an item, by name if they have names."""
    if is_dataclass(item):
        return {field.name: getattr(item, field.name) for field in fields(item)}
    if isinstance(item, tuple) and hasattr(item, "_fields"):
        return dict(zip(item._fields, item, strict=True))
    if isinstance(item, Mapping):
        return dict(enumerate(chain(item.keys(), item.values())))
    return dict(enumerate(item)) if isinstance(item, Iterable) and not isinstance(item, bytes) else {}


def _said(item: Passage | Dialogue) -> str:
    if isinstance(item, Dialogue):
        return "\n".join(message.content for message in item.messages)
    before = item.prompt if isinstance(item.prompt, str) else _said(item.prompt)
    return before + item.continuation + item.suffix


def _is_whole(text: str) -> bool:
    """Whether a text ends like a sentence; the beginning of a sentence may occur in many others."""
    return re.search(r"[.!?][\"'”’)]*\s*$", text) is not None


def _runs(words: Words) -> Iterator[int]:
    return (hash(words[i : i + RUN]) for i in range(len(words) - RUN + 1))


def _words(text: str) -> Words:
    return tuple(re.findall(r"[^\W_]+", text.casefold()))


def _identity(question: Question) -> tuple[str, frozenset[str]]:
    return _normal(f"{question.context} {question.question}"), frozenset(map(_normal, question.options))


def _normal(text: str) -> str:
    return " ".join(text.casefold().split())
