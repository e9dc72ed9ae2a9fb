"""Nothing is asked twice: what a member answered or voted is written down before the next request goes out.

The leaf cache (`evenhand.core.answer_cache`) does that for local models and endpoints. A pool may hold models of any
kind, so each answer and vote is put down here as well, by who was asked, about what, in which words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from evenhand.core.answer_cache import AnswerCache
from evenhand.core.progress import track

CHUNK = 256
"""Requests that go out together; a killed run repeats at most what was under way."""


class Journal:
    """Everything that was asked, on disk."""

    def __init__(self, path: Path) -> None:
        """Open or create it."""
        self._table = AnswerCache(path)
        self.asked: Counter[str] = Counter()
        """Requests by stage that were not answered before."""

    def missing(self, keys: Sequence[str]) -> bool:
        """Whether anything has still to be asked."""
        return len(self._table.get(keys)) < len(set(keys))

    def once(
        self, stage: str, keys: Sequence[str], ask: Callable[[Sequence[int]], Sequence[Any]], chunk: int = CHUNK
    ) -> list[Any]:
        """Answers (JSON values) to requests, those that are not there yet from `ask`.

        Args:
            stage: What this is, for counts and progress.
            keys: What decides each answer; equal keys are asked once.
            ask: From indices of requests to their answers.
            chunk: Most requests at a time.
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
