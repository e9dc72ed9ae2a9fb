"""`gg_bbq`: gender bias in German question answering (Satheesh et al. 2025, arXiv 2507.16410; shalakasatheesh/GG-BBQ).

The scores are BBQ's and the difference score: in three quarters of the disambiguated rows the right
answer is against the stereotype, so that a model that is always right gets -0.51 by BBQ's score there, and 0 by the
difference score.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from evenhand.data import gg_bbq as reader
from evenhand.data.bias_rows import BiasRow, BiasRows
from evenhand.evaluation._bias_qa import BiasItem, BiasQA
from evenhand.interfaces import settings


@settings
class GGBBQ(BiasQA):
    """Question answering about women, men and trans people in German, called by group terms or by first names."""

    name: ClassVar[str] = "gg_bbq"
    evaluation_only: ClassVar[str] = reader.DATASET.evaluation_only

    subset: reader.Subset = "all"
    """Which rows are asked: groups (people called by group terms), names (by first names), or all, with a group for the
    names."""
    repeats: reader.Repeats = "drop"
    """How ambiguous rows that repeat another one word for word are treated, 196 of 484 and 3,750 of 5,450. drop: each
    question is asked once. keep: it counts as often as it occurs, as in the official files."""

    def bias_rows(self) -> BiasRows:
        """Read the rows of the subset."""
        return reader.load_rows(self.source, subset=self.subset, repeats=self.repeats)

    def rows_of(self, raw: Mapping[str, Any]) -> BiasRow:
        """Parse one row of the files as a row of subset 1."""
        return reader.row_of(raw)

    def groups_of(self, item: BiasItem) -> tuple[str, ...]:
        """Return the category; rows with names form a group of their own, as in `bbq`."""
        category = item.row.category
        return (f"{category} (names)" if item.row.extra.get("subset") == "names" else category,)
