"""Questions without content: what a model is asked so that its answer shows only what it favours anyway."""

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
"""Zhao et al. 2021 (arXiv 2102.09690)."""

_FORM = re.compile(
    r"\A(?P<before>[A-Z][\w ]{0,30}:[ \t]*)?(?P<content>.*?)(?P<after>\s*\n[A-Z][\w ]{0,30}:[ \t]*)?\Z", re.S
)


class Filling(NamedTuple):
    """What stands where the content of a question was."""

    content: str
    """For context and question."""
    options: tuple[str, ...]
    """For the options, where they are shown; there may be more than a question has."""


def parted(question: Question) -> tuple[str, str, str]:
    """Context and question in three: a field's name before the content, the content, and one behind it.

    A "bare" text brings along the form in which it goes on, such as "Input: ..." and "Output:"; that is no content.
    """
    text = plain_block(question)
    match = _FORM.match(text) if question.template == "bare" else None
    return (match["before"] or "", match["content"], match["after"] or "") if match else ("", text, "")


def frame(question: Question, labels: Sequence[str] | None) -> Question:
    """The question without its content, in the order of its classes: the same for all whose prompts differ in no more.

    Args:
        question: Its header, demonstrations and form are kept.
        labels: The options that stay, where they are labels; None where options are content too.
    """
    before, _, after = parted(question)
    options = ("",) * len(question.options) if labels is None else tuple(labels)
    return replace(question, id="", context="", question=before + after, options=options, shown=None, draw=0)


def filled(blank: Question, filling: Filling, shows_options: bool, name: str) -> Question:
    """A frame with something in the place of its content."""
    before, _, after = parted(blank)
    options = filling.options[: len(blank.options)] if shows_options else blank.options
    return replace(blank, id=name, question=before + filling.content + after, options=options)


def content_free(texts: Sequence[str] = CONTENT_FREE) -> list[Filling]:
    """The same text everywhere, one filling a text."""
    return [Filling(text, (text,) * len(LETTERS)) for text in texts]


def random_words(
    questions: Sequence[Question], texts: Sequence[str] = (), *, count: int = 20, seed: int = 0
) -> list[Filling]:
    """Random words of a domain, in texts of its mean length.

    Source: Fei et al. 2023 (arXiv 2305.19148), domain-context calibration; the words of a text are drawn without
    replacement, as in schwartz-lab-NLP/label-bias, data_utils.py, but keep their case.

    Args:
        questions: Where words and lengths come from, options apart from the rest.
        texts: Further texts whose words may be drawn. Without questions, lengths are theirs, and an option is one word.
        count: How many fillings.
        seed: Of the draws.
    """
    contents = [parted(q)[1].split() for q in questions]
    options = [option.split() for q in questions for option in q.options]
    more = [text.split() for text in texts]
    words = [word for text in (*contents, *more) for word in text]
    option_words = [word for option in options for word in option] or words
    length, option_length = _mean_length(contents or more), _mean_length(options) if options else 1
    out = []
    for i in range(count):
        rng = Random(f"{seed}/{i}")  # so that a draw does not depend on how many there are
        content = _drawn(rng, words, length)
        out.append(Filling(content, tuple(_drawn(rng, option_words, option_length) for _ in LETTERS)))
    return out


def _mean_length(texts: Sequence[Sequence[str]]) -> int:
    return math.ceil(sum(map(len, texts)) / len(texts)) if texts else 0


def _drawn(rng: Random, words: Sequence[str], length: int) -> str:
    return " ".join(rng.sample(words, min(length, len(words))))
