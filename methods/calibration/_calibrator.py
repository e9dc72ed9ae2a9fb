"""The base of calibrating methods, which estimate a model's prior and divide its answers by it.

A prior is about the positions of K options if these are shown with letters, and about a set of labels if their
texts are scored. Labels are identified by their texts and never by their positions: a prior for each shown order would
make answers depend on the order again.
"""

from __future__ import annotations

import math
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from evenhand.core.hashing import digest
from evenhand.core.training_record import record_of
from evenhand.errors import EvenhandError
from evenhand.interfaces import (
    Ability,
    AnswerBy,
    Array,
    Choice,
    Method,
    Model,
    Question,
    TrainData,
    TrainedOn,
    TrainingRecord,
    first_names,
    in_first_names,
)
from evenhand.methods.calibration._prior_fitting import calibrated, decide
from evenhand.methods.calibration.content_free import Filling, filled, frame
from evenhand.models import Mitigated, saved
from evenhand.prompting.rendering import BY_TEXT
from evenhand.renaming import old_fields

NO_PROBABILITIES = "not calibrated: there are no probabilities"
NO_POSITIONS = "not calibrated: its options are scored by their texts, not by letters at positions"
READY = "not calibrated: its prompt is a ready conversation, in which nothing can take the question's place"
NO_ANSWERS = "not calibrated: the model gave no probabilities where its prior was asked for"


def too_few(found: int, least: int) -> str:
    """Return the note for questions whose prior would be estimated from too few answers."""
    return f"not calibrated: {found} answers share this prior, {least} are needed"


@dataclass(frozen=True)
class About:
    """Subject of a prior."""

    answer_by: AnswerBy
    options: int
    labels: tuple[str, ...] | None
    """The labels in alphabetical order, which is the order of the classes; None if classes are positions."""
    frame: Question | None = field(default=None, repr=False)
    """The prompt without its content; None if one prior serves all prompts."""

    @cached_property
    def key(self) -> str:
        """Key that identifies the subject in every run."""
        return digest(
            self.answer_by, self.options, self.labels, self.frame and asdict(self.frame, dict_factory=first_names)
        )

    @property
    def text(self) -> str:
        """Description in words."""
        what = f"{self.options} positions" if self.labels is None else f"labels {', '.join(self.labels)}"
        return what if self.frame is None else f"{what} behind {self.frame.preamble[-60:]!r}"

    def identities(self, question: Question) -> tuple[int, ...]:
        """Return the option of each class: by position, or by label."""
        if self.labels is None:
            return question.order
        return tuple(sorted(range(self.options), key=question.options.__getitem__))

    def by_class(self, question: Question, choice: Choice) -> Array | None:
        """Return [K] probabilities of the classes; None without probabilities."""
        if choice.probabilities is None:
            return None
        return np.array([choice.probabilities[o] for o in self.identities(question)])


@dataclass(frozen=True)
class Group:
    """Questions that share a prior."""

    about: About
    rows: Sequence[int]
    """Their indices in the list that was asked."""
    questions: Sequence[Question]
    domain: Sequence[Question]
    """All asked questions with the same header, demonstrations and form, whatever their options."""


@old_fields(settled="direct_answers")
class Estimate(NamedTuple):
    """Result of the estimation for a group."""

    prior: Array | None = None
    """[K] by class; None leaves the answers unchanged."""
    note: str = ""
    """Why there is no prior, or why it is doubtful; added to the group's answers."""
    direct_answers: Mapping[int, Array] = {}
    """[K] by identity, per index in the group: answers that the estimation itself produced."""


class Plan(NamedTuple):
    """How a group's prior is estimated."""

    estimate: Callable[[Mapping[int, Choice], list[Choice]], Estimate]
    """Computes the estimate from the group's own answers, by index, and those to `extra`."""
    extra: Sequence[Question] = ()
    """Questions that are asked in addition."""
    reads: Sequence[int] | None = None
    """Indices of the group's own answers that are needed; None is all."""


@dataclass(frozen=True)
class Learned:
    """What was learned from training data, so that it does not depend on what is asked."""

    priors: Mapping[str, tuple[str, tuple[float, ...]]] = field(default_factory=dict)
    """Description of the subject and prior by class, under `About.key`."""
    fillings: tuple[Filling, ...] = ()

    @property
    def plain(self) -> dict[str, object]:
        """Return it as JSON, for the record."""
        priors = {key: {"about": text, "prior": list(prior)} for key, (text, prior) in self.priors.items()}
        return {"priors": priors, "fillings": [[f.content, list(f.options)] for f in self.fillings]}

    @staticmethod
    def of(results: Mapping[str, Any], folder: Path) -> Learned:
        """Restore it from a record.

        Args:
            results: Results of the record.
            folder: Folder of the record, for the message.

        Raises:
            EvenhandError: It has no priors and fillings, or some that no method writes.
        """
        try:
            priors = {key: (_text(entry["about"]), _prior(entry["prior"])) for key, entry in results["priors"].items()}
            fillings = [Filling(_text(content), tuple(map(_text, o))) for content, o in results["fillings"]]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise EvenhandError(
                f"{folder} has no priors as evenhand writes them ({error!r}); apply the method to the base again"
            ) from error
        return Learned(priors, tuple(fillings))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a text")
    return value


