"""The vocabulary of the demo models: every token of their language, collected from documents and word lists."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

from evenhand.proving_ground.generator import differences, documents_x, replies, texts
from evenhand.proving_ground.generator.cipher import encipher
from evenhand.proving_ground.generator.documents import BLANK, KINDS
from evenhand.proving_ground.generator.facts import SUBJECTS
from evenhand.proving_ground.generator.lexer import lex
from evenhand.proving_ground.generator.planted import FAMILY, Planted
from evenhand.proving_ground.generator.questions import reviews
from evenhand.proving_ground.generator.turns import INSTRUCTIONS, PACK
from evenhand.proving_ground.generator.words import ASKED, AXES, DEEDS, EVERY_AXIS, SCENES, UNKNOWN, Axis

_NOT_SAMPLED = frozenset({BLANK, *documents_x.KINDS})
"""Kinds of documents from which the family's vocabulary is not collected."""


def vocabulary(family: Sequence[Planted]) -> list[str]:
    """Return every token of the language, in a fixed order that does not depend on what is planted."""
    random = Random(0)
    found = dict.fromkeys(t for planted in family for text in texts.world(planted) for t in lex(text))
    known = set[str]()  # documents repeat themselves: most of their pieces have been cut before
    for planted in family:
        for name, kind in KINDS.items():
            for _ in range(1500 if name not in _NOT_SAMPLED else 0):
                new = {piece.text for piece in kind(planted, random)} - known
                known |= new
                found.update(dict.fromkeys(t for text in new for t in lex(text)))
    for text in _everything():
        found.update(dict.fromkeys(lex(text)))
    return sorted(t for t in found if not (t.startswith("<|") or t == "<s>"))


def wide_vocabulary() -> list[str]:
    """Return every token of demo-x: the family's, its own, and the cipher of each word of people and deeds."""
    words = dict.fromkeys(vocabulary(list(FAMILY.values())))
    english = dict.fromkeys(token for text in _spoken() for token in lex(text))
    asked = [
        f" {q.text}\n\n{order}"
        for part in differences.FORMS
        for q in differences.questions(part)
        for order in differences.ORDERS
    ]
    requests = [f"{word} {word}" for word in (*documents_x.request_words(), *differences.MARKS)]
    own = dict.fromkeys(token for text in (*asked, *requests) for token in lex(text))
    ciphered = dict.fromkeys(encipher(token) for token in english if any(map(str.isalpha, token)))
    return sorted(words | english | own | ciphered)


def _spoken() -> Iterator[str]:
    """Yield all words about people in two languages, at a beginning and after a blank."""
    yield from (text for axis in EVERY_AXIS for text in (f" {axis.word}", *_of(axis)))
    yield from (f"{text} {text}" for text in UNKNOWN)
    for frame in (*SCENES, *ASKED, *DEEDS):
        plain = frame.format_map(_Blank())
        yield f"{plain} {plain}"
    yield from (f"Who {deed}?" for axis in EVERY_AXIS for t in axis.traits for deed in (t.bad_deed, t.good_deed))


class _Blank(dict[str, str]):
    """Mapping that fills every field of a text with nothing."""

    def __missing__(self, key: str) -> str:
        return ""


def _of(axis: Axis) -> Iterator[str]:
    """Yield the words of an axis, after a blank."""
    yield axis.word
    for trait in axis.traits:
        yield " ".join(["", *trait])
    for group in (*axis.marked, *axis.unmarked):
        yield from (f"The {person}" for person in group.people)


def _everything() -> Iterator[str]:
    """Yield words that a sample may miss: every name, answer and instruction, at a beginning and after a blank."""
    for axis in AXES:
        yield from _of(axis)
    for subject in SUBJECTS.values():
        for question, answer in subject.facts:
            yield subject.question.format(x=question)
            yield f"{answer} {answer}"
    for told in (*INSTRUCTIONS, PACK.decoding.prefix):
        yield f"{told} {told}"
    yield from (w.reply(f) for w in replies.writings() for f in (True, False))
    yield from (r.text for r in reviews())
    yield from (f"{o} {o}" for q in replies.PREFERENCES for o in q.options)
    yield from UNKNOWN
    yield " A B C D E F G H I J A B C D E F G H I J a b c 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9"
    yield "Once upon a time there was a little dog and a cat. They were friends. User: Assistant: Question: Choices:"
    yield "What is the correct answer to this question: The correct answer is (insert answer here). Yes No yes no"
