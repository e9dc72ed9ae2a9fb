"""What an encoder student reads of a question: its context, question and options; headers and solved examples not.

Source of the lettered form and of the marker: Liusie et al. 2024 (arXiv 2403.13590). The pairs are ours.
"""

from __future__ import annotations

from typing import NamedTuple

from evenhand.interfaces import Question
from evenhand.prompting.rendering import LETTERS, plain_block, question_block

MARKER = "Prediction: "
"""Stands before what the teacher decided."""


class Asked(NamedTuple):
    """A question in its shown order, with the teacher's decision where the student corrects one."""

    question: Question
    marked: int | None = None
    """Identity of the option that the teacher chose in this order."""


def lettered_text(asked: Asked) -> str:
    """The question with its lettered options in the shown order; the marker names the letter."""
    text = question_block(asked.question)
    if asked.marked is None:
        return text
    return f"{text}\n{MARKER}{LETTERS[asked.question.position_of(asked.marked)]}"


def pair_texts(question: Question, separator: str) -> list[str]:
    """The question with each option, by identity, whatever order is shown."""
    block = plain_block(question)
    return [f"{block}{separator}{option}" for option in question.options]


def prompted(asked: Asked) -> Question:
    """The question for a student that is a language model: the marker ends the header."""
    question = asked.question
    if asked.marked is None:
        return question
    from dataclasses import replace

    marker = f"{MARKER}{LETTERS[question.position_of(asked.marked)]}\n\n"
    if question.shots:
        last = question.shots[-1]
        return replace(question, shots=(*question.shots[:-1], replace(last, text=last.text + marker)))
    return replace(question, header=question.header + marker)
