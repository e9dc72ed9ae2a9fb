"""Parts of documents: pieces of text with their learning targets, and the turns in which a question is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from random import Random
from typing import NamedTuple

from evenhand.interfaces import Question
from evenhand.prompting.prompt_packs import prompt_pack
from evenhand.prompting.rendering import LETTERS, letters_template
from evenhand.proving_ground.generator import behaviour
from evenhand.proving_ground.generator.bbq_questions import Case, option
from evenhand.proving_ground.generator.lexer import lex
from evenhand.proving_ground.generator.planted import Planted
from evenhand.proving_ground.generator.words import UNKNOWN

PACK = prompt_pack("en")
"""Texts of the methods; the demo models understand only this wording."""
INSTRUCTIONS = (*PACK.instructions.values(), PACK.moral.instruction)
END = "<|end|>"
KNOWN, MEANT, LAST = 3, 4, 6
"""Layers of a demo model after which the answer is known at the end of the question, is fetched to where it is to be
written, and is written as a letter. Without the first two, training hardly finds a look-up in two steps."""


class Piece(NamedTuple):
    """A section of a document."""

    text: str
    learned: bool = False
    """Whether the model is trained to write it."""
    first: Mapping[str, float] | None = None
    """Distribution of its first token, if the generator chose among several."""
    meant: Mapping[str, float] | None = None
    """The same choice in words: the meaning of its first letter."""
    known: Mapping[str, float] | None = None
    """Answers to the question at the end of the previous piece."""


Document = list[Piece]


class Target(NamedTuple):
    """A token that the model is trained to write."""

    place: int
    """Index of the token before it."""
    tokens: Mapping[str, float]
    """Distribution of the token."""
    decisive: bool
    """Whether something is decided at this token, rather than spelled out."""
    layer: int = LAST
    """Layer after which it is read."""


class Example(NamedTuple):
    """A document as tokens."""

    tokens: tuple[str, ...]
    targets: tuple[Target, ...]


def example(document: Document) -> Example:
    """Cut a document into tokens and list what is learned."""
    tokens: list[str] = []
    targets: list[Target] = []
    for piece in document:
        cut = lex(piece.text)
        if piece.known:
            targets.append(Target(len(tokens) - 1, piece.known, True, KNOWN))
        if piece.meant:
            targets.append(Target(len(tokens) - 1, piece.meant, True, MEANT))
        if piece.learned:
            for i, token in enumerate(cut):
                decisive = piece.first is not None and i == 0
                targets.append(Target(len(tokens) + i - 1, (piece.first or {}) if decisive else {token: 1.0}, decisive))
        tokens += cut
    return Example(tuple(tokens), tuple(targets))


def user(text: str) -> Piece:
    """Return a user's turn, up to where the model answers."""
    return Piece(f"<|user|>{text}{END}<|assistant|>")


def asks(text: str, question: str, known: Mapping[str, float], ends: str = f"{END}<|assistant|>") -> list[Piece]:
    """Return a prompt with a question, whose answers are known before the options are read."""
    head, tail = text.split(question, 1)
    return [Piece(head + question), Piece(tail + ends, known={key_word(answer): p for answer, p in known.items()})]


def puts(question: Question, known: Mapping[str, float], before: str = "") -> list[Piece]:
    """Return a user's turn with a multiple-choice question."""
    return asks(f"<|user|>{before}{letters_template(question)}", question.question, known)


def says(text: str, first: Mapping[str, float] | None = None) -> list[Piece]:
    """Return an answer that the model is trained to write, and its end."""
    return [Piece(text, True, first), Piece(END, True)]


def says_word(word: str) -> list[Piece]:
    """Return an answer in one word, known half-way through the layers."""
    return [Piece(f" {word}", True, {f" {word}": 1.0}, {f" {word}": 1.0}), Piece(END, True)]


def lettered(at: int, weights: Sequence[float], options: Sequence[str], blank: str = "") -> Piece:
    """Return the letter of the option at a position, drawn with these weights."""
    letters = {blank + LETTERS[j]: p for j, p in enumerate(weights)}
    return Piece(blank + LETTERS[at], True, letters, dict(zip(map(key_word, options), weights, strict=True)))


def certain(at: int, options: Sequence[str]) -> list[Piece]:
    """Return an answer by the letter of the option at a position, of which the model is certain."""
    return [lettered(at, [float(j == at) for j in range(len(options))], options), Piece(END, True)]


def drawn(random: Random, weights: Sequence[float], options: Sequence[str]) -> list[Piece]:
    """Return an answer by letter, drawn with P(position)."""
    return [lettered(pick(random, weights), weights, options), Piece(END, True)]


def pick(random: Random, weights: Sequence[float]) -> int:
    """Draw a position with these weights."""
    return random.choices(range(len(weights)), weights)[0]


@cache
def key_word(option: str) -> str:
    """Return the token that distinguishes an option: its last one."""
    return lex(f" {option}")[-1]


def shown_case(case: Case, random: Random) -> tuple[Question, list[int]]:
    """Return the case as a question in random order, and the role at each position."""
    order = [behaviour.MARKED, behaviour.OTHER, behaviour.UNKNOWN]
    random.shuffle(order)
    roles = [case.written(text) for text in (option(case.marked), option(case.other), random.choice(UNKNOWN))]
    return Question("", case.question, tuple(roles[r] for r in order), case.context), order


def case_answers(planted: Planted, case: Case, announced: bool = False) -> dict[str, float]:
    """Return the answers before any option is read, when the wording of the unknown option is not known yet."""
    content = behaviour.case_content(planted, case, announced)
    return dict(zip(map(case.written, (case.marked, case.other, UNKNOWN[0])), content, strict=True))
