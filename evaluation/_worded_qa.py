"""`WordedQA`: questions whose unknown option has no usable text in the files, and gets a wording in the language.

Two conventions: ours asks three options, of which the unknown one has a wording drawn for each row; `lm-eval-like`
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
    """Questions with two persons and an unknown option, which is the last of the row's."""

    wordings: ClassVar[tuple[str, ...]]
    """Wordings of the unknown option in the language; in every language in the same order."""

    convention: Convention = "paper"
    """How questions are asked. paper: three options in a drawn order, the unknown one in a drawn wording. lm-eval-like:
    both persons and all wordings, in the order of lm-evaluation-harness, scored as texts unless `answer_by` says
    otherwise."""
    partial: bool = False
    """Whether another number of rows than the published one is accepted, such as a part of a file; else it is an
    error that names the category."""

    def __post_init__(self) -> None:
        """With eleven options there are no three positions to count."""
        if self.convention == "lm-eval-like":
            self._compute_by((*bbq_formulas(), difference_formula(), *validity_formulas(positions=False)))

    def options_of(self, row: BiasRow) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """Both persons, and one wording or all."""
        if row.unknown is None or row.language == "en":  # the demo's rows have wordings of their own
            return BiasQA.options_of(self, row)
        persons, unknown = row.options[: row.unknown], row.unknown
        if self.convention == "lm-eval-like":
            return (*persons, *self.wordings), (*range(len(persons)), *(unknown for _ in self.wordings))
        # by number, so that parallel rows have wordings that are each other's translation
        drawn = int(seeded_order(map(str, range(len(self.wordings))), self.seed, f"unknown {row.id}")[0])
        return (*persons, self.wordings[drawn]), (*range(len(persons)), unknown)

    def orders_of(self, row: BiasRow, options: int) -> tuple[tuple[int, ...], ...]:
        """By the seed; that of the harness in its convention."""
        if self.convention == "lm-eval-like":
            return (tuple(range(options)),)
        return tuple(BiasQA.orders_of(self, row, options))

    def reading_of(self, row: BiasRow) -> tuple[AnswerBy | None, Sampling | None]:
        """As `answer_by` says; the harness scores texts."""
        by_text = self.answer_by is None and self.convention == "lm-eval-like"
        return ("text" if by_text else self.answer_by), None
