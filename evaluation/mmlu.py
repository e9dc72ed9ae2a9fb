"""`mmlu`: knowledge in 57 subjects (Hendrycks et al. 2021, arXiv 2009.03300; hendrycks/test, evaluate.py).

Five solved questions of the subject's dev split go before the tested one; the answer is the most probable of the four
letters after "Answer:". Accuracy overall is micro-averaged, as in the official code. All numbers are fractions.
lm-evaluation-harness reads a letter in other tokens than we do where a tokenizer attaches blanks to their left; its
numbers come from `reading="score", tokens="harness"`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any, ClassVar, Literal

import numpy as np
from scipy.special import softmax

from evenhand.data.io import rows as cells
from evenhand.data.mmlu import CATEGORY, MORE_LETTERS, Split, load, row_of, stripped
from evenhand.data.mmlu import Row as LoadedRow
from evenhand.errors import DataError, SettingsError
from evenhand.evaluation.base import QuestionBenchmark, Row
from evenhand.evaluation.loading import Loaded, first_names, known_names
from evenhand.evaluation.metrics.multiple_choice import STATISTICS, exam_formulas, exam_row
from evenhand.evaluation.metrics.sentence_scores import why_unscored
from evenhand.interfaces import Ability, AnswerBy, Choice, Model, Passage, Question, Score, Shot, Usage, settings
from evenhand.prompting.rendering import as_dialogue, exam_header, exam_template

Reading = Literal["choose", "score"]


@dataclass(frozen=True, slots=True)
class MMLUItem:
    """One tested question."""

    id: str
    cluster: str
    """The first question of the subject with the same text: such questions are not independent."""
    subject: str
    category: str
    """One of the four official categories, or ""."""
    right: int
    question: Question = field(repr=False)


def header(subject: str, shots: Sequence[LoadedRow], official_spaces: bool = False) -> str:
    """What stands before the tested question: the header line and the solved questions.

    Args:
        subject: With underscores, as in file names.
        shots: Solved questions, in order.
        official_spaces: Two spaces after "about", which the official code writes (each word gets a space before it).
    """
    return _title(subject, official_spaces) + "".join(_shot(s).text for s in shots)


def _title(subject: str, official_spaces: bool) -> str:
    name = subject.replace("_", " ")
    return exam_header(f" {name}" if official_spaces else name)


@settings
class MMLU(QuestionBenchmark[MMLUItem]):
    """Multiple-choice questions of 57 subjects: what a method costs in knowledge."""

    name: ClassVar[str] = "mmlu"
    needs: ClassVar[frozenset[Ability]] = frozenset({"choose"})
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {"shots": 5, "reading": "score"},
        "released": {"shots": 5, "reading": "score", "official_spaces": True},
    }
    statistics = STATISTICS
    formulas = exam_formulas("unparsed", "share of rows without a decision: unparsed or unanswered")

    source: str = "auto"
    """Where the files are: auto ($EVENHAND_DATA/mmlu, else the hub), hub, hub:NAME, demo or a folder."""
    split: Split = "test"
    """Which rows are tested."""
    shots: int = 5
    """Solved questions of the subject's dev split before each question, in file order; 0 to as many as there are."""
    subjects: tuple[str, ...] = ()
    """Only these subjects; empty takes all."""
    reading: Reading = "choose"
    """choose asks a multiple-choice question, so that every method acts on it; a model with a chat template gets the
    text as a user turn, any other as it stands. score compares the log-probabilities of " A" to " D" after the bare
    text, as the official code does; methods that only change how a model chooses have no effect there."""
    tokens: Literal["text", "harness"] = "text"
    """With reading=score, the tokens that a letter is read behind. text: those of the whole text. harness: those of the
    text up to "Answer:" encoded by itself, as in lm-evaluation-harness. They differ only where the tokenizer attaches a
    blank to its left, so that the model reads "Answer: " in one case and "Answer:" in the other. harness needs a model
    whose tokens are known, so no endpoint."""
    official_spaces: bool = False
    """Whether two spaces stand after "about" in the header, as the official code writes them."""
    answer_by: AnswerBy | None = None
    """With reading=choose, how answers are read: letters, text, text_per_token, text_with_end, generation; None leaves
    it to the model."""

    def __post_init__(self) -> None:
        """Refuse what makes no sense, and say what is needed of a model.

        Raises:
            SettingsError: A negative number of shots, `answer_by` where nothing is chosen, or `tokens` where nothing is
                scored.
        """
        if self.shots < 0:
            raise SettingsError(f"mmlu: shots={self.shots} must be 0 or more; the paper takes 5")
        if self.reading == "score":
            if self.answer_by is not None:
                raise SettingsError(f"mmlu: answer_by={self.answer_by} needs reading=choose; with score leave it out")
            object.__setattr__(self, "needs", frozenset({"score"}))
        elif self.tokens == "harness":
            raise SettingsError("mmlu: tokens=harness needs reading=score, as the harness compares scores")

    def read(self) -> Loaded[MMLUItem]:
        """All rows, by subject and in file order; facts have the hash against the official rows."""
        loaded = load(self.source, self.split)
        present = dict.fromkeys(r.subject for r in loaded.rows)
        known_names(self.name, "subject", self.subjects, present, "the data")
        asked = [s for s in present if not self.subjects or s in self.subjects]
        shots = {s: self._shots(s, loaded.dev.get(s, []), loaded.no_dev) for s in asked}
        rows = [row for row in loaded.rows if row.subject in shots]
        clusters = first_names(((r.subject, r.question), f"{r.subject}/{r.number}") for r in rows)
        items = [self._item(row, shots[row.subject], cluster) for row, cluster in zip(rows, clusters, strict=True)]
        return Loaded(items, loaded.facts)

    def _item(self, row: LoadedRow, shots: tuple[Shot, ...], cluster: str) -> MMLUItem:
        title = _title(row.subject, self.official_spaces)
        question = replace(_question(row, self.answer_by), header=title, shots=shots)
        category = CATEGORY.get(row.subject, "")
        return MMLUItem(f"{row.subject}/{row.number}", cluster, row.subject, category, row.right, question)

    def _shots(self, subject: str, dev: list[LoadedRow], no_dev: str) -> tuple[Shot, ...]:
        if len(dev) < self.shots:
            remedy = "lower shots or " + ("test another split" if no_dev else f"complete dev/{subject}_dev.csv")
            why = f" ({no_dev})" if no_dev else ""
            raise DataError(
                f"mmlu: {subject} has {len(dev)} usable dev rows{why}, shots={self.shots} needs more; {remedy}"
            )
        return tuple(_shot(row, self.answer_by) for row in dev[: self.shots])

    def items_of_rows(self, rows: Sequence[Mapping[str, Any]]) -> list[MMLUItem]:
        """Every row of the hub's copy is an item, without demonstrations; it has the column subject, too.

        Raises:
            DataError: A row cannot be used.
        """
        numbers: Counter[str] = Counter()
        found = []
        for place, row in enumerate(rows):
            try:
                subject = cells.text(row, "subject")
                found.append(stripped(row_of(row, subject, numbers[subject])))
            except ValueError as error:
                raise DataError(f"MMLU row {place}: {error}") from error
            numbers[subject] += 1
        clusters = first_names(((r.subject, r.question), f"{r.subject}/{r.number}") for r in found)
        return [self._item(row, (), cluster) for row, cluster in zip(found, clusters, strict=True)]

    def stratum(self, item: MMLUItem) -> str:
        """The subject."""
        return item.subject

    def ask(self, model: Model, items: Sequence[MMLUItem]) -> list[Choice]:
        """One question per item; or its four letters as continuations of the bare text."""
        if self.reading == "choose":
            return model.choose([item.question for item in items])
        passages = []
        for item in items:
            text = as_dialogue(item.question, "letters").messages[-1].content
            letters = MORE_LETTERS[: len(item.question.options)]
            passages += [Passage(f" {letter}", text, f"mmlu {item.id}") for letter in letters]
        scores = iter(_as_the_harness(model, passages) if self.tokens == "harness" else model.score(passages))
        return [_from_scores([next(scores) for _ in item.question.options]) for item in items]

    def row(self, item: MMLUItem, answer: Choice) -> Row:
        """Right or not, decided or not, and the columns of the letters."""
        return exam_row(item, answer)

    def groups_of(self, item: MMLUItem) -> tuple[str, str]:
        """The category and the subject."""
        return item.category, item.subject

    def groups(self, items: Sequence[MMLUItem]) -> list[str]:
        """The categories, then the subjects as they come."""
        found = {item.category for item in items}
        return list(dict.fromkeys([*(c for c in CATEGORY.values() if c in found), *(i.subject for i in items)]))