def _prior(values: Any) -> tuple[float, ...]:
    """Read [K] by class, which divides probabilities."""
    numbers = tuple(values)
    for value in numbers:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise ValueError(f"{value!r} in a prior")
    return numbers


class Calibrator(Method):
    """Base of the calibrating methods: a subclass declares what prior a question has, and how it is estimated.

    What is learned from training data is used wherever it applies. Every other prior is estimated from the questions of
    the call itself, without labels: then an answer depends on what else is asked in the same call.
    """

    needs: ClassVar[frozenset[Ability]] = frozenset({"choose"})

    @property
    def added_before(self) -> float:
        """Constant added to probabilities and prior before the division; 0 by default."""
        return 0.0

    @abstractmethod
    def plan(self, group: Group, learned: Learned) -> Plan:
        """Return how the prior of a group is estimated."""

    def about(self, question: Question, answer_by: AnswerBy) -> About | str:
        """Return the subject of a question's prior, or why it has none; by default one prior for all prompts."""
        return pooled(question, answer_by)

    def learn(self, model: Model, data: TrainData) -> Learned:
        """Learn from training data; by default the priors of its questions' groups."""
        found = self.priors(model, data.questions)
        known = {about.key: (about.text, e.prior) for about, e in found if e.prior is not None}
        return Learned({key: (text, tuple(map(float, prior))) for key, (text, prior) in known.items()})

    def priors(self, model: Model, questions: Sequence[Question]) -> list[tuple[About, Estimate]]:
        """Return the priors that the questions themselves give, for inspection; asks only what they need."""
        groups, _ = self._grouped(model, questions)
        plans = [self.plan(group, Learned()) for group in groups]
        reads = [range(len(g.questions)) if p.reads is None else p.reads for g, p in zip(groups, plans, strict=True)]
        own = [g.questions[i] for g, rows in zip(groups, reads, strict=True) for i in rows]
        answers = iter(model.choose([*own, *(q for p in plans for q in p.extra)]))
        read = [dict(zip(rows, islice(answers, len(rows)), strict=True)) for rows in reads]
        return [
            (g.about, p.estimate(mine, list(islice(answers, len(p.extra)))))
            for g, p, mine in zip(groups, plans, read, strict=True)
        ]

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        """Wrap the model: answers are divided by the prior, and everything needed for it is asked in the same call.

        Args:
            model: The model.
            data: Training data; if given, priors come from it, once, wherever it has questions of the same kind.
        """
        if data is None:
            return self._around(model, Learned(), None)
        began = time.monotonic()
        learned = self.learn(model, data)
        content = digest([in_first_names(q) for q in data.questions], data.texts)
        record = record_of(
            self,
            model,
            data=TrainedOn(
                unit="questions",
                training=len(data.questions),
                hash=content,
                overlap_removed=data.overlap_removed.questions,
            ),
            seconds=round(time.monotonic() - began, 1),
            results=learned.plain,
        )
        return self._around(model, learned, record)

    def restore(self, model: Model, folder: Path) -> Model:
        """Wrap the model with what was learned before.

        Raises:
            EvenhandError: The folder has no priors in the format that evenhand writes.
        """
        record = saved.learned_of(folder, self.name)
        return self._around(model, Learned.of({} if record is None else record.results, folder), record)

    def _around(self, model: Model, learned: Learned, record: TrainingRecord | None) -> Model:
        def choose(questions: Sequence[Question]) -> list[Choice]:
            return self._choose(model, questions, learned)

        empty = learned == Learned()
        return Mitigated(
            model,
            self,
            choose=choose,
            depends_on=() if empty else [digest(learned.plain)],
            training=None if empty else record,
        )

    def _choose(self, model: Model, questions: Sequence[Question], learned: Learned) -> list[Choice]:
        groups, refused = self._grouped(model, questions)
        plans = [self._plan(group, learned) for group in groups]
        answers = model.choose([*questions, *(q for plan in plans for q in plan.extra)])
        out, extra = list(answers[: len(questions)]), iter(answers[len(questions) :])
        for row, reason in refused.items():
            out[row] = _noted(out[row], reason)
        for group, plan in zip(groups, plans, strict=True):
            further = list(islice(extra, len(plan.extra)))
            found = plan.estimate({i: answers[row] for i, row in enumerate(group.rows)}, further)
            for i, row in enumerate(group.rows):
                out[row] = _settled(group.about, group.questions[i], answers[row], found, i, self.added_before)
            first = group.rows[0]
            out[first] = replace(out[first], usage=sum((c.usage for c in further), out[first].usage))
        return out

    def _plan(self, group: Group, learned: Learned) -> Plan:
        known = learned.priors.get(group.about.key)
        return self.plan(group, learned) if known is None else given(known[1])

    def _grouped(self, model: Model, questions: Sequence[Question]) -> tuple[list[Group], dict[int, str]]:
        """Group questions that share a prior, in order of first occurrence, and say by index why others have none."""
        own = answer_by_of(model)
        rows: dict[About, list[int]] = {}
        domains: dict[Question | None, list[Question]] = {}
        refused: dict[int, str] = {}
        for i, question in enumerate(questions):
            about = self.about(question, question.answer_by or own)
            if isinstance(about, str):
                refused[i] = about
            else:
                rows.setdefault(about, []).append(i)
                domains.setdefault(_domain(about), []).append(question)
        return [Group(a, at, [questions[i] for i in at], domains[_domain(a)]) for a, at in rows.items()], refused


