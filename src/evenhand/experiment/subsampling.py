"""Selection of items under a limit: a stratified draw that depends on the seed, the items' ids and their strata."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from evenhand.core.draws import item_hash
from evenhand.interfaces import Item

T = TypeVar("T", bound=Item)


def _one(item: Item) -> str:
    """Put all items into one stratum."""
    return ""


def subsample(items: Sequence[T], limit: int | None, seed: int, stratum: Callable[[T], str] = _one) -> Sequence[T]:
    """Select at most `limit` items, in their own order, with every stratum in proportion to its size.

    Items are ranked within their stratum by a seeded hash of their ids. The item of rank r among n has the key
    (r + phase) / n, and the `limit` smallest keys are taken: the number taken from a stratum differs by less than one
    from a fraction of its size that is the same for all strata. Their phases are evenly spaced from 0 to 1 and dealt at
    random. With one phase for all, small strata would never be drawn under a low limit; so every item has practically
    the same chance, and unweighted averages over the chosen items estimate those over all of them. The choice does not
    depend on the order of the items, and a larger limit contains the choice of a smaller one.

    Items are drawn, not clusters. Items of one cluster resemble one another, so a few items from many clusters tell
    more than many items from a few, and the width of an interval depends on the number of clusters.

    Args:
        items: All items.
        limit: How many to take; None takes all.
        seed: Seed of the hashes.
        stratum: The stratum of an item, such as `Benchmark.stratum`; without it all items are one stratum.
    """
    if limit is None or limit >= len(items):
        return items
    hashes = [item_hash(seed, item.id) for item in items]
    strata: dict[str, list[int]] = {}
    for i in sorted(range(len(items)), key=lambda i: hashes[i]):
        strata.setdefault(stratum(items[i]), []).append(i)
    shift = int.from_bytes(item_hash(seed, "shift")[:8], "big") / 2**64
    place: dict[int, float] = {}
    for n, name in enumerate(sorted(strata, key=lambda name: item_hash(seed, "stratum", name))):
        phase = (n + shift) / len(strata)
        place |= {i: (rank + phase) / len(strata[name]) for rank, i in enumerate(strata[name])}
    foremost = sorted(place, key=lambda i: (place[i], hashes[i]))[:limit]
    return [items[i] for i in sorted(foremost)]
