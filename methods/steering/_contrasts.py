"""Contrasts: one prompt with a biased and an unbiased answer, made from pairs and multiple-choice questions.

The answers of many pairs are the letters of options that the prompt shows. Such prompts are split up, so that every
contrast can be shown in all cyclic orders of its options: then each side ends in each letter equally often, and a mean
difference of both sides has no component that means "answer C".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from evenhand.interfaces import Dialogue, Message, Pair, Question
from evenhand.prompting.option_orders import movable
from evenhand.prompting.rendering import LETTERS, as_dialogue

_LINES = re.compile(r"^(?:\(([A-Z])\)|([A-Z])\.) (.+)$", re.M)
_TWO = re.compile(r"\bA: (.+?); B: (.+?)\. Answer: Option\s*\Z", re.S)
"""Matches the form of `evenhand.data.pairs.TWO_OPTIONS`."""
_ARTICLE = re.compile(r"\A(?:an?|the)\s+", re.I)
THREE = 3
"""Number of options in questions like BBQ's: two people, and that it cannot be known."""


class Contrast(NamedTuple):
    """A prompt with its answers and their roles."""

    prompt: str | Dialogue
    answers: tuple[str, ...]
    """Continuations of the prompt: the letters of all options in the shown order, or the two sides of a pair."""
    biased: int
    """Index of the answer that a stereotype makes more probable."""
    other: int
    """Index of its counterpart: the other side of a pair, or the right answer to a question."""
    unknown: int | None = None
    """Index of the answer that it cannot be known; None if there is none, or if that is unclear."""
    axis: str = ""
    suffix: str = ""
    """Text after either side of a pair that does not end in a letter."""
    spans: tuple[tuple[int, int], ...] = ()
    """Where the texts of the options are in the prompt's last turn; () if answers are not letters."""

    @property
    def right(self) -> int:
        """Index of an unbiased model's answer: that it cannot be known, if that is an option."""
        return self.other if self.unknown is None else self.unknown

    @property
    def text(self) -> str:
        """The prompt's last turn."""
        return self.prompt if isinstance(self.prompt, str) else self.prompt.messages[-1].content

    @property
    def options(self) -> tuple[str, ...]:
        """Texts of the options, in the shown order."""
        return tuple(self.text[start:end] for start, end in self.spans)

    @property
    def letters(self) -> tuple[str, ...]:
        """What distinguishes answers for balancing: their letters; "" for answers that are not letters."""
        return tuple(a.strip() if self.spans else "" for a in self.answers)


def of_pair(pair: Pair) -> Contrast:
    """Make the contrast of a pair; lettered if its sides are letters of options that its prompt shows."""
    plain = Contrast(pair.prompt, (pair.stereotyped, pair.counter_stereotyped), 0, 1, None, pair.axis, pair.suffix)
    spans = option_spans(plain.text)
    sides = [side.strip() for side in (pair.stereotyped, pair.counter_stereotyped)]
    if pair.suffix or not spans or not all(side in list(LETTERS[: len(spans)]) for side in sides):
        return plain
    lead = pair.stereotyped[: pair.stereotyped.index(sides[0])]
    biased, other = (LETTERS.index(side) for side in sides)
    left = set(range(len(spans))) - {biased, other}
    unknown = left.pop() if len(spans) == THREE else None
    answers = tuple(lead + letter for letter in LETTERS[: len(spans)])
    return plain._replace(answers=answers, biased=biased, other=other, unknown=unknown, suffix="", spans=spans)


def of_question(question: Question, right: int, biased: int, blank: str) -> Contrast:
    """Make the contrast of a question, answered by a letter.

    Args:
        question: Question with options in the order to be shown.
        right: Identity of the right option.
        biased: Identity of the option that is contrasted with it.
        blank: What separates the prompt from a letter.
    """
    dialogue = as_dialogue(question, "letters")
    answers = tuple(blank + letter for letter in LETTERS[: len(question.options)])
    positions = question.position_of(biased), question.position_of(right)
    spans = option_spans(dialogue.messages[-1].content)
    known = spans if len(spans) == len(question.options) else ()
    return Contrast(dialogue, answers, *positions, axis=question.axis, spans=known)


def option_spans(text: str) -> tuple[tuple[int, int], ...]:
    """Return where lettered options are: in the last list in a text that begins with A, or () if there is none."""
    found: list[tuple[int, int]] = []
    for match in _LINES.finditer(text):
        letter, here = match[1] or match[2], match.span(3)
        if letter == "A":
            found = [here]
        elif found and len(found) < len(LETTERS) and letter == LETTERS[len(found)]:
            found.append(here)
    if len(found) > 1:
        return tuple(found)
    two = _TWO.search(text)
    return (two.span(1), two.span(2)) if two else ()


def orders(contrast: Contrast) -> list[Contrast]:
    """Return the contrast in all cyclic orders of its options, the given one first; just itself if not reorderable."""
    if not contrast.spans or movable(Question("", "", contrast.options)).note:
        return [contrast]
    return [_rotated(contrast, by) for by in range(len(contrast.spans))]


def template(contrast: Contrast) -> str:
    """Return the prompt without its options, blanked where it mentions them: equal for questions of one template.

    Contrasts that are not questions with options are their own template.
    """
    if not contrast.spans:
        return repr((contrast.prompt, contrast.suffix))
    text = contrast.text[: contrast.spans[0][0]]
    bare = {_ARTICLE.sub("", option.strip().rstrip(".")) for option in contrast.options}
    for option in sorted(filter(None, bare), key=len, reverse=True):
        text = re.sub(rf"(?<!\w)(?:(?:an?|the) )?{re.escape(option)}(?!\w)", "_", text, flags=re.I)
    return text


def with_targets(questions: Iterable[tuple[Question, int]], pairs: Sequence[Pair]) -> dict[str, int]:
    """Return the stereotyped option, by id, of questions with a pair, which has the id of its question."""
    by_id = {pair.id: of_pair(pair) for pair in pairs if pair.id}
    found = {}
    for question, _ in questions:
        contrast = by_id.get(question.id)
        if contrast is not None and contrast.spans and contrast.options[contrast.biased] in question.options:
            found[question.id] = question.options.index(contrast.options[contrast.biased])
    return found


def _rotated(contrast: Contrast, by: int) -> Contrast:
    """Return the contrast with option (j + by) mod n at position j."""
    count, text = len(contrast.spans), contrast.text
    parts, spans, end = [], [], 0
    for place, (start, stop) in enumerate(contrast.spans):
        parts += [text[end:start], contrast.options[(place + by) % count]]
        begin = sum(map(len, parts[:-1]))
        spans.append((begin, begin + len(parts[-1])))
        end = stop
    parts.append(text[end:])
    unknown = None if contrast.unknown is None else (contrast.unknown - by) % count
    return contrast._replace(
        prompt=_with_text(contrast.prompt, "".join(parts)),
        biased=(contrast.biased - by) % count,
        other=(contrast.other - by) % count,
        unknown=unknown,
        spans=tuple(spans),
    )


def _with_text(prompt: str | Dialogue, text: str) -> str | Dialogue:
    if isinstance(prompt, str):
        return text
    *before, last = prompt.messages
    return replace(prompt, messages=(*before, Message(last.role, text)))
