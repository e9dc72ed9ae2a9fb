"""Content-free inputs, whose answers show only a model's prior."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import NamedTuple

from evenhand.interfaces import Question
from evenhand.prompting.rendering import LETTERS, plain_block

CONTENT_FREE = ("N/A", "", "[MASK]")
"""Content-free texts of Zhao et al. 2021 (arXiv 2102.09690)."""

_FORM = re.compile(
    r"\A(?P<before>[A-Z][\w ]{0,30}:[ \t]*)?(?P<content>.*?)(?P<after>\s*\n[A-Z][\w ]{0,30}:[ \t]*)?\Z", re.S
)


class Filling(NamedTuple):
    """Replacement for the content of a question."""

    content: str
    """Text for context and question."""
    options: tuple[str, ...]
    """Texts for the options, if they are shown; there may be more than a question has."""


def parted(question: Question) -> tuple[str, str, str]:
    """Split context and question in three: a field's name before the content, the content, and one after it.

    A "bare" text includes the form of its continuation, such as "Input: ..." and "Output:", which is not content.
    """
    text = plain_block(question)
    match = _FORM.match(text) if question.template == "bare" else None
    return (match["before"] or "", match["content"], match["after"] or "") if match else ("", text, "")


def frame(question: Question, labels: Sequence[str] | None) -> Question:
    """Return the question with its content removed and options in class order; equal for equal prompts.

    Args:
        question: A question, whose header, demonstrations and form are kept.
        labels: The options that stay, if they are labels; None if options are content, too.
    """
    before, _, after = parted(question)
    options = ("",) * len(question.options) if labels is None else tuple(labels)
    return replace(question, id="", context="", question=before + after, options=options, shown=None, draw=0)


def filled(blank: Question, filling: Filling, shows_options: bool, name: str) -> Question:
    """Return a frame with its content filled in."""
    before, _, after = parted(blank)
    options = filling.options[: len(blank.options)] if shows_options else blank.options
    return replace(blank, id=name, question=before + filling.content + after, options=options)


def content_free(texts: Sequence[str] = CONTENT_FREE) -> list[Filling]:
    """Make one filling per text, with the same text everywhere."""
    return [Filling(text, (text,) * len(LETTERS)) for text in texts]


def random_words(
    questions: Sequence[Question], texts: Sequence[str] = (), *, count: int = 20, seed: int = 0
) -> list[Filling]:
    """Make fillings of random words of a domain, in texts of its mean length.

    Source: Fei et al. 2023 (arXiv 2305.19148), domain-context calibration; the words of a text are drawn without
    replacement, as in schwartz-lab-NLP/label-bias, data_utils.py, but keep their case.

    Args:
        questions: Source of words and lengths, options separately from the rest.
        texts: Further texts to draw words from. Without questions, lengths come from them, and options are one word.
        count: Number of fillings.
        seed: Seed of the draws.
    """
    contents = [parted(q)[1].split() for q in questions]
    options = [option.split() for q in questions for option in q.options]
    more = [text.split() for text in texts]
    words = [word for text in (*contents, *more) for word in text]
    option_words = [word for option in options for word in option] or words
    length, option_length = _mean_length(contents or more), _mean_length(options) if options else 1
    out = []
    for i in range(count):
        rng = Random(f"{seed}/{i}")  # so that a draw does not depend on their number
        content = _drawn(rng, words, length)
        out.append(Filling(content, tuple(_drawn(rng, option_words, option_length) for _ in LETTERS)))
    return out


def _mean_length(texts: Sequence[Sequence[str]]) -> int:
    return math.ceil(sum(map(len, texts)) / len(texts)) if texts else 0


def _drawn(rng: Random, words: Sequence[str], length: int) -> str:
    return " ".join(rng.sample(words, min(length, len(words))))
