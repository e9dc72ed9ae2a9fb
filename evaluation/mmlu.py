"""`mmlu`: knowledge in 57 subjects (Hendrycks et al. 2021, arXiv 2009.03300; hendrycks/test, evaluate.py).

Five solved questions of the subject's dev split go before the tested one; the answer is the most probable of the four
letters after "Answer:". Accuracy overall is micro-averaged, as in the official code. All numbers are fractions.
lm-evaluation-harness reads a letter in other tokens than we do where a tokenizer attaches blanks to their left; its
numbers come from `reading="score", tokens="harness"`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import inf
from typing import Any, ClassVar, Literal

import numpy as np
from scipy.special import softmax

from evenhand.data.mmlu import CATEGORY, LETTERS, Row, Split, load
from evenhand.errors import DataError, SettingsError, suggest
from evenhand.evaluation.metrics.multiple_choice import (
    ACCURACY,
    CUT,
    LETTER_MASS,
    POSITIONS,
    exam_marks,
    exam_metrics,
    exam_tally,
)
from evenhand.evaluation.metrics.sentence_scores import why_unscored
from evenhand.interfaces import (
    Ability,
    AnswerBy,
    Array,
    Benchmark,
    Choice,
    Mark,
    Measured,
    Metric,
    Model,
    Passage,
    Question,
    Score,
    Shot,
    Tally,
    Usage,
    settings,
)
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


def header(subject: str, shots: Sequence[Row], official_spaces: bool = False) -> str:
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
class MMLU(Benchmark[MMLUItem, Choice]):
    """Multiple-choice questions of 57 subjects: what a method costs in knowledge."""

    name: ClassVar[str] = "mmlu"
    needs: ClassVar[frozenset[Ability]] = frozenset({"choose"})
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {"shots": 5, "reading": "score"},
        "released": {"shots": 5, "reading": "score", "official_spaces": True},
    }
    metrics: ClassVar[tuple[Metric, ...]] = (
        ACCURACY,
        Metric(
            "unparsed", "lower", "validity", "share of rows without a decision: unparsed or unanswered", True,
            form="proportion", range=(0, 1),
        ),
        Metric(
            "unanswered", "lower", "validity", "share of rows that got no reply at all (part of unparsed)",
            form="proportion", range=(0, 1),
        ),
        CUT,
        LETTER_MASS,
        *POSITIONS.info,
    )  # fmt: skip

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

    @cached_property
    def _loaded(self) -> tuple[list[MMLUItem], dict[str, Any]]:
        loaded = load(self.source, self.split)
        present = list(dict.fromkeys(r.subject for r in loaded.rows))
        for subject in self.subjects:
            if subject not in present:
                raise SettingsError(f"mmlu: no subject {subject!r} in the data. {suggest(subject, present)}")
        wanted = [s for s in present if not self.subjects or s in self.subjects]
        shots = {s: self._shots(s, loaded.dev.get(s, [])) for s in wanted}
        first: dict[tuple[str, str], str] = {}
        items = []
        for row in loaded.rows:
            if row.subject in shots:
                name = f"{row.subject}/{row.number}"
                cluster = first.setdefault((row.subject, row.question), name)
                title = _title(row.subject, self.official_spaces)
                question = replace(_question(row, self.answer_by), header=title, shots=shots[row.subject])
                items.append(MMLUItem(name, cluster, row.subject, CATEGORY.get(row.subject, ""), row.right, question))
        return items, loaded.facts

    def _shots(self, subject: str, dev: list[Row]) -> tuple[Shot, ...]:
        if len(dev) < self.shots:
            raise DataError(
                f"mmlu: {subject} has {len(dev)} usable dev rows, shots={self.shots} needs more; lower shots or "
                f"complete dev/{subject}_dev.csv"
            )
        return tuple(_shot(row, self.answer_by) for row in dev[: self.shots])

    def load(self) -> list[MMLUItem]:
        """All rows, by subject and in file order."""
        return self._loaded[0]

    def stratum(self, item: MMLUItem) -> str:
        """The subject."""
        return item.subject

    def facts(self) -> dict[str, Any]:
        """Source, hash against the official rows, and what was dropped."""
        return {**Benchmark.facts(self), **self._loaded[1]}

    def ask(self, model: Model, items: Sequence[MMLUItem]) -> list[Choice]:
        """One question per item; or its four letters as continuations of the bare text."""
        if self.reading == "choose":
            return model.choose([item.question for item in items])
        passages = []
        for item in items:
            text = as_dialogue(item.question, "letters").messages[-1].content
            passages += [Passage(f" {letter}", text, f"mmlu {item.id}") for letter in LETTERS]
        scores = _as_the_harness(model, passages) if self.tokens == "harness" else model.score(passages)
        return [_from_scores(scores[start : start + 4]) for start in range(0, len(scores), 4)]

    def tally(self, items: Sequence[MMLUItem], answers: Sequence[Choice]) -> Tally:
        """Sums per question text, resampled within the subject; groups are overall, the categories and the subjects."""
        subjects = list(dict.fromkeys(i.subject for i in items))
        categories = [c for c in dict.fromkeys(CATEGORY.values()) if any(i.category == c for i in items)]
        groups = ("overall", *categories, *subjects)
        return exam_tally(items, answers, groups, _groups, lambda item: item.subject)

    def marks(self, items: Sequence[MMLUItem], answers: Sequence[Choice]) -> list[Mark]:
        """Against the right option, by category and subject."""
        return exam_marks(items, answers, _groups)

    def gold(self, items: Sequence[MMLUItem]) -> list[int | None]:
        """The right options."""
        return [item.right for item in items]

    def compute(self, sums: Array) -> dict[str, Measured]:
        """Accuracy over all rows, what was not decided, and how evenly the letters are treated."""
        return exam_metrics(sums, "unparsed")


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


def _groups(item: MMLUItem) -> list[str]:
    return [group for group in ("overall", item.category, item.subject) if group]


def _question(row: Row, answer_by: AnswerBy | None = None) -> Question:
    name = f"mmlu {row.subject}/{row.number}"
    return Question(name, row.question, row.choices, template="exam", answer_by=answer_by)


def _shot(row: Row, answer_by: AnswerBy | None = None) -> Shot:
    question = replace(_question(row, answer_by), id=f"mmlu {row.subject}/dev {row.number}")
    return Shot(f"{exam_template(question)} {LETTERS[row.right]}\n\n", question, row.right)


def _from_scores(scores: Sequence[Score]) -> Choice:
    """The most probable letter; ties go to the first, as `argmax` does. None where one has no score, or all are 0."""
    values = np.array([s.logprob for s in scores])
    unscored = why_unscored(scores)
    if unscored or values.max() == -inf:
        return Choice(None, status="unanswered", note=unscored or "the model gives every letter probability 0")
    mass = float(np.exp(values).sum())
    return Choice(int(values.argmax()), tuple(float(p) for p in softmax(values)), mass=mass, usage=Usage(calls=1))
