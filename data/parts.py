"""A benchmark cut in two: one part for methods to fit on, one to be asked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Literal

from evenhand.core.draws import key_hash

Part = Literal["all", "fit", "test"]


def clusters_of(part: Part, clusters: Iterable[tuple[str, str]]) -> frozenset[str]:
    """The clusters of a part. Each is in exactly one of "fit" and "test".

    Within a stratum the clusters are put in the order of a hash of their names, and go to the two parts in turns, "fit"
    first: of n clusters "fit" gets n / 2, rounded up. So which part a cluster is in depends on its own stratum alone.

    Args:
        part: "all", "fit" or "test".
        clusters: (stratum, cluster), such as a category and a template; repetitions do not matter.
    """
    by: dict[str, set[str]] = defaultdict(set)
    for stratum, cluster in clusters:
        by[stratum].add(cluster)
    steps = {"all": slice(None), "fit": slice(0, None, 2), "test": slice(1, None, 2)}
    return frozenset(
        c for found in by.values() for c in sorted(found, key=lambda c: key_hash(f"part {c}"))[steps[part]]
    )
