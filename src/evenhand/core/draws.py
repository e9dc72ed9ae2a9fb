"""Seeded draws: orders by a hash of seed and name, and random generators.

The formulas are fixed, since others would change all draws of earlier versions; so callers differ in how they join seed
and names. The place of a name in an order by hash depends on no other name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from random import Random
from typing import TYPE_CHECKING, TypeVar

from evenhand.core.hashing import utf8

if TYPE_CHECKING:
    import numpy as np

T = TypeVar("T")


def key_hash(key: str) -> bytes:
    """SHA-256 of a text: a sort key, or a seed for something smaller."""
    return hashlib.sha256(utf8(key)).digest()


def seeded_hash(seed: int, *names: object) -> bytes:
    """Return the `key_hash` of a seed and names, joined by slashes."""
    return _hash("/", seed, *names)


def item_hash(seed: int, item_id: str, *names: object) -> bytes:
    """Return the `key_hash` of a seed, an item's id and further names, joined by colons."""
    return _hash(":", seed, item_id, *names)


def generator(*parts: int | str | bytes) -> np.random.Generator:
    """Return NumPy's default generator, seeded by numbers and by the bytes of texts (UTF-8).

    Args:
        parts: Numbers (not negative) and texts; include the purpose of the draw, so that it depends on no other draw.
    """
    import numpy as np

    numbers: list[int] = []
    for part in parts:
        encoded = utf8(part) if isinstance(part, str) else part
        numbers += encoded if isinstance(encoded, bytes) else [encoded]
    return np.random.default_rng(numbers)


def seeded_order(names: Iterable[str], seed: int, what: str) -> list[str]:
    """Return distinct names in the order of their seeded hashes.

    Args:
        names: In any order; repetitions do not matter.
        seed: Seed of the hashes.
        what: What is drawn, which keeps draws of different things apart.
    """
    return sorted(set(names), key=lambda name: _hash("|", seed, what, name))


def shuffled(items: Iterable[T], seed: int | str) -> list[T]:
    """Return items in a random order; a seed may be a text that says what the order is for."""
    order = list(items)
    Random(seed).shuffle(order)
    return order


def _hash(separator: str, *parts: object) -> bytes:
    return key_hash(separator.join(map(str, parts)))
