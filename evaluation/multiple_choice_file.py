"""`multiple_choice_file`: accuracy on the multiple-choice questions of any file, such as RACE, CosmosQA or ReClor.

The sets of Liusie et al. 2024 (arXiv 2403.13590): RACE++ is a folder with the files of RACE-M, RACE-H and RACE-C, whose
questions are weighted equally; SummEval's pairs are two summaries of which raters found one more coherent
(`preset=summeval`), without ties. `option_order(of='multiple_choice_file(...)')` asks them in several orders, and
`--train` takes them with their right options. The prompts of the paper are not published; ours are the baseline ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar, Literal

from evenhand.data.multiple_choice_file import Aspect, Layout, load
from evenhand.data.multiple_choice_file import Row as LoadedRow
from evenhand.data.multiple_choice_gold import GoldAs
from evenhand.errors import SettingsError
from evenhand.evaluation.base import QuestionBenchmark, Row
from evenhand.evaluation.loading import Loaded, first_names
from evenhand.evaluation.metrics.formulas import Formula
from evenhand.evaluation.metrics.label_bias import LabelColumns
from evenhand.evaluation.metrics.multiple_choice import COUNTS, common_row, exam_formulas
from evenhand.interfaces import AnswerBy, Choice, Question, settings

MOST_OPTIONS = 26


@dataclass(frozen=True, slots=True)
class FileItem:
    """One question."""

    id: str
    cluster: str
    """The first question with the same context, as such questions are not independent."""
    group: str
    right: int
    question: Question = field(repr=False)


@cache
def _formulas(options: int) -> tuple[Formula, ...]:
    """Make the metrics, with those by position for questions with that many options."""
    return exam_formulas(
        "unparsed",
        "share of rows without a decision: unparsed or unanswered",
        chance="one in the number of options",
        positions=LabelColumns(options),
    )


@settings
class MultipleChoiceFile(QuestionBenchmark[FileItem]):
    """Multiple-choice questions of a file of your own: accuracy, and how evenly the letters are treated."""

    name: ClassVar[str] = "multiple_choice_file"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "summeval": {"layout": "summeval", "aspect": "coherence", "options": 2},
    }
    statistics = (*COUNTS, *LabelColumns(4).names)
    formulas = _formulas(4)

    source: str = "auto"
    """Where the questions come from: auto ($EVENHAND_DATA/multiple_choice_file), demo, a .jsonl, .json, .csv, .tsv or
    .parquet file, a folder of them, or "datasets:NAME[@CONFIGURATION][:SPLIT]" for the hub."""
    layout: Layout = "auto"
    """What a row contains: a question (questions), or a text with summaries and scores (summeval); auto decides by the
    columns."""
    aspect: Aspect = "coherence"
    """Scores that decide between two summaries, with SummEval's layout; coherence in the paper."""
    split: str = ""
    """For a folder, the first word of the names of files that are read, such as test, or the name of a folder in it;
    empty reads all."""
    gold_as: GoldAs = "auto"
    """How the file gives the right option: index (from 0), letter or text. auto accepts every form, and refuses a row
    that could mean two options unless only one form fits all rows of its file."""
    options: int = 4
    """Number of options of the questions in the metrics by position; questions with another number only count for
    accuracy."""
    template: Literal["letters", "exam"] = "letters"
    """Form of the prompt. letters: the baseline prompt with options "(A)". exam: MMLU's form with options "A." and
    "Answer:"."""
    answer_by: AnswerBy | None = None
    """How answers are read: letters, text, text_per_token, text_with_end or generation; None leaves it to the model."""

    def __post_init__(self) -> None:
        """Adapt the metrics by position to the number of options.

        Raises:
            SettingsError: The number of options is not supported.
        """
        if not 2 <= self.options <= MOST_OPTIONS:
            raise SettingsError(f"multiple_choice_file: options={self.options} must be 2 to {MOST_OPTIONS}")
        if self.options != 4:
            self._compute_by(_formulas(self.options))
            object.__setattr__(self, "statistics", (*COUNTS, *LabelColumns(self.options).names))

    def read(self) -> Loaded[FileItem]:
        """Read all questions in file order; a note says how many the metrics by position leave out."""
        loaded = load(self.source, layout=self.layout, aspect=self.aspect, split=self.split, gold_as=self.gold_as)
        clusters = first_names((row.context or row.id, row.id) for row in loaded.rows)
        items = [self._item(row, cluster) for row, cluster in zip(loaded.rows, clusters, strict=True)]
        other = sum(len(row.options) != self.options for row in loaded.rows)
        said = (
            f"{other:,} of {len(items):,} questions do not have {self.options} options (the setting options), and are "
            "left out of the metrics by position"
        )
        notes = [said] if other else []
        return Loaded(items, {**loaded.facts, "notes": [*loaded.facts["notes"], *notes]})

    def _item(self, row: LoadedRow, cluster: str) -> FileItem:
        question = Question(
            f"{self.name} {row.id}",
            row.question,
            row.options,
            context=row.context,
            template=self.template,
            answer_by=self.answer_by,
        )
        return FileItem(row.id, cluster, row.group, row.right, question)

    def stratum(self, item: FileItem) -> str:
        """Return the part of the set."""
        return item.group

    def strata(self, items: Sequence[FileItem]) -> dict[str, str]:
        """Return the part of the set that contains the first question of a context."""
        found: dict[str, str] = {}
        for item in items:
            found.setdefault(item.cluster, item.group or "questions")
        return found

    def row(self, item: FileItem, answer: Choice) -> Row:
        """Return whether the answer is right and decided, and the columns of the positions."""
        found = common_row(answer)
        found["right"], found["parsed"] = answer.decision == item.right, answer.decision is not None
        if len(item.question.options) == self.options:
            found |= LabelColumns(self.options).named_row(item.question, item.right, answer)
        return found

    def groups_of(self, item: FileItem) -> tuple[str]:
        """Return the part of the set."""
        return (item.group,)
