"""`Sums`: the summed statistics of a benchmark, by name instead of by the number of a column."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from evenhand.errors import SettingsError, suggest
from evenhand.interfaces import Array


class Sums:
    """Sums [..., P * S] of S named statistics in each of P parts of the items; every value has the shape [...].

    Most benchmarks have a single part. If there are several, such as ambiguous and disambiguated contexts,
    `sums["right"]` is over all parts, and `sums.part("ambiguous")["right"]` over one.
    """

    def __init__(self, values: Array, names: Sequence[str], parts: Sequence[str] = ("",)) -> None:
        """Name the columns.

        Args:
            values: [..., P * S], the S statistics of the first part, then those of the next one.
            names: S names.
            parts: P names.
        """
        self.parts = tuple(parts)
        self._at = {name: n for n, name in enumerate(names)}
        self._values = values.reshape(*values.shape[:-1], len(self.parts), len(self._at))

    @classmethod
    def nothing(cls, names: Sequence[str], parts: Sequence[str] = ("",)) -> Sums:
        """Return the sums of no answer at all: zeros."""
        return cls(np.zeros(len(parts) * len(names)), names, parts)

    def __getitem__(self, name: str) -> Array:
        """Return the sum of one statistic, over all parts.

        Raises:
            SettingsError: The statistic is unknown.
        """
        return self._over_parts(self._values[..., self._place(name)])

    def stacked(self, names: Iterable[str]) -> Array:
        """Return several statistics next to one another, [..., N], over all parts."""
        places = [self._place(name) for name in names]
        taken: Array = np.take(self._values, places, axis=-1)
        return self._over_parts(np.moveaxis(taken, -2, -1))

    def by_part(self, name: str) -> Array:
        """Return the sum of one statistic in each part, [..., P]."""
        found: Array = self._values[..., self._place(name)]
        return found

    def part(self, part: str) -> Sums:
        """Return the sums of one part.

        Raises:
            SettingsError: The part is unknown.
        """
        if part not in self.parts:
            raise SettingsError(f"unknown part of the items {part!r}. {suggest(part, self.parts)}")
        return Sums(self._values[..., self.parts.index(part), :], tuple(self._at))

    def _place(self, name: str) -> int:
        if name not in self._at:
            raise SettingsError(f"unknown statistic {name!r}. {suggest(name, self._at)}")
        return self._at[name]

    def _over_parts(self, values: Array) -> Array:
        """Sum over the last axis, which are the parts."""
        total: Array = values[..., 0]
        for n in range(1, len(self.parts)):
            total = total + values[..., n]
        return total