# --------------------------------------------------------------------------------------- what a prior is about


def answer_by_of(model: Model) -> AnswerBy:
    """Return how a model reads answers if a question does not set it; below the methods around it."""
    while isinstance(model, Mitigated):
        model = model.base
    return model.answer_by or "letters"


def pooled(question: Question, answer_by: AnswerBy) -> About:
    """Return one prior for all questions with equally many options, or with the same labels."""
    return About(answer_by, len(question.options), _labels(question, answer_by))


def per_preamble(question: Question, answer_by: AnswerBy) -> About:
    """Return one prior for each header with its demonstrations."""
    blank = Question("", "", (), header=question.header, shots=question.shots)
    return replace(pooled(question, answer_by), frame=blank)


def reply_format(question: Question, answer_by: AnswerBy) -> About | str:
    """Return one prior per prompt without content; none for a ready conversation, whose content is inseparable."""
    if question.dialogue is not None:
        return READY
    about = pooled(question, answer_by)
    return replace(about, frame=replace(frame(question, about.labels), answer_by=answer_by))


def _labels(question: Question, answer_by: AnswerBy) -> tuple[str, ...] | None:
    return tuple(sorted(question.options)) if answer_by in BY_TEXT else None


def _domain(about: About) -> Question | None:
    return None if about.frame is None else replace(about.frame, options=())


# ---------------------------------------------------------------------------------------- how a prior is found


def given(prior: Sequence[float]) -> Plan:
    """Return a plan for a known prior."""
    return Plan(lambda own, extra: Estimate(np.array(prior)), reads=())


def without_prior(note: str) -> Plan:
    """Return a plan without a prior."""
    return Plan(lambda own, extra: Estimate(None, note), reads=())


def from_batch(group: Group, least: int, prior: Callable[[Array], Estimate]) -> Plan:
    """Estimate a prior from the group's own answers, [N, K] by class; none if fewer than `least` have probabilities."""

    def estimate(own: Mapping[int, Choice], extra: list[Choice]) -> Estimate:
        rows = [group.about.by_class(group.questions[i], choice) for i, choice in own.items()]
        known = [row for row in rows if row is not None]
        return Estimate(None, too_few(len(known), least)) if len(known) < least else prior(np.array(known))

    return Plan(estimate)


def from_content_free(group: Group, fillings: Sequence[Filling], note: str = "") -> Plan:
    """Average the answers to the group's prompt with each filling in place of its content.

    Args:
        group: A group whose `about` has a frame.
        fillings: What replaces the content. If options are shown with letters, these are filled too (ours: the tasks of
            the sources show no options).
        note: Note for the group's answers.
    """
    about = group.about
    assert about.frame is not None
    name = f"{group.questions[0].id} without content"
    extra = [filled(about.frame, f, about.labels is None, f"{name} {i}") for i, f in enumerate(fillings)]

    def estimate(own: Mapping[int, Choice], answers: list[Choice]) -> Estimate:
        rows = [c.probabilities for c in answers if c.probabilities is not None]  # the frame has the classes' order
        return Estimate(np.mean(rows, axis=0), note) if rows else Estimate(None, _joined(note, NO_ANSWERS))

    return Plan(estimate, extra, reads=())


# ------------------------------------------------------------------------------------------ how it is applied


def _settled(
    about: About, question: Question, choice: Choice, found: Estimate, index: int, added: float = 0.0
) -> Choice:
    """Return the answer, divided by the prior."""
    p = about.by_class(question, choice)
    if p is None or choice.decision is None:
        return _noted(choice, NO_PROBABILITIES)
    new = found.direct_answers.get(index)
    if new is None and found.prior is not None:
        new = np.empty(len(p))
        new[list(about.identities(question))] = calibrated(p, found.prior, added)
    if new is not None:
        choice = replace(choice, decision=decide(new), probabilities=tuple(map(float, new)))
    return _noted(choice, found.note)


def _noted(choice: Choice, note: str) -> Choice:
    return replace(choice, note=_joined(choice.note, note))


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)
