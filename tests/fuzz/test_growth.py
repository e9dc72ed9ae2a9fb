"""A text of twice the length takes about twice as long: what a model repeats without end must not stop a run.

Times are compared with each other in one process, at lengths at which a quadratic parser would take four times as long.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from tests.fuzz.outcome import limited

from evenhand.evaluation.b_score import chosen
from evenhand.interfaces import Question
from evenhand.methods.prompting._answer_lines import answer_line
from evenhand.methods.prompting.intent_self_correction import read_critique
from evenhand.prompting import thinking
from evenhand.prompting.reply_parsing import read_choice

LENGTH = 8_000
SLOWER = 2.9
"""Times as long; twice, with room for what a crowded machine adds. Quadratic time would be four."""
NOTHING = 0.02
"""Processor seconds below which growth cannot be told."""
QUESTION = Question("q", "Who was late?", ("The grandfather", "The grandson", "Can't be determined"))
PIECES = (
    *(
        "A ",
        "(B) ",
        "B or ",
        "not ",
        "The grandfather A ",
        "* ",
        "( ",
        "\n",
        " ",
        "'",
        "no es ",
        "if ",
        "答案是",
        "祖父",
    ),
    *("1.", "-2.5 ", "A is not ", "{{", "A: ", "I ", "the answer is ", "answer the  ", "option ", "A\n", "x-", "A/"),
    *("Answer: B\n", "**\n", ":", "a:", "answer is: *"),
)
PARSERS: dict[str, Callable[[str], object]] = {
    "finished": lambda text: read_choice(text, QUESTION),
    "cut": lambda text: read_choice(text, QUESTION, finished=False),
    "answer line": lambda text: answer_line(text, "Answer:"),
    "critique": read_critique,
    "braces": lambda text: chosen(text, ("red",)),
}


def _seconds(parse: Callable[[str], object], text: str) -> float:
    best = float("inf")
    for _ in range(3):
        begun = time.process_time()
        with limited(20):
            parse(text)
        best = min(best, time.process_time() - begun)
        if best < NOTHING:
            break
    return best


def grows(parse: Callable[[str], object], piece: str, before: str = "") -> bool:
    """Whether a text of twice as many pieces takes much more than twice as long."""
    whole = _seconds(parse, before + piece * (2 * LENGTH // len(piece)))
    return whole > NOTHING and whole > SLOWER * _seconds(parse, before + piece * (LENGTH // len(piece)))


@pytest.mark.parametrize("name", PARSERS)
def test_repeated_pieces_take_time_by_their_number(name: str) -> None:
    assert [piece for piece in PIECES if grows(PARSERS[name], piece)] == []


@pytest.mark.parametrize("piece", [mark for marks in thinking.MARKS for mark in (marks.opening, marks.closing)])
def test_thoughts_that_never_end_take_time_by_their_number(piece: str) -> None:
    assert not grows(thinking.parts, piece)


@pytest.mark.parametrize("before", ["answer", "the answer is", "A", "Answer: A\n"])
def test_blanks_after_an_answer_take_time_by_their_number(before: str) -> None:
    for piece in (" ", "\n", "* ", "/", "the  ", "option "):
        assert not grows(PARSERS["finished"], piece, before)
        assert not grows(PARSERS["cut"], piece, before)


def test_quadratic_time_is_found() -> None:
    """The test itself can fail."""
    assert grows(lambda text: sum(1 for n in range(len(text)) for _ in text[:n:16]), " ")
