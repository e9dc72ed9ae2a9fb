"""`esbbq`: BBQ for Spain, in Spanish (Ruiz-Fernandez et al. 2025, arXiv 2507.11216; langtech-bsc/EsBBQ-CaBBQ ee2e0f6).

Its own score is the difference score of `evenhand.evaluation.metrics.difference_scores`, next to BBQ's. In the files
the unknown option is the English word "unknown", always the last: here it gets a Spanish wording and a position
in every row, both drawn by a hash of the row's id; otherwise language, position and abstention would be confounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from evenhand.data import esbbq as reader
from evenhand.data.bias_rows import BiasRow, BiasRows
from evenhand.evaluation._worded_qa import WordedQA
from evenhand.interfaces import settings


@settings
class EsBBQ(WordedQA):
    """Question answering about people in Spain, ten categories, in Spanish."""

    name: ClassVar[str] = "esbbq"
    evaluation_only: ClassVar[str] = reader.DATASET.evaluation_only
    wordings: ClassVar[tuple[str, ...]] = reader.WORDINGS

    def bias_rows(self) -> BiasRows:
        """Read the rows from the files or the hub."""
        return reader.load(self.source, partial=self.partial)

    def rows_of(self, raw: Mapping[str, Any]) -> BiasRow:
        """Parse one row of the files."""
        return reader.row_of(raw, "es", self.wordings)
