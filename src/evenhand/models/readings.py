"""How answers to multiple-choice questions are read, and who decides it.

Four can say it: the question itself (its benchmark's setting), the methods around the model, the run, and the model.
Of `answer_by` a method has the first word, then the question; of the sampling the question, then the methods; then for
both the run and, last, the model. `Side.read` works out what is left.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evenhand.interfaces import (
    OPEN,
    Ability,
    Benchmark,
    Choice,
    Dialogue,
    Model,
    Question,
    Reading,
    Reply,
    Sampling,
    stacked,
)
from evenhand.models.asking import CHOICE_SAMPLING
from evenhand.models.mitigated import Mitigated

SAMPLING_FIELDS = ("temperature", "top_p", "max_new_tokens", "seed", "stop")


# ------------------------------------------------------------------------------------------------- who decides


def own_reading(model: Model) -> Reading:
    """How a model reads answers where nothing else says so; of a mitigated one, as its methods do."""
    leaf, inside = unwrapped(model)
    return Reading(inside.answer_by or leaf.answer_by, inside.sampling or leaf.sampling)


def unwrapped(model: Model) -> tuple[Reading, Reading]:
    """How the model below all methods reads answers, which is complete, and what the methods around it declare."""
    declared = []
    while isinstance(model, Mitigated):
        declared.append(model.method.reading(model.base))
        model = model.base
    own = Reading(model.answer_by or "letters", model.sampling or CHOICE_SAMPLING)
    return own, stacked(reversed(declared))


@dataclass(frozen=True)
class Side:
    """One benchmark on one model: everybody but the methods who says how its questions are read."""

    own: Reading
    """Of the model below all methods."""
    inside: Reading = OPEN
    """Of the methods that a mitigated model was saved or given with."""
    run: Reading = OPEN
    """Asked for in this run, where neither benchmark nor method says otherwise."""
    fixed: Reading = OPEN
    """Of the questions themselves."""

    def read(self, reading: Reading | None) -> Reading:
        """How answers are read under a method that declares `reading`; complete, and the same for the same thing."""
        declared = stacked([self.inside, reading])
        answer_by = declared.answer_by or self.fixed.answer_by or self.run.answer_by or self.own.answer_by
        sampling = self.fixed.sampling or declared.sampling or self.run.sampling or self.own.sampling
        return settled(Reading(answer_by, sampling))

    def put(self, reading: Reading | None) -> Reading:
        """What of the run's wishes has to be put on the questions of a method that declares `reading`."""
        declared = stacked([self.inside, reading])
        return Reading(
            None if declared.answer_by else self.run.answer_by, None if declared.sampling else self.run.sampling
        )


def settled(reading: Reading) -> Reading:
    """Without what decides nothing: any sampling where nothing is generated, the seed at temperature 0."""
    sampling = reading.sampling
    if reading.answer_by != "generation" or sampling is None:
        return Reading(reading.answer_by)
    return reading if sampling.temperature else replace(reading, sampling=replace(sampling, top_p=1.0, seed=0))


def is_sampled(reading: Reading) -> bool:
    """Whether a complete reading draws its answers."""
    return reading.answer_by == "generation" and reading.sampling is not None and reading.sampling.temperature > 0


def filled(question: Question, reading: Reading) -> Question:
    """The question, with what it leaves open about its reading filled in."""
    answer_by, sampling = question.answer_by or reading.answer_by, question.sampling or reading.sampling
    return replace(question, answer_by=answer_by, sampling=sampling)


def none_settings(reading: Reading, own: Reading) -> dict[str, Any]:
    """Settings of `none` with which a model whose own reading is `own` is read in a complete way."""
    if reading.sampling is None:
        return {"answer_by": reading.answer_by}
    like = own.sampling or CHOICE_SAMPLING
    values = {name: getattr(reading.sampling, name) for name in SAMPLING_FIELDS}
    unlike = {k: v for k, v in values.items() if k == "temperature" or v != getattr(like, k)}
    return {"answer_by": reading.answer_by, **unlike}


# ---------------------------------------------------------------------------------------- what the questions say


class _Seen(Exception):
    """Carries the questions out of a benchmark."""

    def __init__(self, questions: Sequence[Question]) -> None:
        self.questions = questions


class _Probe(Model):
    """Stops a benchmark at the first questions that it asks."""

    name = "probe"
    fingerprint = "probe"

    def __init__(self) -> None:
        self.dialogues: list[Dialogue] = []

    @property
    def abilities(self) -> frozenset[Ability]:
        return frozenset({"choose", "generate", "score"})

    def choose(self, questions: Sequence[Question]) -> list[Choice]:
        raise _Seen(questions)

    def generate(self, dialogues: Sequence[Dialogue], sampling: Sampling = Sampling()) -> list[Reply]:
        self.dialogues += dialogues
        return [Reply("") for _ in dialogues]

    def save(self, folder: str | Path) -> Path:
        raise NotImplementedError


def fixed_by(benchmark: Benchmark, items: Sequence[Any]) -> Reading:
    """What all questions that a benchmark asks say alike about how they are read; no model is asked."""
    questions = asked_by(benchmark, items)
    return Reading(_alike(q.answer_by for q in questions), _alike(q.sampling for q in questions))


def asked_by(benchmark: Benchmark, items: Sequence[Any]) -> Sequence[Question]:
    """The first questions that a benchmark puts to a model, none where it chooses nothing; no model is asked."""
    try:
        benchmark.ask(_Probe(), items)
    except _Seen as seen:
        return seen.questions
    except Exception:  # a benchmark that wants another model says so when it is really asked
        return ()
    return ()


def written_by(benchmark: Benchmark, items: Sequence[Any]) -> Sequence[Dialogue]:
    """The dialogues that a benchmark has a model continue before it asks any question; no model is asked."""
    probe = _Probe()
    try:
        benchmark.ask(probe, items)
    except _Seen:
        pass
    except Exception:  # a benchmark that wants another model says so when it is really asked
        return ()
    return probe.dialogues


def _alike(values: Iterable[Any]) -> Any:
    found = set(values)
    return found.pop() if len(found) == 1 else None


# ------------------------------------------------------------------------------------------------------- labels


def labels(readings: Iterable[Reading]) -> dict[Reading, str]:
    """A label for each complete reading, with as much detail as it takes to tell them apart."""
    alike: dict[str, list[Reading]] = defaultdict(list)
    for reading in dict.fromkeys(readings):
        alike[reading.label].append(reading)
    return {r: ", ".join([label, *_details(r, group)]) for label, group in alike.items() for r in group}


def _details(reading: Reading, group: Sequence[Reading]) -> list[str]:
    """In words, the values that a reading does not share with the others of its label."""
    found = []
    for name, words in (
        ("top_p", "top_p={}"),
        ("max_new_tokens", "{} tokens"),
        ("seed", "seed {}"),
        ("stop", "stop={}"),
    ):
        values = {getattr(r.sampling, name) for r in group if r.sampling is not None}
        if len(values) > 1:
            found.append(words.format(getattr(reading.sampling, name)))
    return found
