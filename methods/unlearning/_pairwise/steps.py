"""Choose the pairs, texts and questions of each optimizer step, and divide the step into parts."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import NamedTuple

from evenhand.interfaces import Question
from evenhand.methods.unlearning._pairwise.objective import Totals
from evenhand.methods.unlearning._pairwise.parity import Turn
from evenhand.methods.unlearning._pairwise.reading import Lesson, Rewarded, stream


class Sizes(NamedTuple):
    """Numbers of items in a step."""

    pairs: int
    """Number of pairs; 0 if no loss on pairs has a weight, and likewise for the others."""
    texts: int
    questions: int
    parts: int = 1
    """Number of parts in which a step is computed."""


class Part(NamedTuple):
    """One part of an optimizer step."""

    pairs: tuple[int, ...]
    """Indices of training rows."""
    swapped: bool
    texts: tuple[int, ...]
    questions: tuple[Rewarded, ...]
    """Questions whose options are in the order shown in this step."""
    totals: Totals
    """Counts of the whole step."""
    parts: int


def step(number: int, lesson: Lesson, sizes: Sizes, turn: Turn, adversarial: frozenset[int], seed: int) -> list[Part]:
    """Return the parts of an optimizer step; each kind is drawn separately, so that leaving one out changes no other.

    Args:
        number: Number of the step, from 0.
        lesson: Training data.
        sizes: Numbers of items in a step.
        turn: Which axis is trained, and in which direction.
        adversarial: Rows whose chosen side is forgotten as well.
        seed: Seed of the orders.
    """
    rows = lesson.train
    which = None if turn.axis is None else (lambda n: rows[n].axis == turn.axis)
    name = f"{seed}/pairs" if turn.axis is None else f"{seed}/pairs/{turn.axis}"
    pairs = stream(len(rows), number * sizes.pairs, sizes.pairs, name, which)
    texts = stream(len(lesson.texts), number * sizes.texts, sizes.texts, f"{seed}/texts")
    questions = _questions(number, lesson.questions, sizes.questions, seed)
    totals = _totals(lesson, pairs, texts, len(questions), turn.swapped, adversarial)
    return [
        Part(
            tuple(pairs[at :: sizes.parts]),
            turn.swapped,
            tuple(texts[at :: sizes.parts]),
            tuple(questions[at :: sizes.parts]),
            totals,
            sizes.parts,
        )
        for at in range(sizes.parts)
    ]


def _totals(
    lesson: Lesson, pairs: Sequence[int], texts: Sequence[int], questions: int, swapped: bool, also: frozenset[int]
) -> Totals:
    rows = [lesson.train[n].swapped if swapped else lesson.train[n] for n in pairs]
    return Totals(
        pairs=len(rows),
        forgotten=len(rows) + sum(n in also for n in pairs),
        chosen_tokens=sum(len(row.chosen) for row in rows),
        rejected_tokens=sum(len(row.rejected) for row in rows),
        text_tokens=sum(len(lesson.texts[n]) - 1 for n in texts),
        questions=questions,
    )


def _questions(number: int, questions: Sequence[Rewarded], size: int, seed: int) -> list[Rewarded]:
    """Choose equally many ambiguous and other questions, as abstaining would pay otherwise, with options reordered."""
    kinds = [[q for q in questions if q.ambiguous is kind] for kind in (True, False)]
    kinds = [kind for kind in kinds if kind]
    out = []
    for at, kind in enumerate(kinds):
        # counted from the first step, so that an odd size favours no kind
        before, after = (len(range(at, steps * size, len(kinds))) for steps in (number, number + 1))
        out += [kind[n] for n in stream(len(kind), before, after - before, f"{seed}/questions/{at}")]
    random = Random(f"{seed}/options/{number}")
    return [one._replace(question=_reordered(one, random)) for one in out]


def _reordered(one: Rewarded, random: Random) -> Question:
    question = one.question
    if question.dialogue is not None:  # its prompt has a fixed order
        return question
    return question.reordered(random.sample(range(len(question.options)), len(question.options)))