def _as_the_harness(model: Model, passages: Sequence[Passage]) -> list[Score]:
    """Scores of continuations whose prompts are encoded by themselves.

    Raises:
        SettingsError: The model's tokens are not known here.
    """
    from evenhand.models import Mitigated
    from evenhand.models.token_model import TokenModel

    base = model
    while isinstance(base, Mitigated) and "score" not in base.acts_on:
        base = base.base
    if not isinstance(base, TokenModel):
        raise SettingsError(
            f"mmlu: tokens=harness needs the tokens of {model.name}, which are not known; use tokens=text"
        )
    return base.score_parted(passages)


def _question(row: LoadedRow, answer_by: AnswerBy | None = None) -> Question:
    name = f"mmlu {row.subject}/{row.number}"
    return Question(name, row.question, row.choices, template="exam", answer_by=answer_by)


def _shot(row: LoadedRow, answer_by: AnswerBy | None = None) -> Shot:
    question = replace(_question(row, answer_by), id=f"mmlu {row.subject}/dev {row.number}")
    return Shot(f"{exam_template(question)} {MORE_LETTERS[row.right]}\n\n", question, row.right)


def _from_scores(scores: Sequence[Score]) -> Choice:
    """The most probable letter; ties go to the first, as `argmax` does. None where one has no score, or all are 0."""
    values = np.array([s.logprob for s in scores])
    unscored = why_unscored(scores)
    if unscored or values.max() == -inf:
        return Choice(None, status="unanswered", note=unscored or "the model gives every letter probability 0")
    mass = float(np.exp(values).sum())
    return Choice(int(values.argmax()), tuple(float(p) for p in softmax(values)), mass=mass, usage=Usage(calls=1))
