"""Write what an encoder student reads of a question: context, question and options, without headers and examples.

Source of the lettered form and of the marker: Liusie et al. 2024 (arXiv 2403.13590). The pairs are ours.
"""

from __future__ import annotations

from typing import NamedTuple

from evenhand.interfaces import Question
from evenhand.prompting.rendering import LETTERS, plain_block, question_block

MARKER = "Prediction: "
"""Precedes the teacher's decision."""


class Asked(NamedTuple):
    """A question in its shown order, with the teacher's decision if the student corrects one."""

    question: Question
    marked: int | None = None
    """Identity of the option that the teacher chose in this order."""


def lettered_text(asked: Asked) -> str:
    """Return the question with its lettered options in the shown order; the marker names the letter."""
    text = question_block(asked.question)
    if asked.marked is None:
        return text
    return f"{text}\n{MARKER}{LETTERS[asked.question.position_of(asked.marked)]}"


def pair_texts(question: Question, separator: str) -> list[str]:
    """Return the question with each option, by identity, whatever order is shown."""
    block = plain_block(question)
    return [f"{block}{separator}{option}" for option in question.options]


def prompted(asked: Asked) -> Question:
    """Return the question for a student that is a language model: the marker ends the header."""
    question = asked.question
    if asked.marked is None:
        return question
    from dataclasses import replace

    marker = f"{MARKER}{LETTERS[question.position_of(asked.marked)]}\n\n"
    if question.shots:
        last = question.shots[-1]
        return replace(question, shots=(*question.shots[:-1], replace(last, text=last.text + marker)))
    return replace(question, header=question.header + marker)
