"""The contract of methods and benchmarks. `evenhand.testing` checks it in tests, and `compare` in every run.

A method or benchmark that breaks its contract gives numbers that look right and are not, so its cell fails instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from evenhand.interfaces import Benchmark, Choice, Model, Question, Reply, Score

CHANGED = "apply() or an answer changed the model that it was given"
REMEMBERED = 10_000
"""Maximum number of a base model's answers that are remembered to check whether a method keeps their order."""


class NonconformingError(AssertionError):
    """A method or benchmark that breaks the contract; the message says which part."""


def demand(condition: bool, message: str) -> None:
    """Raise an error if a condition does not hold.

    Raises:
        NonconformingError: The condition does not hold.
    """
    if not condition:
        raise NonconformingError(message)


def check_mitigated(made: Any) -> Model:
    """Check that `Method.apply` returned a model, and return it.

    Raises:
        NonconformingError: It is not a model.
    """
    if not isinstance(made, Model):
        raise NonconformingError(f"apply() returned {type(made).__name__}, not a Model")
    return made


def check_choices(questions: Sequence[Question], answers: Any) -> None:
    """Check what `choose` returned: one `Choice` per question, each a distribution or an honest lack of one.

    Raises:
        NonconformingError: They are not so; the message names the question.
    """
    _check_list("choose()", "question", questions, answers, Choice)
    for q, c in zip(questions, answers, strict=True):
        if broken := _broken(q, c):  # the message is written only where there is one: this is run for every answer
            raise NonconformingError(f"{q.id}: {broken}")


def _broken(question: Question, choice: Choice) -> str:
    """Say what is wrong with an answer; "" if it is a distribution or an honest lack of one."""
    decision, options = choice.decision, len(question.options)
    if (decision is None) != (choice.status != "answered"):
        return f"status {choice.status!r} with decision {decision}"
    if decision is not None:
        whole = isinstance(decision, int | np.integer) and not isinstance(decision, bool)
        if not (whole and 0 <= decision < options):
            return f"decision {decision} of {options} options"
    if choice.probabilities is None:
        return ""
    if len(choice.probabilities) != options:
        return f"{len(choice.probabilities)} probabilities"
    if not abs((total := sum(choice.probabilities)) - 1) < 1e-6:
        return f"probabilities sum to {total}"
    if not (min(choice.probabilities) >= -1e-6 and max(choice.probabilities) <= 1 + 1e-6):
        return f"probabilities {choice.probabilities} are not all between 0 and 1"
    return ""


def check_answers(benchmark: Benchmark, items: Sequence[Any], answers: Any) -> None:
    """Check what a benchmark's `ask` returned: one answer per item, of its own type.

    Raises:
        NonconformingError: They are not so.
    """
    demand(isinstance(answers, list | tuple), f"ask() returned {type(answers).__name__}, not a list")
    demand(len(answers) == len(items), f"ask() gave {len(answers)} answers for {len(items)} items")
    wanted = benchmark.answer_type
    for item, answer in zip(items, answers, strict=True):
        if not isinstance(answer, wanted):
            raise NonconformingError(f"ask() gave {type(answer).__name__} for {item.id}, not {wanted.__name__}")


def check_ids(items: Sequence[Any]) -> None:
    """Check that no two items of a benchmark have the same id: their answers could not be told apart.

    Raises:
        NonconformingError: Two items have the same id; the message names the first.
    """
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise NonconformingError(f"ids must be unique: {item.id!r} is there twice")
        seen.add(item.id)


@contextmanager
def checked(mitigated: Model, base: Model) -> Iterator[None]:
    """Check all answers of a mitigated model within the block.

    Args:
        mitigated: The model that is asked. A class without `__dict__` cannot be watched.
        base: The model below the method.

    Raises:
        NonconformingError: An answer breaks the contract; raised within the verb.
    """
    below = _Below()
    with (
        _replaced(base if mitigated is not base else None, {"choose": below.remembering}),
        _replaced(mitigated, {verb: _checking(verb, below) for verb in ("choose", "generate", "score")}),
    ):
        yield


class _Below:
    """The question that the model below a method was answering with each `Choice` it returned."""

    def __init__(self) -> None:
        self._questions: dict[int, list[Question]] = {}
        self._kept: list[Choice] = []  # kept alive, so that no other object gets one's `id`

    def remembering(self, choose: Callable[..., Any]) -> Callable[..., Any]:
        def answer(questions: Sequence[Question], *more: Any, **named: Any) -> Any:
            answers = choose(questions, *more, **named)
            for q, c in zip(questions, answers, strict=False) if len(self._kept) < REMEMBERED else ():
                self._kept.append(c)
                self._questions.setdefault(id(c), []).append(q)
            return answers

        return answer

    def check_order(self, questions: Sequence[Question], answers: Sequence[Choice]) -> None:
        """Check that an answer passed on unchanged belongs to the question it was given for, or to one just like it."""
        asked = {q.id for q in questions}
        for q, c in zip(questions, answers, strict=True):
            came_for = self._questions.get(id(c))
            if came_for and not any(o.id == q.id or o.id not in asked or _alike(o, q) for o in came_for):
                raise NonconformingError(
                    f"choose() did not answer in the order of the questions: at {q.id} stands the answer to "
                    f"{came_for[0].id}"
                )


def _alike(one: Question, other: Question) -> bool:
    return (one.context, one.question, one.options) == (other.context, other.question, other.options)


def _checking(verb: str, below: _Below) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def around(function: Callable[..., Any]) -> Callable[..., Any]:
        def answer(asked: Sequence[Any], *more: Any, **named: Any) -> Any:
            answers = function(asked, *more, **named)
            if verb == "choose":
                check_choices(asked, answers)
                below.check_order(asked, answers)
            elif verb == "generate":
                _check_list("generate()", "dialogue", asked, answers, Reply)
            else:
                _check_list("score()", "passage", asked, answers, Score)
            return answers

        return answer

    return around


@contextmanager
def _replaced(model: Model | None, around: dict[str, Callable[[Callable[..., Any]], Any]]) -> Iterator[None]:
    """Wrap verbs of one object within the block."""
    if model is None:
        yield
        return
    place, verbs = vars(model), model.verbs
    before = {verb: place[verb] for verb in around if verb in place}
    place.update({verb: wrap(verbs[verb]) for verb, wrap in around.items()})
    try:
        yield
    finally:
        for verb in around:
            del place[verb]
        place.update(before)


def _check_list(verb: str, what: str, asked: Sequence[Any], answers: Any, kind: type) -> None:
    demand(
        isinstance(answers, list | tuple), f"{verb} returned {type(answers).__name__}, not a list of {kind.__name__}"
    )
    demand(len(answers) == len(asked), f"{verb} did not answer every {what}: {len(answers)} answers to {len(asked)}")
    for one in answers:
        if not isinstance(one, kind):
            raise NonconformingError(f"{verb} returned {type(one).__name__}, not {kind.__name__}")
