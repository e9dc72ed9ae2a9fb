"""The base of benchmarks that ask BBQ's relatives in other languages: `BiasQA`, from `evenhand.data.bias_rows`.

Every benchmark of this kind puts its questions by the baseline prompt in the language of the row, with the options in
an order that a seeded hash of the row's id draws, and reports two kinds of scores of the same answers: BBQ's (Parrish
et al. 2022, arXiv 2110.08193) and the data set's own.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from evenhand.core.draws import seeded_hash
from evenhand.data.bias_rows import BiasRow, BiasRows, demo_rows
from evenhand.data.io import rows as cells
from evenhand.data.parts import Part
from evenhand.errors import DataError
from evenhand.evaluation.base import OVERALL, QuestionBenchmark, Row
from evenhand.evaluation.loading import Loaded, in_part, known_names
from evenhand.evaluation.metrics.difference_scores import DIFFERENCE_COUNTS, difference_formula, difference_row
from evenhand.evaluation.metrics.formulas import Formula
from evenhand.evaluation.metrics.label_bias import LabelColumns
from evenhand.evaluation.metrics.multiple_choice import CUT, LETTER_MASS, common_row, undecided_shares
from evenhand.evaluation.metrics.stereotype_choices import CONTEXTS, KINDS, context_values, metrics_of
from evenhand.evaluation.metrics.sums import Sums
from evenhand.interfaces import AnswerBy, Choice, Grade, Measured, Question, Sampling, settings
from evenhand.prompting.rendering import letters_in

POSITIONS = LabelColumns(3, "position")
COUNTS = (
    "rows",  # all
    "parsed",  # those with a decision
    "unanswered",  # no reply came (endpoint, context too long)
    "cut",  # the written reply ended at the token limit
    "scored",  # parsed, and the row has a bias-consistent option
    "correct",  # of the scored
    "unknown",  # of the scored: the unknown option was chosen
    "abstainable",  # of the scored: rows with an unknown option
    "biased",  # of the scored: the bias-consistent option was chosen
    "open",  # rows with a bias-consistent option but without a decision: they decide the best and worst case
    "mass",  # sum of the probability of any option letter
    "mass_rows",
)
STATISTICS = (*COUNTS, *DIFFERENCE_COUNTS, *POSITIONS.names)
"""The statistics of a benchmark whose own score is a difference; others put theirs in the place of these."""


@dataclass(frozen=True, slots=True)
class BiasItem:
    """One row as it is asked."""

    id: str
    cluster: str
    row: BiasRow
    means: tuple[int, ...]
    """Per option of the question the option of the row that it stands for; several may be wordings of one."""
    question: Question

    @property
    def right(self) -> int:
        """The right option of the question; of several wordings the first."""
        return self.means.index(self.row.gold)

    @property
    def target(self) -> int | None:
        """The bias-consistent option of the question; None where none or several are."""
        return None if self.row.target is None else self.means.index(self.row.target)

    @property
    def unknown(self) -> int | None:
        """The option that says that it cannot be known, of several wordings the first; None where there is none."""
        return None if self.row.unknown is None else self.means.index(self.row.unknown)

    @property
    def parallel(self) -> str:
        """The same for the item in every language of the data set; "" where there is no translation."""
        return self.row.parallel and self.row.parallel + self.id.removeprefix(self.row.id)

    def chosen(self, answer: Choice) -> int | None:
        """The row's option that an answer decides for; None where there is no decision."""
        return None if answer.decision is None else self.means[answer.decision]


def bbq_formulas() -> tuple[Formula, ...]:
    """BBQ's metrics of both kinds of context; abstention is absent where no row has an unknown option."""
    return tuple(_of_context(context) for context in CONTEXTS)


def _of_context(context: str) -> Formula:
    def compute(sums: Sums) -> dict[str, Measured]:
        s = sums.part(context)
        found = context_values(s, context)
        abstained, able = found["abstention"], s["abstainable"]
        found["abstention"] = Measured(np.where(able > 0, abstained.value, np.nan), able)
        return {f"{m.name}_{context}": found[m.name] for m in KINDS}

    return Formula(metrics_of(context), compute)


def validity_formulas(positions: bool = True) -> tuple[Formula, ...]:
    """How answers came about: what was not decided, cut replies, positions and the probability of letters.

    Args:
        positions: Whether every question has three options, whose positions are counted.
    """
    return (
        *undecided_shares("unparsed", "share of rows without a decision, both contexts"),
        CUT,
        *((POSITIONS.formula,) if positions else ()),
        LETTER_MASS,
    )


def shown_order(row_id: str, options: int, seed: int) -> tuple[int, ...]:
    """The order in which a row's options are shown: by a hash of seed, id and option."""
    return tuple(sorted(range(options), key=lambda option: seeded_hash(seed, row_id, option)))


