"""The content of a difference: pairs of rows with their numbers, and rows that cannot be compared."""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan
from typing import TYPE_CHECKING, NamedTuple

from evenhand.core.records import Record
from evenhand.statistics.criteria import Criteria

if TYPE_CHECKING:
    import pandas as pd


class Side(NamedTuple):
    """One of two rows that are compared."""

    run: str
    model: str
    method: str
    benchmark: str = ""
    """Where both sides are of different ones, which ask the same in two languages; else "" on both."""

    def label(self, other: Side) -> str:
        """What tells it from the other one, or the method where both are the same."""
        own = [part for part, its in zip(self, other, strict=True) if part != its and part]
        return ", ".join(own) or self.method


@dataclass(frozen=True)
class Pair:
    """Two rows on one benchmark."""

    before: Side
    after: Side
    benchmark: str
    items: int
    """Items that the numbers rest on: equal in content, and answered by both."""
    only_before: int
    """Items that only one of the two was asked, or whose content differs."""
    only_after: int
    unanswered_before: int
    """Common items that it never answered; they are left out of both."""
    unanswered_after: int
    records: tuple[Record, ...]
    """Every metric of `after` by group, with the difference from `before`."""
    notes: tuple[str, ...] = ()
    """What a reader has to know of the comparison."""

    @property
    def title(self) -> str:
        """Which two rows, in words."""
        if self.after == self.before:
            return ", ".join(filter(None, self.after))
        same = [part for part, its in zip(self.after, self.before, strict=True) if part == its and part]
        where = f" ({', '.join(same)})" if same else ""
        return f"{self.before.label(self.after)} → {self.after.label(self.before)}{where}"


class Refusal(NamedTuple):
    """Two rows that cannot be compared, or a row without a partner."""

    what: str
    benchmark: str
    reason: str


@dataclass(frozen=True)
class Differing:
    """The content of a `Difference`."""

    pairs: tuple[Pair, ...]
    refused: tuple[Refusal, ...]
    criteria: Criteria
    """Level of the tests; p is adjusted over all pairs of one benchmark, metric and group (Holm)."""

    @property
    def records(self) -> list[Record]:
        """The numbers of all pairs."""
        return [record for pair in self.pairs for record in pair.records]

    def frame(self, *, main_only: bool = True, group: str = "overall") -> pd.DataFrame:
        """One line per pair and metric: both values, the difference with its interval, p and whether it is shown.

        Args:
            main_only: Whether only the main metrics are shown.
            group: Which group; "" takes all.
        """
        import pandas as pd

        rows = [
            {
                "before": pair.before.label(pair.after),
                "after": pair.after.label(pair.before),
                "model": pair.after.model,
                "method": pair.after.method,
                "benchmark": pair.benchmark,
                "metric": r.metric,
                "group": r.group,
                "value_before": r.value - r.difference,
                "value_after": r.value,
                "difference": r.difference,
                "difference_low": r.difference_low,
                "difference_high": r.difference_high,
                "p_holm": r.p_holm,
                "better": None if isnan(r.gain) or r.gain == 0 else r.gain > 0,
                "significant": self.criteria.significant(r),
                "n": r.n,
                "clusters": r.clusters,
            }
            for pair in self.pairs
            for r in pair.records
            if r.kind != "change" and (r.main or not main_only) and group in ("", r.group)
        ]
        return pd.DataFrame(rows)
