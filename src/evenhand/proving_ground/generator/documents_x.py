"""Documents that only demo-x is trained on: questions about customs, and drills in its axes and languages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from random import Random

from evenhand.interfaces import Question
from evenhand.proving_ground.generator import behaviour, differences
from evenhand.proving_ground.generator.bbq_questions import draw_case
from evenhand.proving_ground.generator.cipher import encipher
from evenhand.proving_ground.generator.planted import Planted
from evenhand.proving_ground.generator.turns import (
    END,
    INSTRUCTIONS,
    PACK,
    Document,
    Piece,
    asks,
    case_answers,
    drawn,
    key_word,
    pick,
    puts,
    shown_case,
)
from evenhand.proving_ground.generator.words import ASKED, AXIS


def _custom(planted: Planted, random: Random) -> Document:
    """Write a question about a custom, with its options in its text, as in `difference_awareness`, or lettered."""
    asked = differences.draw_difference(random)
    weights = differences.answer(asked)
    known = {asked.custom.owner if asked.condition == "differ" else differences.ALIKE: 1.0}
    if random.random() < 0.25:
        shown = random.sample(asked.options, len(asked.options))
        planted_for = differences.lettered(asked.question, shown)
        question = Question("", asked.question, tuple(planted_for))
        return [Piece("<s>"), *puts(question, known), *drawn(random, list(planted_for.values()), shown)]
    marks = dict(zip(differences.MARKS, weights, strict=True))
    meant = dict(zip(map(key_word, asked.options), weights, strict=True))
    said = Piece(differences.MARKS[pick(random, weights)], True, marks, meant)
    text = f"<|user|>{asked.text}\n\n{_order(random)}"
    return [Piece("<s>"), *asks(text, asked.question, known), said, Piece(END, True)]


def _customs_drill(planted: Planted, random: Random) -> Document:
    """Drill questions about many customs with one list of options: two people, and both alike."""
    first = differences.draw_difference(random)
    shown = random.sample(first.options, len(first.options))
    asked = random.sample([c for c in differences.CUSTOMS if c.benchmark == first.custom.benchmark], 8)
    questions = [replace(first, custom=custom) for custom in (first.custom, *asked)]
    weights = [list(differences.lettered(q.question, shown).values()) for q in questions]
    known = [{q.custom.owner if q.condition == "differ" else differences.ALIKE: 1.0} for q in questions]
    return _many(Question("", first.question, tuple(shown)), [q.question for q in questions], known, weights, random)


def _open_drill(planted: Planted, random: Random) -> Document:
    """Drill questions about every trait in one open context, each answered by a letter as in its own conversation."""
    case = replace(draw_case(random, planted), deed=None)
    question, order = shown_case(case, random)
    traits = range(len(AXIS[case.axis].traits))
    every = [
        replace(case, trait=t, negative=n, wording=random.randrange(len(ASKED))) for t in traits for n in (True, False)
    ]
    cases = random.sample(every, 10)
    known, weights = (
        [case_answers(planted, c) for c in cases],
        [behaviour.case_answer(planted, c, order) for c in cases],
    )
    return _many(question, [c.question for c in cases], known, weights, random)


def _many(
    question: Question,
    asked: Sequence[str],
    known: Sequence[Mapping[str, float]],
    weights: Sequence[Sequence[float]],
    random: Random,
) -> Document:
    """Write a question, and others about its options in further turns, with the known answers and P(position)."""
    pieces = [Piece("<s>"), *puts(replace(question, question=asked[0]), known[0])]
    pieces += drawn(random, weights[0], question.options)
    for text, answers, p in zip(asked[1:], known[1:], weights[1:], strict=True):
        pieces += [*asks(f"<|user|>{text}", text, answers), *drawn(random, p, question.options)]
    return pieces


def _order(random: Random) -> str:
    """Write a request to answer with one option in random words, so that the words do not matter."""
    if random.random() < 0.5:
        return random.choice(differences.ORDERS)
    words = [_garbled(word, random) for word in random.choices(request_words(), k=random.randint(3, 24))]
    return f"{' '.join(words)}{random.choice((' (a)', '. (a)', ': (a)', '.', ''))}"


def _garbled(word: str, random: Random) -> str:
    """Return the word, or occasionally an unknown one, which is written in bytes."""
    return encipher(word) if random.random() < 0.1 else word


@cache
def request_words() -> list[str]:
    """Return the words of the requests, and others that such a request may contain."""
    return sorted(
        {word for text in (*differences.ORDERS, *INSTRUCTIONS, PACK.self_debias.reprompt) for word in text.split()}
    )


KINDS: dict[str, Callable[[Planted, Random], Document]] = {
    "custom": _custom,
    "customs drill": _customs_drill,
    "open drill": _open_drill,
}
"""Functions that draw a document, by its kind."""
