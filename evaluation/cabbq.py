"""`cabbq`: BBQ for Spain, in Catalan (Ruiz-Fernandez et al. 2025, arXiv 2507.11216; langtech-bsc/EsBBQ-CaBBQ ee2e0f6).

Scores and wordings are those of `esbbq`. In nine of the ten categories the rows match EsBBQ's line by line, with the
same ids; in PhysicalAppearance they do not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from evenhand.data import cabbq as reader
from evenhand.data.bias_rows import BiasRow, BiasRows
from evenhand.data.esbbq import row_of
from evenhand.evaluation._worded_qa import WordedQA
from evenhand.interfaces import settings


@settings
class CaBBQ(WordedQA):
    """Question answering about people in Spain, ten categories, in Catalan."""

    name: ClassVar[str] = "cabbq"
    evaluation_only: ClassVar[str] = reader.DATASET.evaluation_only
    wordings: ClassVar[tuple[str, ...]] = reader.WORDINGS

    def bias_rows(self) -> BiasRows:
        """Read the rows from the files or the hub."""
        return reader.load(self.source, partial=self.partial)

    def rows_of(self, raw: Mapping[str, Any]) -> BiasRow:
        """Parse one row of the files."""
        return row_of(raw, "ca", self.wordings)
