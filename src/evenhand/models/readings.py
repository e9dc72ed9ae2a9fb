"""How answers to multiple-choice questions are read, and which part decides it.

Four parts can specify it: the question (a setting of its benchmark), the methods around the model, the run, and the
model. For `answer_by` methods take precedence over the question; for the sampling the question takes precedence over
methods. For both, the run comes next and the model last. `Side.read` determines the result.
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
    """Return how a model reads answers if nothing else specifies it; for a mitigated one, as its methods do."""
    leaf, inside = unwrapped(model)
    return Reading(inside.answer_by or leaf.answer_by, inside.sampling or leaf.sampling)


def unwrapped(model: Model) -> tuple[Reading, Reading]:
    """Return the reading of the model below all methods, which is complete, and what its methods declare."""
    declared = []
    while isinstance(model, Mitigated):
        declared.append(model.method.reading(model.base))
        model = model.base
    own = Reading(model.answer_by or "letters", model.sampling or CHOICE_SAMPLING)
    return own, stacked(reversed(declared))


@dataclass(frozen=True)
class Side:
    """One benchmark on one model: everything except the run's methods that specifies how questions are read."""

    own: Reading
    """Reading of the model below all methods."""
    inside: Reading = OPEN
    """Reading declared by the methods that a mitigated model was saved or passed with."""
    run: Reading = OPEN
    """Reading requested for this run, if neither benchmark nor method specifies another."""
    fixed: Reading = OPEN
    """Reading specified by the questions themselves."""

    def read(self, reading: Reading | None) -> Reading:
        """Return how answers are read under a method that declares `reading`: complete and normalised by `settled`."""
        declared = stacked([self.inside, reading])
        answer_by = declared.answer_by or self.fixed.answer_by or self.run.answer_by or self.own.answer_by
        sampling = self.fixed.sampling or declared.sampling or self.run.sampling or self.own.sampling
        return settled(Reading(answer_by, sampling))

    def put(self, reading: Reading | None) -> Reading:
        """Return which of the run's settings apply to the questions under a method that declares `reading`."""
        declared = stacked([self.inside, reading])
        return Reading(
            None if declared.answer_by else self.run.answer_by, None if declared.sampling else self.run.sampling
        )


def settled(reading: Reading) -> Reading:
    """Normalise what has no effect: the sampling if nothing is generated, and seed and top_p at temperature 0."""
    sampling = reading.sampling
    if reading.answer_by != "generation" or sampling is None:
        return Reading(reading.answer_by)
    return reading if sampling.temperature else replace(reading, sampling=replace(sampling, top_p=1.0, seed=0))


def is_sampled(reading: Reading) -> bool:
    """Whether a complete reading samples its answers."""
    return reading.answer_by == "generation" and reading.sampling is not None and reading.sampling.temperature > 0


def filled(question: Question, reading: Reading) -> Question:
    """Return the question with the open parts of its reading filled in."""
    answer_by, sampling = question.answer_by or reading.answer_by, question.sampling or reading.sampling
    return replace(question, answer_by=answer_by, sampling=sampling)


def none_settings(reading: Reading, own: Reading) -> dict[str, Any]:
    """Return the settings of `none` that give a model with the reading `own` a complete reading."""
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
    """Return the reading that all questions of a benchmark agree on; no model is asked."""
    questions = asked_by(benchmark, items)
    return Reading(_alike(q.answer_by for q in questions), _alike(q.sampling for q in questions))


def asked_by(benchmark: Benchmark, items: Sequence[Any]) -> Sequence[Question]:
    """Return the first questions that a benchmark asks, () if it asks none; no model is asked."""
    try:
        benchmark.ask(_Probe(), items)
    except _Seen as seen:
        return seen.questions
    except Exception:  # a benchmark that needs another model raises its error in the actual run
        return ()
    return ()


def written_by(benchmark: Benchmark, items: Sequence[Any]) -> Sequence[Dialogue]:
    """Return the dialogues that a benchmark has a model continue before any question; no model is asked."""
    probe = _Probe()
    try:
        benchmark.ask(probe, items)
    except _Seen:
        pass
    except Exception:  # a benchmark that needs another model raises its error in the actual run
        return ()
    return probe.dialogues


def _alike(values: Iterable[Any]) -> Any:
    found = set(values)
    return found.pop() if len(found) == 1 else None


# ------------------------------------------------------------------------------------------------------- labels


def labels(readings: Iterable[Reading]) -> dict[Reading, str]:
    """Label each complete reading, with as much detail as needed to distinguish them."""
    alike: dict[str, list[Reading]] = defaultdict(list)
    for reading in dict.fromkeys(readings):
        alike[reading.label].append(reading)
    return {r: ", ".join([label, *_details(r, group)]) for label, group in alike.items() for r in group}


def _details(reading: Reading, group: Sequence[Reading]) -> list[str]:
    """Describe the values in which readings with the same label differ."""
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