@settings
class BiasQA(QuestionBenchmark[BiasItem]):
    """Questions about people in ambiguous and disambiguated contexts; subclasses say where the rows come from.

    A subclass gives `name`, `bias_rows` and `rows_of`. It may give `official` (its own statistics of one answer) with
    `statistics` and `formulas`, and `options_of`, `orders_of` or `template_of`.
    """

    statistics = STATISTICS
    parts: ClassVar[tuple[str, ...]] = CONTEXTS
    formulas = (*bbq_formulas(), difference_formula(), *validity_formulas())

    source: str = "auto"
    """Where the rows come from: auto (the folder of the data set in $EVENHAND_DATA, else the hub where it is there),
    hub, hub:NAME, demo, a folder or a file."""
    axes: tuple[str, ...] = ()
    """Axes (the data set's categories) whose questions are asked; empty takes all."""
    part: Part = "all"
    """Which half of each category's templates: fit and test are disjoint, all is both."""
    seed: int = 0
    """Seed of the order of each question's options, which a hash of the item's id draws."""
    answer_by: AnswerBy | None = None
    """How answers are read: letters, text, text_per_token, generation; None leaves it to the model."""

    # ------------------------------------------------------------------------------------------ what a subclass gives

    @abstractmethod
    def bias_rows(self) -> BiasRows:
        """The rows of `source`, which is not "demo".

        Raises:
            DataError: There is no data, or not one usable row.
        """

    @abstractmethod
    def rows_of(self, raw: Mapping[str, Any]) -> BiasRow:
        """One row as it stands in the data set's file. Pure.

        Raises:
            ValueError: It cannot be used; the message names the field.
        """

    def official(self, item: BiasItem, chosen: int | None) -> Row:
        """What the data set's own score counts of an answer; that of the difference scores unless overridden. Pure.

        Args:
            item: What was asked.
            chosen: The row's option that was decided for; None where there is no decision.
        """
        return difference_row(item.row, chosen)

    def options_of(self, row: BiasRow) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """The options as they are asked, and the row's option that each stands for; the row's own by default. Pure."""
        return row.options, tuple(range(len(row.options)))

    def orders_of(self, row: BiasRow, options: int) -> Sequence[tuple[int, ...]]:
        """The orders in which a row's options are shown, an item each; one, by the seed, unless overridden. Pure."""
        return (shown_order(row.id, options, self.seed),)

    def template_of(self, row: BiasRow) -> str:
        """The template of the prompt; the baseline's in the row's language unless overridden. Pure."""
        return letters_in(row.language)

    def reading_of(self, row: BiasRow) -> tuple[AnswerBy | None, Sampling | None]:
        """How the answer is read, and how it is drawn where it is written; `answer_by` unless overridden. Pure."""
        return self.answer_by, None

    # --------------------------------------------------------------------------------------------- what the base does

    def read(self) -> Loaded[BiasItem]:
        """All rows in file order, each in one order or several."""
        rows, facts = demo_rows() if self.source == "demo" else self.bias_rows()
        present = {row.category for row in rows}
        wished = [cells.known(axis, sorted(present)) for axis in self.axes]
        known_names(self.name, "category", wished, present, facts["source"])
        items = [item for row in rows if not wished or row.category in wished for item in self.items_of(row)]
        lost = sum(row.target is None for row in rows)
        said = f"{lost:,} of {len(rows):,} rows are in no score of bias or accuracy: not one option is the stereotype"
        notes = [*facts.get("notes", []), *([said] if lost else [])]
        return Loaded(in_part(self.part, items, lambda item: item.row.category), {**facts, "notes": notes})

    def items_of(self, row: BiasRow) -> list[BiasItem]:
        """The items of a row: one per order of its options."""
        options, means = self.options_of(row)
        orders = self.orders_of(row, len(options))
        answer_by, sampling = self.reading_of(row)
        found = []
        for n, shown in enumerate(orders):
            name = row.id if len(orders) == 1 else f"{row.id}/order{n + 1}"
            question = Question(
                id=f"{self.name} {name}",
                question=row.question,
                options=options,
                context=row.context,
                shown=shown,
                template=self.template_of(row),
                answer_by=answer_by,
                sampling=sampling,
                axis=row.category,
            )
            found.append(BiasItem(name, row.cluster, row, means, question))
        return found

    def items_of_rows(self, rows: Sequence[Mapping[str, Any]]) -> list[BiasItem]:
        """The items of rows as they stand in the data set's file.

        Raises:
            DataError: A row cannot be used; its number, from 0, and the field are named.
        """
        found = []
        for number, raw in enumerate(rows):
            try:
                found += self.items_of(self.rows_of(raw))
            except ValueError as error:
                raise DataError(f"{self.name} row {number}: {error}") from error
        return found

    def stratum(self, item: BiasItem) -> str:
        """Category and kind of context, so that both contexts of a category get their share."""
        return f"{item.row.category}/{item.row.context_kind}"

    def strata(self, items: Sequence[BiasItem]) -> dict[str, str]:
        """The category."""
        return {item.cluster: item.row.category for item in items}

    def part_of(self, item: BiasItem) -> str:
        """The kind of context."""
        return item.row.context_kind

    def groups_of(self, item: BiasItem) -> tuple[str, ...]:
        """The category."""
        return (item.row.category,)

    def row(self, item: BiasItem, answer: Choice) -> Row:
        """What BBQ's script counts, what the data set's own score counts, and the columns of the positions."""
        row, chosen = item.row, item.chosen(answer)
        found = {**common_row(answer), **self.official(item, chosen)}
        if len(item.question.options) == POSITIONS.classes:
            found |= POSITIONS.named_row(item.question, item.right, answer)
        if chosen is None:
            found["open"] = row.target is not None
            return found
        found["parsed"] = 1.0
        if row.target is not None:
            found["scored"], found["abstainable"] = 1.0, row.unknown is not None
            found["correct"], found["biased"] = chosen == row.gold, chosen == row.target
            found["unknown"] = row.unknown is not None and chosen == row.unknown
        return found

    def grades(self, items: Sequence[BiasItem], answers: Sequence[Choice]) -> list[Grade]:
        """Against the right option, each part of the items apart."""
        return [
            Grade(
                item.chosen(answer),
                item.chosen(answer) == item.row.gold,
                tuple(dict.fromkeys((OVERALL, *self._groups_of(item)))),
                self.part_of(item),
                counted=answer.decision is not None and item.row.target is not None,
            )
            for item, answer in zip(items, answers, strict=True)
        ]

    def gold(self, items: Sequence[BiasItem]) -> list[int | None]:
        """The right options; in ambiguous contexts the unknown one."""
        return [item.right for item in items]
