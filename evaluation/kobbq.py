"""`kobbq`: BBQ for Korea, in Korean (Jin et al. 2024, arXiv 2307.16778; naver-ai/KoBBQ 0dd165a).

Its own score is the difference score of `evenhand.evaluation.metrics.difference_scores`, next to BBQ's. The published
protocol asks each row with five prompts, each with its own wording of the unknown option, in three option orders, lets
the model write (greedily, at most 30 tokens), and drops replies that match no option: `unparsed` is their share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from evenhand.data import kobbq as reader
from evenhand.data.bias_rows import BiasRow, BiasRows
from evenhand.evaluation._bias_qa import BiasQA
from evenhand.interfaces import AnswerBy, Sampling, settings
from evenhand.prompting.kobbq_prompts import PROMPTS, SMALL_LETTERS

CYCLIC = ((0, 1, 2), (1, 2, 0), (2, 0, 1))
"""Orders of the published protocol: the options rotate, so that each is in every position once."""
WRITTEN = Sampling(temperature=0.0, max_new_tokens=30)
"""How replies are written in the published protocol."""


@settings
class KoBBQ(BiasQA):
    """Question answering about people in Korea, twelve categories, in Korean."""

    name: ClassVar[str] = "kobbq"
    evaluation_only: ClassVar[str] = reader.DATASET.evaluation_only
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        f"paper_{number}": {"prompt": number, "orders": 3, "answer_by": "generation"} for number in PROMPTS
    }

    subset: reader.Subset = "test"
    """Which rows are asked: test (the 2,280 of the published figures) or all 76,048, whose number per template varies
    by a factor of about 100."""
    prompt: Literal[0, 1, 2, 3, 4, 5] = 1
    """Which published prompt asks, with its own wording of the unknown option; 0 is our baseline prompt in Korean, with
    the data set's wording. Prompts 3 and 4 ask for a lower-case letter, so their replies are written unless `answer_by`
    is set."""
    orders: Literal[1, 3] = 1
    """Number of orders in which each row is asked. 3: the cyclic ones of the published protocol. 1: one drawn by
    `seed`."""
    partial: bool = False
    """Whether to accept a number of rows other than the published one, such as part of a file; otherwise that is an
    error that names the category."""

    def bias_rows(self) -> BiasRows:
        """Read the rows from the file or the hub."""
        return reader.load(self.source, self.subset, partial=self.partial)

    def rows_of(self, raw: Mapping[str, Any]) -> BiasRow:
        """Parse one row of the files."""
        return reader.row_of(raw)

    def options_of(self, row: BiasRow) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """Return the row's options, with the unknown one in the prompt's wording."""
        options, means = BiasQA.options_of(self, row)
        if self._asks_officially(row):
            options = tuple(PROMPTS[self.prompt].unknown if n == row.unknown else o for n, o in enumerate(options))
        return options, means

    def orders_of(self, row: BiasRow, options: int) -> Sequence[tuple[int, ...]]:
        """Return the cyclic orders, or the seeded one."""
        return CYCLIC if self.orders == len(CYCLIC) else BiasQA.orders_of(self, row, options)

    def template_of(self, row: BiasRow) -> str:
        """Return the published prompt, or ours."""
        return f"kobbq_{self.prompt}" if self._asks_officially(row) else BiasQA.template_of(self, row)

    def reading_of(self, row: BiasRow) -> tuple[AnswerBy | None, Sampling | None]:
        """Read answers by `answer_by`; otherwise replies are written if the prompt asks for a lower-case letter."""
        small = self.answer_by is None and self._asks_officially(row) and self.prompt in SMALL_LETTERS
        answer_by: AnswerBy | None = "generation" if small else self.answer_by
        return answer_by, WRITTEN if answer_by == "generation" else None

    def _asks_officially(self, row: BiasRow) -> bool:
        """Whether a published prompt asks; the demo's rows, in English, are always asked with ours."""
        return self.prompt in PROMPTS and row.language == "ko"
