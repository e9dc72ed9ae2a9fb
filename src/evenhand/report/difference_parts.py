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
    """Benchmark, if the two sides are from different ones that ask the same in two languages; else "" on both sides."""

    def label(self, other: Side) -> str:
        """Return the names that distinguish it from the other side, or the method if both are the same."""
        own = [part for part, its in zip(self, other, strict=True) if part != its and part]
        return ", ".join(own) or self.method


@dataclass(frozen=True)
class Pair:
    """Two rows on one benchmark."""

    before: Side
    after: Side
    benchmark: str
    items: int
    """Number of items that the numbers rest on: equal in content, and answered by both."""
    only_before: int
    """Number of items that only `before` was asked, or whose content differs."""
    only_after: int
    unanswered_before: int
    """Number of common items that `before` never answered; they are left out of both."""
    unanswered_after: int
    records: tuple[Record, ...]
    """Every metric of `after` by group, with the difference from `before`."""
    notes: tuple[str, ...] = ()
    """What a reader has to know about the comparison."""

    @property
    def title(self) -> str:
        """The two rows, in words."""
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
        """Return the numbers of all pairs."""
        return [record for pair in self.pairs for record in pair.records]

    def frame(self, *, main_only: bool = True, group: str = "overall") -> pd.DataFrame:
        """Return one line per pair and metric: both values, the difference and its interval, p and whether it is shown.

        Args:
            main_only: Whether only the main metrics are shown.
            group: Only this group; "" takes all.
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
