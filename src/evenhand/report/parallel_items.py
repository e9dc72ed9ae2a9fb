"""Match items of two benchmarks that ask the same in two languages, such as those of EsBBQ and CaBBQ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

from evenhand.interfaces import Benchmark, Item


@runtime_checkable
class ParallelItem(Item, Protocol):
    """An item that says which items of other languages are its translations."""

    @property
    def parallel(self) -> str:
        """Text that is the same in every language; "" if there is no translation."""

    @property
    def target(self) -> int | None:
        """The stereotyped option."""


def parallel_pairs(
    benchmarks: tuple[Benchmark, Benchmark], before: Sequence[Any], after: Sequence[Any]
) -> list[tuple[str, str]]:
    """Return the ids of items that are each other's translation.

    Both must be of the same cluster and stratum and have the same right and stereotyped options: then every statistic
    of one has its counterpart in the other, and the resamples of clusters are those of both.

    Args:
        benchmarks: Benchmarks of both sides.
        before: Items of the first one.
        after: Items of the second one, whose order is kept.
    """
    there = {key: item.id for key, item in _keyed(benchmarks[0], before)}
    return [(there[key], item.id) for key, item in _keyed(benchmarks[1], after) if key in there]


def _keyed(benchmark: Benchmark, items: Sequence[Any]) -> Iterator[tuple[tuple[object, ...], ParallelItem]]:
    """Yield the items that have translations, each with what they have in common with it."""
    known = [item for item in items if isinstance(item, ParallelItem) and item.parallel]
    for item, right in zip(known, benchmark.gold(known) or [None] * len(known), strict=True):
        yield (item.parallel, item.cluster, benchmark.stratum(item), right, item.target), item
