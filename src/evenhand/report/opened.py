"""`Opened`: a benchmark opened once to show many of its items, as far as they may be shown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

from evenhand.core import registry
from evenhand.errors import EvenhandError, UnknownNameError
from evenhand.interfaces import Benchmark, Question, QuestionItem

UNKNOWN = " If a plugin file defines it, give --plugin FILE; in Python, call evenhand.core.registry.load_plugin(FILE)."
_at_hand: ContextVar[Mapping[str, Benchmark] | None] = ContextVar("evenhand_opened_benchmarks", default=None)


@contextmanager
def at_hand(benchmarks: Iterable[Benchmark]) -> Iterator[None]:
    """Show the items of these benchmarks within the block without reading their data again.

    Args:
        benchmarks: Benchmarks as they were asked. One that the registry would not build from its spec is not used.
    """
    token = _at_hand.set({b.spec: b for b in benchmarks})
    try:
        yield
    finally:
        _at_hand.reset(token)


@runtime_checkable
class _Leaning(Protocol):
    """An item that knows which option follows the stereotype, such as one of BBQ."""

    @property
    def target(self) -> int | None:
        """Stereotyped option."""

    @property
    def unknown(self) -> int | None:
        """Option that names nobody."""


@dataclass(frozen=True)
class Opened:
    """A benchmark, or why it cannot be opened."""

    spec: str

    @cached_property
    def _built(self) -> tuple[Benchmark | None, str]:
        try:
            built = registry.build_benchmark(self.spec)
        except EvenhandError as error:  # such as of a plugin that is not loaded: it is then unknown what may be shown
            remedy = UNKNOWN if isinstance(error, UnknownNameError) else ""
            return None, f"the benchmark cannot be opened: {error}{remedy}"
        kept = (_at_hand.get() or {}).get(self.spec)
        return (kept if type(kept) is type(built) else built), ""

    @property
    def benchmark(self) -> Benchmark | None:
        """The benchmark; None if it cannot be opened."""
        return self._built[0]

    @property
    def quotable(self) -> bool:
        """Whether its texts may be shown; False if it cannot be opened."""
        return self.benchmark is not None and self.benchmark.quotable

    @property
    def why(self) -> str:
        """Why the benchmark or its items are not available; "" if they are."""
        return self._built[1] or self._loaded[1]

    @cached_property
    def _loaded(self) -> tuple[Mapping[str, Any], str]:
        if self.benchmark is None:
            return {}, ""
        try:
            return {item.id: item for item in self.benchmark.load()}, ""
        except EvenhandError as error:
            return {}, f"the question is not shown: {error}"

    @property
    def items(self) -> Mapping[str, Any]:
        """Items by id; empty if the data is missing."""
        return self._loaded[0]

    def question(self, item: str) -> Question | None:
        """Return the question of an item; None if it has none, may not be shown or is missing."""
        return question_of(self.items.get(item)) if self.quotable else None

    def option(self, item: str, decision: int | None) -> str:
        """Return the text of an option; "" if it is unknown or may not be shown."""
        question = self.question(item)
        if question is None or decision is None or not 0 <= decision < len(question.options):
            return ""
        return question.options[decision]

    def leaning(self, item: str, decision: int | None) -> str:
        """Return stereotyped, counter-stereotyped or unknown; "" if the benchmark does not tell the options apart."""
        unit = self.items.get(item)
        if decision is None or not isinstance(unit, _Leaning) or unit.target is None:
            return ""
        if decision == unit.target:
            return "stereotyped"
        return "unknown" if decision == unit.unknown else "counter-stereotyped"


def question_of(item: Any) -> Question | None:
    """Return the question of a benchmark's item; None if it has none, or could not be read."""
    found = item.question if isinstance(item, QuestionItem) else None
    return found if isinstance(found, Question) else None
