"""`WordedQA`: questions whose unknown option has no usable text in the files and is worded in their language.

There are two conventions. Ours asks three options, and draws a wording of the unknown one for each row. `lm-eval-like`
offers both persons and every wording, as lm-evaluation-harness does, so that the best of nine counts. Nine chances
against two favour the unknown option: such numbers are comparable with published ones of the harness, not with ours.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from evenhand.core.draws import seeded_order
from evenhand.data.bias_rows import BiasRow
from evenhand.evaluation._bias_qa import BiasQA, bbq_formulas, validity_formulas
from evenhand.evaluation.metrics.difference_scores import difference_formula
from evenhand.interfaces import AnswerBy, Sampling, settings

Convention = Literal["paper", "lm-eval-like"]


@settings
class WordedQA(BiasQA):
    """Base of questions with two persons and an unknown option, which comes last in the row."""

    wordings: ClassVar[tuple[str, ...]]
    """Wordings of the unknown option in the language of the data set, in the same order in every language."""

    convention: Convention = "paper"
    """How questions are asked. paper: three options in a drawn order, the unknown one in a drawn wording. lm-eval-like:
    both persons and all wordings, in the order of lm-evaluation-harness, scored as texts unless `answer_by` is set."""
    partial: bool = False
    """Whether to accept a number of rows other than the published one, such as part of a file; otherwise that is an
    error that names the category."""

    def __post_init__(self) -> None:
        """Leave out the position metrics with eleven options, as there are no three positions to count."""
        if self.convention == "lm-eval-like":
            self._compute_by((*bbq_formulas(), difference_formula(), *validity_formulas(positions=False)))

    def options_of(self, row: BiasRow) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """Return both persons with one wording of the unknown option, or with all wordings."""
        if row.unknown is None or row.language == "en":  # the demo's rows have wordings of their own
            return BiasQA.options_of(self, row)
        persons, unknown = row.options[: row.unknown], row.unknown
        if self.convention == "lm-eval-like":
            return (*persons, *self.wordings), (*range(len(persons)), *(unknown for _ in self.wordings))
        # by number, so that parallel rows have wordings that are each other's translation
        drawn = int(seeded_order(map(str, range(len(self.wordings))), self.seed, f"unknown {row.id}")[0])
        return (*persons, self.wordings[drawn]), (*range(len(persons)), unknown)

    def orders_of(self, row: BiasRow, options: int) -> tuple[tuple[int, ...], ...]:
        """Return the seeded order, or the order of lm-evaluation-harness in its convention."""
        if self.convention == "lm-eval-like":
            return (tuple(range(options)),)
        return tuple(BiasQA.orders_of(self, row, options))

    def reading_of(self, row: BiasRow) -> tuple[AnswerBy | None, Sampling | None]:
        """Read answers by `answer_by`; without it, lm-evaluation-harness's convention scores texts."""
        by_text = self.answer_by is None and self.convention == "lm-eval-like"
        return ("text" if by_text else self.answer_by), None
