"""`mmlu`: knowledge in 57 subjects (Hendrycks et al. 2021, arXiv 2009.03300; hendrycks/test, evaluate.py).

Five solved questions of the subject's dev split precede the tested one; the answer is the most probable of the four
letters after "Answer:". Accuracy overall is micro-averaged, as in the official code. All numbers are fractions.
lm-evaluation-harness reads a letter after other tokens than we do if a tokenizer attaches blanks to their left; its
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
    """The first question of the subject with the same text, as such questions are not independent."""
    subject: str
    category: str
    """One of the four official categories, or ""."""
    right: int
    question: Question = field(repr=False)


def header(subject: str, shots: Sequence[LoadedRow], official_spaces: bool = False) -> str:
    """Return what precedes the tested question: the header line and the solved questions.

    Args:
        subject: Name of the subject with underscores, as in file names.
        shots: Solved questions, in order.
        official_spaces: Whether to put two spaces after "about", as the official code does.
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
    """Split whose rows are tested."""
    shots: int = 5
    """Number of solved questions from the subject's dev split before each question, in file order; at most as many as
    there are."""
    subjects: tuple[str, ...] = ()
    """Subjects that are tested; empty takes all."""
    reading: Reading = "choose"
    """How answers are read. choose: as multiple-choice questions, so that every method acts on them; a model with a
    chat template gets the text as a user turn, any other as it is. score: by the log-probabilities of " A" to " D"
    after the bare text, as in the official code; methods that only change how a model chooses have no effect."""
    tokens: Literal["text", "harness"] = "text"
    """With reading=score, the tokens after which a letter is read. text: those of the whole text. harness: those of the
    text up to "Answer:" encoded by itself, as in lm-evaluation-harness. They differ only if the tokenizer attaches a
    blank to its left, so that the model reads "Answer: " in one case and "Answer:" in the other. harness needs a model
    whose tokens are known, so not an endpoint."""
    official_spaces: bool = False
    """Whether to put two spaces after "about" in the header, as the official code does."""
    answer_by: AnswerBy | None = None
    """With reading=choose, how answers are read: letters, text, text_per_token, text_with_end or generation; None
    leaves it to the model."""

    def __post_init__(self) -> None:
        """Refuse settings that make no sense, and declare what is needed of a model.

        Raises:
            SettingsError: `shots` is negative, `answer_by` is set where nothing is chosen, or `tokens` where nothing is
                scored.
        """
        if self.shots < 0:
            raise SettingsError(f"mmlu: shots={self.shots} must be 0 or more; the paper uses 5")
        if self.reading == "score":
            if self.answer_by is not None:
                raise SettingsError(f"mmlu: answer_by={self.answer_by} needs reading=choose; else leave it out")
            object.__setattr__(self, "needs", frozenset({"score"}))
        elif self.tokens == "harness":
            raise SettingsError("mmlu: tokens=harness needs reading=score, as the harness compares scores")

    def read(self) -> Loaded[MMLUItem]:
        """Read all rows by subject and in file order; the facts contain the hash compared with the official rows."""
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
        """Make an item of every row of the hub's copy, which also has the column subject; without demonstrations.

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
        """Return the subject."""
        return item.subject

    def ask(self, model: Model, items: Sequence[MMLUItem]) -> list[Choice]:
        """Ask one question per item, or score its four letters as continuations of the bare text."""
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
        """Return whether the answer is right and decided, and the columns of the letters."""
        return exam_row(item, answer)

    def groups_of(self, item: MMLUItem) -> tuple[str, str]:
        """Return the category and the subject."""
        return item.category, item.subject

    def groups(self, items: Sequence[MMLUItem]) -> list[str]:
        """Return the categories, then the subjects in order of appearance."""
        found = {item.category for item in items}
        return list(dict.fromkeys([*(c for c in CATEGORY.values() if c in found), *(i.subject for i in items)]))


def _as_the_harness(model: Model, passages: Sequence[Passage]) -> list[Score]:
    """Score continuations whose prompts are encoded by themselves.

    Raises:
        SettingsError: The model's tokens are not known.
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
    """Choose the most probable letter, the first of ties as in `argmax`; None if one has no score, or all are 0."""
    values = np.array([s.logprob for s in scores])
    unscored = why_unscored(scores)
    if unscored or values.max() == -inf:
        return Choice(None, status="unanswered", note=unscored or "the model gives every letter probability 0")
    mass = float(np.exp(values).sum())
    return Choice(int(values.argmax()), tuple(float(p) for p in softmax(values)), mass=mass, usage=Usage(calls=1))
