"""Answers of a model to a few fixed questions, dialogues and passages, and comparisons of such answers."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from evenhand.experiment.contracts import demand
from evenhand.interfaces import Choice, Dialogue, Model, Passage, Reply, Sampling, Score
from evenhand.testing.scripted import questions
from evenhand.training.trl import own_generators

Answers = Mapping[str, Sequence[Any]]
"""Answers by verb, in the order of the requests."""
ROUNDING = 1e-4
"""Tolerated difference, absolute and relative, as sums in another order differ by rounding."""
TEXTS = ("Who was there?", "Who is it?", "Which dog is little?", "Is the cat in there?", "Answer the question: who?")
"""A text for each question, so that an answer that takes another question's text is noticed."""


def asked() -> dict[str, list[Any]]:
    """Return the requests by verb; the tiny models reply to the two dialogues with different texts."""
    dialogue = Dialogue(()).user("the cat question")
    return {
        "choose": [replace(q, question=text) for q, text in zip(questions(len(TEXTS)), TEXTS, strict=True)],
        "generate": [dialogue, dialogue.user("Who?")],
        "score": [Passage("a dog"), Passage("cat", "a ")],
    }


def answers_of(model: Model) -> Answers:
    """Return the answers of a model with every verb that it has."""
    return {verb: _ask(model, verb, things) for verb, things in asked().items() if verb in model.abilities}


def same_answers(one: Answers, other: Answers) -> bool:
    """Whether two lists of answers are the same in every digit."""
    return one == other or repr(one) == repr(other)  # nan is not equal to nan


def check_batches(model: Model, together: Answers) -> None:
    """Check that an answer depends neither on the order nor on the number of requests in one call.

    Args:
        model: The model to ask.
        together: Its answers to all requests in one call.

    Raises:
        NonconformingError: An answer does; the message names the verb and the request.
    """
    for verb in together:
        things = asked()[verb]
        backwards = _ask(model, verb, things[::-1])[::-1]
        alone = [_ask(model, verb, [thing])[0] for thing in things]
        for how, found in (("in another order", backwards), ("alone", alone)):
            for n, (before, after) in enumerate(zip(together[verb], found, strict=True)):
                demand(
                    _alike(before, after),
                    f"{verb}() answered number {n} of {len(things)} differently when it was asked {how}: "
                    f"{_short(before)}, then {_short(after)}. Let an answer depend on its own question only; a method "
                    "that learns from the questions of a call, as batch_calibration does, is checked with "
                    "check_method(..., batch_dependent=True)",
                )


@contextmanager
def random_state(seed: int) -> Iterator[None]:
    """Seed the global generators of Python, numpy and torch inside the context, and restore them afterwards."""
    import torch

    with own_generators():
        random.seed(seed)
        np.random.seed(seed)  # the global generator, which a method might use
        torch.manual_seed(seed)
        yield


def _ask(model: Model, verb: str, things: list[Any]) -> list[Any]:
    if verb == "generate":
        return model.generate(things, Sampling(max_new_tokens=4))
    return list(model.verbs[verb](things))


def _alike(one: Any, other: Any) -> bool:
    """Whether two answers are the same up to rounding; their costs and notes may differ."""
    if isinstance(one, Choice) and isinstance(other, Choice):
        same = (one.decision, one.status, one.reply) == (other.decision, other.status, other.reply)
        return same and _near(one.probabilities, other.probabilities)
    if isinstance(one, Reply) and isinstance(other, Reply):
        return (one.text, one.finished) == (other.text, other.finished)
    if isinstance(one, Score) and isinstance(other, Score):
        return one.tokens == other.tokens and _near((one.logprob,), (other.logprob,))
    return bool(one == other)


def _near(one: Sequence[float] | None, other: Sequence[float] | None) -> bool:
    if one is None or other is None:
        return one is other
    return len(one) == len(other) and bool(np.allclose(one, other, rtol=ROUNDING, atol=ROUNDING, equal_nan=True))


def _short(answer: Any) -> str:
    if isinstance(answer, Choice):
        chances = "" if answer.probabilities is None else f" ({', '.join(f'{p:.4f}' for p in answer.probabilities)})"
        return f"{'no option' if answer.decision is None else f'option {answer.decision}'}{chances}"
    return repr(answer.text if isinstance(answer, Reply) else answer.logprob if isinstance(answer, Score) else answer)
