"""Sum the named statistics of answers per cluster and group.

All rows are collected before anything is added: one array is built for all of them, as a call to numpy for every item
takes longer than the sums themselves. Either way of adding keeps the order of the items, so both give the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from evenhand.errors import SettingsError, suggest
from evenhand.interfaces import Array

Row = Mapping[str, float]
"""Statistics of an answer by name; those that are left out are 0."""
Ints = NDArray[np.intp]
_Groups = list[list[int]]
_Shape = tuple[int, int, int]
FEW = 500
"""Below this number of statistics, they are added one by one."""


class RowSums:
    """Collects rows and adds them up."""

    def __init__(self, benchmark: str, statistics: Sequence[str], groups: Sequence[str], parts: int = 1) -> None:
        """Start without any row.

        Args:
            benchmark: Name of the benchmark, for errors.
            statistics: S names that rows may have.
            groups: G names.
            parts: P parts of the items, each of which has all statistics.
        """
        self._benchmark, self._at = benchmark, {name: n for n, name in enumerate(statistics)}
        self._groups, self._parts = {name: n for n, name in enumerate(groups)}, parts
        self._ids: list[str] = []
        self._names: list[str] = []
        self._values: list[float] = []
        self._lengths: list[int] = []
        self._place: list[tuple[int, int, int]] = []
        self._members: dict[Sequence[str], int] = {}

    def add(self, item: str, row: Row, cluster: int, groups: tuple[str, ...], part: int = 0) -> None:
        """Add a row.

        Args:
            item: The item's id, for errors.
            row: Statistics by name.
            cluster: Number of the cluster that it counts in.
            groups: Names of the groups that it counts in; others than those given at first do not matter.
            part: Number of the part that the item belongs to.

        Raises:
            SettingsError: The row is not a mapping.
        """
        if not isinstance(row, Mapping):
            raise SettingsError(
                f"{self._benchmark}: row() of item {item!r} gives {row!r}, which is not a mapping; return the numbers "
                'by the names of the statistics, such as {"asked": 1}, or {} where there is nothing to count'
            )
        self._ids.append(item)
        self._names.extend(row)
        self._values.extend(row.values())
        self._lengths.append(len(row))
        self._place.append((cluster, self._members.setdefault(groups, len(self._members)), part))

    def total(self, clusters: int) -> Array:
        """Return the sums [C, G, P * S].

        Args:
            clusters: Number of clusters, C.

        Raises:
            SettingsError: A row has a statistic that is not declared, or a value that is not a number, as nan is not.
                Infinite values are added up: the log-probability of an impossible text is one.
        """
        columns = self._columns()
        self._check_values()
        groups = [[self._groups[g] for g in dict.fromkeys(names) if g in self._groups] for names in self._members]
        shape = (clusters, len(self._groups), self._parts * len(self._at))
        found = self._one_by_one if len(columns) < FEW else self._at_once
        return np.asarray(found(columns, groups, shape), dtype=np.float64).reshape(shape)

    def _one_by_one(self, columns: list[int], groups: _Groups, shape: _Shape) -> list[float]:
        """Add up a few rows, for which calls to numpy would take longer than the sums."""
        sums, begin = [0.0] * math.prod(shape), 0
        for (cluster, members, part), length in zip(self._place, self._lengths, strict=True):
            end = begin + length
            for group in groups[members]:
                first = (cluster * shape[1] + group) * shape[2] + part * len(self._at)
                for column, value in zip(columns[begin:end], self._values[begin:end], strict=True):
                    sums[first + column] += value
            begin = end
        return sums

    def _at_once(self, columns: list[int], groups: _Groups, shape: _Shape) -> Array:
        lengths, sizes = np.array(self._lengths, dtype=np.intp), np.array([len(g) for g in groups], dtype=np.intp)
        cluster, members, part = np.array(self._place, dtype=np.intp).reshape(-1, 3).T
        column = np.array(columns, dtype=np.intp) + np.repeat(part * len(self._at), lengths)
        copies = sizes[members]
        row = np.repeat(np.arange(len(lengths)), copies)  # for every row in every group that it counts in
        group = np.array([g for mine in groups for g in mine], dtype=np.intp)
        cell = cluster[row] * shape[1] + group[_ranges((sizes.cumsum() - sizes)[members], copies)]
        entries = _ranges((lengths.cumsum() - lengths)[row], lengths[row])
        at = np.repeat(cell * shape[2], lengths[row]) + column[entries]
        values = np.fromiter(self._values, np.float64, len(columns))
        return np.bincount(at, weights=values[entries], minlength=math.prod(shape)).astype(np.float64, copy=False)

    def rows(self) -> tuple[list[str], Array]:
        """Return the item of each row, and the statistics [R, S] of each row by itself, whatever its part and groups.

        Raises:
            SettingsError: As in `total`.
        """
        columns = self._columns()
        self._check_values()
        found = np.zeros((len(self._ids), len(self._at)))
        found[np.repeat(np.arange(len(self._ids)), self._lengths), columns] = self._values
        return self._ids, found

    def _columns(self) -> list[int]:
        at = self._at
        try:
            return [at[name] for name in self._names]
        except KeyError:
            n = next(n for n, name in enumerate(self._names) if name not in at)
        raise SettingsError(
            f"{self._benchmark}: row() of item {self._item(n)!r} gives the statistic {self._names[n]!r}, which "
            f"`statistics` does not name. {suggest(str(self._names[n]), at)}"
        )

    def _check_values(self) -> None:
        try:
            if not any(map(math.isnan, self._values)):
                return
        except TypeError:
            pass
        n = next(n for n, value in enumerate(self._values) if not _is_number(value))
        raise SettingsError(
            f"{self._benchmark}: row() of item {self._item(n)!r} gives {self._names[n]}={self._values[n]!r}, which is "
            "not a number; leave out what is not known, and count what is known in a statistic of its own"
        )

    def _item(self, entry: int) -> str:
        """Return the item of an entry."""
        return self._ids[int(np.searchsorted(np.cumsum(self._lengths), entry, side="right"))]


def _is_number(value: float) -> bool:
    try:
        return not math.isnan(value)
    except TypeError:
        return False


def _ranges(starts: Ints, lengths: Ints) -> Ints:
    """Return the numbers from each start on, as many as its length, one range after the other."""
    ends = lengths.cumsum()
    shift = np.repeat(starts - (ends - lengths), lengths)
    return np.asarray(np.arange(len(shift)) + shift, dtype=np.intp)
