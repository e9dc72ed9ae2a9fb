"""Count items that became right, or ceased to be, between two rows of answers to the same items, for many pairs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evenhand.interfaces import Array, Grade, Tally

Place = tuple[NDArray[np.intp], NDArray[np.intp]]
"""Numbers of items, and the place of each among clusters and groups."""


class TurnedItems:
    """Counts the items that turned; what depends only on the items or on one row's grades is computed once."""

    def __init__(self, like: Sequence[Grade], clusters: Sequence[str], tally: Tally) -> None:
        """Take the items.

        Args:
            like: Grades of any row, one per item, which give the parts and groups.
            clusters: Clusters of the items.
            tally: Gives the order of clusters and groups.
        """
        self._shape = len(tally.clusters), len(tally.groups)
        self._places = _places(like, clusters, tally)
        self._rights: dict[int, tuple[Sequence[Grade], NDArray[np.bool_], NDArray[np.bool_]]] = {}

    def has(self, part: str) -> bool:
        """Whether any item of this part is in a group."""
        return part in self._places

    def counts(self, part: str, before: Sequence[Grade], after: Sequence[Grade]) -> Array:
        """Count the items of a part that became right, that ceased to be right, and all, [C, G, 3].

        Only items that both sides' share of right answers counts are included; undecided ones are not right.
        """
        (was, counted_before), (now, counted) = self._right(before), self._right(after)
        both = counted & counted_before
        kinds = (both & now & ~was, both & was & ~now, both)
        return np.stack([self._sums(part, kind) for kind in kinds], axis=-1)

    def _sums(self, part: str, kind: NDArray[np.bool_]) -> Array:
        if part not in self._places:
            return np.zeros(self._shape)
        items, place = self._places[part]
        counts = np.bincount(place, weights=kind[items].astype(float), minlength=self._shape[0] * self._shape[1])
        return counts.astype(np.float64).reshape(self._shape)

    def _right(self, grades: Sequence[Grade]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return which answers are right, and which count."""
        if id(grades) not in self._rights:
            right = np.array([g.decision is not None and g.right for g in grades], dtype=bool)
            counted = np.array([g.counted for g in grades], dtype=bool)
            self._rights[id(grades)] = grades, right, counted  # the grades are kept, so that their id stays theirs
        _, right, counted = self._rights[id(grades)]
        return right, counted


def _places(grades: Sequence[Grade], clusters: Sequence[str], tally: Tally) -> dict[str, Place]:
    """Return by part of the grades where each item counts."""
    cluster, group = ({name: n for n, name in enumerate(names)} for names in (tally.clusters, tally.groups))
    found: dict[str, list[tuple[int, int]]] = {}
    for number, (grade, where) in enumerate(zip(grades, clusters, strict=True)):
        for name in grade.groups:
            found.setdefault(grade.part, []).append((number, cluster[where] * len(group) + group[name]))
    places = {}
    for part, at in found.items():
        numbers, where_to = (np.array(n, dtype=np.intp) for n in zip(*at, strict=True))
        places[part] = numbers, where_to
    return places
