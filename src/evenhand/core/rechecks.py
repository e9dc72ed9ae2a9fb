"""Hashes of weights that were kept from an earlier call, to be checked in full when a piece of work ends.

Hashing all weights at every question would take as long as the answer. So a model keeps its hash while a cheap check
finds no change, and says here that it did; whoever stores answers has these hashes checked in full before they count.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol
from weakref import WeakSet


class KeptHash(Protocol):
    """Something that keeps the hash of weights."""

    name: str
    """Of the model, for messages."""

    def recheck(self) -> None:
        """Hash in full; where the kept hash was not right, say so to all collections in which it was used (`spoil`)."""

    def __hash__(self) -> int:
        """By identity."""


class Rechecks:
    """The kept hashes that were used in one piece of work, and the names of the answers stored on their word."""

    def __init__(self) -> None:
        """Nothing was used yet."""
        self._used: WeakSet[KeptHash] = WeakSet()
        self._spoilt: set[str] = set()
        self.stored: list[str] = []
        """Keys of the answer cache."""

    def use(self, kept: KeptHash) -> None:
        """Note that a hash was used without hashing anew."""
        self._used.add(kept)

    def store(self, keys: Iterable[str]) -> None:
        """Note which answers were stored, where any kept hash was used before."""
        if self._used:
            self.stored += keys

    def spoil(self, name: str) -> None:
        """Note that the kept hash of a model was not right while it was used here."""
        self._spoilt.add(name)

    def wrong(self) -> list[str]:
        """Hash all weights in question; the names of the models whose kept hash was not right."""
        for kept in self._used:
            kept.recheck()
        return sorted(self._spoilt)


_active: ContextVar[Rechecks | None] = ContextVar("evenhand_rechecks", default=None)


@contextmanager
def collected() -> Iterator[Rechecks]:
    """Collect the kept hashes that are used while the block runs; the innermost block has them."""
    found = Rechecks()
    token = _active.set(found)
    try:
        yield found
    finally:
        _active.reset(token)


def active() -> Rechecks | None:
    """The innermost collection, if any."""
    return _active.get()
