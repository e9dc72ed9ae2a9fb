"""Write down what a member answered or voted before the next request goes out, so that nothing is asked twice.

The answer cache (`evenhand.core.answer_cache`) does that for local models and endpoints. As a pool may contain models
of any kind, each answer and vote is also stored here, by who was asked, about what, and in which words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from evenhand.core.answer_cache import AnswerCache
from evenhand.core.progress import track

CHUNK = 256
"""Number of requests sent together; a killed run repeats at most those in progress."""


class Journal:
    """A record of everything that was asked, on disk."""

    def __init__(self, path: Path) -> None:
        """Open or create the journal."""
        self._table = AnswerCache(path)
        self.asked: Counter[str] = Counter()
        """Number of requests by stage that had not been answered before."""

    def missing(self, keys: Sequence[str]) -> bool:
        """Whether anything still has to be asked."""
        return len(self._table.get(keys)) < len(set(keys))

    def once(
        self, stage: str, keys: Sequence[str], ask: Callable[[Sequence[int]], Sequence[Any]], chunk: int = CHUNK
    ) -> list[Any]:
        """Return answers (JSON values) to requests, calling `ask` only for those that are missing.

        Args:
            stage: Name of the stage, for counts and progress.
            keys: Everything that determines each answer; equal keys are asked once.
            ask: Turns indices of requests into their answers.
            chunk: Maximum number of requests at a time.
        """
        found = self._table.get(keys)
        first: dict[str, int] = {}
        for i, key in enumerate(keys):
            if key not in found:
                first.setdefault(key, i)
        todo = list(first.values())
        with track(len(todo), stage) as step:
            for start in range(0, len(todo), chunk):
                part = todo[start : start + chunk]
                fresh = {keys[i]: answer for i, answer in zip(part, ask(part), strict=True)}
                self._table.put(fresh)
                found |= fresh
                self.asked[stage] += len(part)
                step(len(part))
        return [found[key] for key in keys]

    def close(self) -> None:
        """Close the file."""
        self._table.close()
