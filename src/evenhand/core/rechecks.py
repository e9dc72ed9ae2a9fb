"""Cached hashes of weights, which are checked in full when a piece of work ends.

Hashing all weights at every question would take as long as the answer. So a model reuses its hash while a cheap check
finds no change, and notes that here; code that stores answers has these hashes checked in full before they count.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol
from weakref import WeakSet


class KeptHash(Protocol):
    """An object that caches the hash of weights."""

    name: str
    """Name of the model, for messages."""

    def recheck(self) -> None:
        """Hash in full; if the cached hash was wrong, tell all collections in which it was used (`spoil`)."""

    def __hash__(self) -> int:
        """Hash by identity."""


class Rechecks:
    """Cached hashes used in one piece of work, and the keys of the answers stored on their basis."""

    def __init__(self) -> None:
        """Start with nothing used."""
        self._used: WeakSet[KeptHash] = WeakSet()
        self._spoilt: set[str] = set()
        self.stored: list[str] = []
        """Keys of these answers in the answer cache."""

    def use(self, kept: KeptHash) -> None:
        """Note that a hash was used without hashing anew."""
        self._used.add(kept)

    def store(self, keys: Iterable[str]) -> None:
        """Note which answers were stored, if any cached hash was used before."""
        if self._used:
            self.stored += keys

    def spoil(self, name: str) -> None:
        """Note that the cached hash of a model was wrong while it was used here."""
        self._spoilt.add(name)

    def wrong(self) -> list[str]:
        """Hash all these weights in full; returns the names of the models whose cached hash was wrong."""
        for kept in self._used:
            kept.recheck()
        return sorted(self._spoilt)


_active: ContextVar[Rechecks | None] = ContextVar("evenhand_rechecks", default=None)


@contextmanager
def collected() -> Iterator[Rechecks]:
    """Collect the cached hashes that are used within the block; a nested block collects its own."""
    found = Rechecks()
    token = _active.set(found)
    try:
        yield found
    finally:
        _active.reset(token)


def active() -> Rechecks | None:
    """Return the innermost collection, or None."""
    return _active.get()
