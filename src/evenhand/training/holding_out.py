"""Division into training and held-out items: drawn by cluster, so that no text is on both sides.

Items that share a text are in one cluster, and so are items that are linked through others. Clusters are drawn in the
order of a seeded hash of their texts. The result therefore does not depend on the order of the items, and an item that
is added later moves few others to the other side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from evenhand.core.draws import item_hash
from evenhand.errors import SettingsError

T = TypeVar("T")
Text = str | tuple[object, ...]
"""A text, or its token ids. Its `repr` names it, so it must be the same in every process (no sets)."""


def hold_out(
    items: Sequence[T], texts_of: Callable[[T], Iterable[Text]], fraction: float, seed: int, what: str = "held out"
) -> tuple[list[T], list[T]]:
    """Divide items into those to learn from and those that are held out, both in the given order.

    Args:
        items: Items to divide.
        texts_of: The texts of an item, at least one; items that share one stay together.
        fraction: Fraction of the items to hold out, 0 to below 1. Whole clusters are drawn until it is reached; at
            least one is held out and at least one is learned from. 0 holds nothing out.
        seed: Seed of the draw.
        what: Name of the draw; draws of different names are independent.

    Raises:
        SettingsError: The fraction is out of range, or all items are in one cluster, which cannot be divided.
    """
    if not 0 <= fraction < 1:
        raise SettingsError(f"validation_fraction={fraction}: give 0 (nothing is held out) or a fraction below 1")
    if not fraction:
        return list(items), []
    names = [[item_hash(seed, repr(text), what) for text in texts_of(item)] for item in items]
    clusters = _clusters(names)
    if len(clusters) < 2:
        raise SettingsError(
            f"{len(items)} items cannot be divided into training and held-out ones with "
            f"validation_fraction={fraction}, as they all share texts: give more different ones, or "
            "validation_fraction=0 to hold nothing out"
        )
    wanted, held = max(1, round(fraction * len(items))), set[int]()
    for cluster in clusters[:-1]:
        if len(held) >= wanted:
            break
        held.update(cluster)
    return [x for n, x in enumerate(items) if n not in held], [items[n] for n in sorted(held)]


def _clusters(names: Sequence[Sequence[bytes]]) -> list[list[int]]:
    """Group the indices of items that share a name, directly or through others; clusters are ordered by lowest name."""
    parent = {name: name for some in names for name in some}

    def root(name: bytes) -> bytes:
        while parent[name] != name:
            parent[name] = name = parent[parent[name]]
        return name

    for first, *others in names:
        for other in others:
            low, high = sorted((root(first), root(other)))
            parent[high] = low
    members: dict[bytes, list[int]] = {}
    for n, some in enumerate(names):
        members.setdefault(root(some[0]), []).append(n)
    return [members[name] for name in sorted(members)]
