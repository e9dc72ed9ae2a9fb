"""Option letters among the first tokens that a server lists, and what of their probability stays unread.

A server shows the texts of its most probable first tokens, not its vocabulary, so every token that can only be a
letter counts for it: "B", " b", "B.", "(B)", "**B", a full-width B. Capitals and small letters of all options count
alike, "a" included: a server that answers in small letters must not lose option A only.

"A" and "I" may also be words. A reply to "answer with a single letter" seldom begins with one, and to leave these
letters out would favour the other options, so they count, with two exceptions in which the likeliest first token is
checked against a short greedy reply: "I" where there are nine or more options, and a letter with which an option's
own text begins as a word ("A farmer"). Where the reply turns out to be a sentence, that token's probability counts as
not read.

Probability on an opening mark alone, as in "(B)", is of no letter yet. It is read only from servers that continue a
given text. An item whose letters have less than half of the probability is undecided: letters that a list of 20
tokens leaves out are then too many to be taken for impossible.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import starmap
from typing import Any, NamedTuple

import numpy as np

from evenhand.interfaces import Array, Choice, Question, Usage
from evenhand.prompting.rendering import LETTERS, parse_choice

MIN_MASS = 0.5
"""Least probability of all option letters together with which an item is decided."""
MAX_TOTAL = 1.01
"""Listed probabilities that add up to more are none (servers may send logits)."""
COLLAPSED = -100.0
"""Where all alternatives are below this log-probability, the server divided by the temperature of 0 first."""
GLUE = str.maketrans({"Ġ": " ", "▁": " ", "Ċ": "\n"})
"""Blanks as byte-level and SentencePiece vocabularies write them; some servers list tokens as they stand there."""

_MARKS = "*_\"'`“‘"
_FORM = re.compile(rf"(?P<before>[(\[{{【「{_MARKS}]*)\s*(?P<letter>[A-Za-z])\s*(?P<after>[)\]}}】」*_\"`”.:;,。、]*)")
_OPENING = re.compile(rf"[(\[{{【「{_MARKS}]+")
_FIRST_WORD = re.compile(r"\W*([A-Za-z])\s+\w")


class Continuation(NamedTuple):
    """An opening mark that letters may follow."""

    text: str = ""
    probability: float = 0.0


@dataclass(frozen=True)
class LetterReading:
    """What is known of the letters of one question."""

    question: Question
    usage: Usage = field(default_factory=Usage)
    by_position: tuple[float, ...] = ()
    """Probability of each letter, all forms added up."""
    opening: Continuation = field(default_factory=Continuation)
    """The likeliest opening mark, as long as what follows it is not read."""
    word: str = ""
    """The letter of the likeliest token where that may be a word."""
    word_probability: float = 0.0
    """Probability of the tokens that are that letter and nothing else."""
    fault: str = ""
    """Why nothing can be read."""
    failed: str = ""
    """Why no reply came."""
    note: str = ""

    @property
    def mass(self) -> float:
        """Probability of all option letters together."""
        return float(sum(self.by_position))

    @property
    def needs_opening(self) -> bool:
        """Whether what follows the opening mark can decide the item."""
        return not self.decided and self.mass + self.opening.probability >= MIN_MASS

    @property
    def needs_reply(self) -> bool:
        """Whether a written reply must show that a letter is not a word."""
        return bool(self.word) and self.decided

    @property
    def decided(self) -> bool:
        """Whether enough of the probability is on letters."""
        return not (self.failed or self.fault) and self.mass >= MIN_MASS

    def continued(self, top: Sequence[Sequence[Any]] | None, usage: Usage) -> LetterReading:
        """Add the letters that follow the opening mark, from the list of tokens there."""
        fault = fault_of(top)
        if fault or top is None:
            return replace(self, usage=self.usage + usage, note=f"after {self.opening.text!r} {fault}")
        after = first_letters(self.question, top, usage).by_position
        both = [p + self.opening.probability * q for p, q in zip(self.by_position, after, strict=True)]
        return replace(self, by_position=tuple(both), opening=Continuation(), usage=self.usage + usage)

    def replied(self, reply: str, finished: bool, usage: Usage) -> LetterReading:
        """Keep the letter that may be a word, or take it out, as the greedy reply has it."""
        at = LETTERS.index(self.word)
        usage = self.usage + usage
        if parse_choice(reply, self.question, finished) == self.question.option_at(at):
            return replace(self, word="", usage=usage)
        left = [max(0.0, p - self.word_probability * (n == at)) for n, p in enumerate(self.by_position)]
        note = f"the first token {self.word!r} is a word in the reply {reply[:40]!r}"
        return replace(self, by_position=tuple(left), word="", usage=usage, note=note)

    def choice(self) -> Choice:
        """The answer, with positions mapped back to identities; ties go to the lowest identity."""
        if self.failed:
            return Choice(None, status="unanswered", usage=self.usage, note=self.failed)
        if self.fault:
            return Choice(None, status="unparsed", usage=self.usage, note=self.fault)
        if not self.decided:
            return Choice(None, status="unparsed", mass=self.mass, usage=self.usage, note=self._undecided())
        options = range(len(self.question.options))
        by_identity: Array = np.array([self.by_position[self.question.position_of(o)] for o in options])
        probabilities = tuple(float(p) for p in by_identity / self.mass)
        return Choice(int(np.argmax(by_identity)), probabilities, mass=self.mass, usage=self.usage, note=self.note)

    def _undecided(self) -> str:
        none = "no option letter is among the most probable first tokens: " if self.mass == 0 else ""
        said = [f"{none}the option letters have a mass of {self.mass:.3g}, less than {MIN_MASS:g}"]
        if self.opening.probability > 0:
            said.append(
                f"{self.opening.probability:.3g} is on an opening {self.opening.text!r}, "
                "and what follows it was not read"
            )
        return "; ".join([*said, *([self.note] if self.note else []), REMEDY])


REMEDY = "use answer_by='generation' (a model that thinks first cannot be read by letters behind a server)"


def fault_of(top: Sequence[Sequence[Any]] | None) -> str:
    """Why a list of [token, log-probability] pairs cannot be read; "" where it can."""
    if top is None:
        return "the server gave no log-probabilities; use answer_by='generation'"
    total = sum(math.exp(min(logprob, 10.0)) for _, logprob in _once(top))
    if total > MAX_TOTAL:
        return (
            f"the probabilities of the server's first tokens add up to {total:.3g}, so they are not log-probabilities; "
            "use answer_by='generation'"
        )
    others = sorted(logprob for _, logprob in _once(top))[:-1]
    if others and others[-1] < COLLAPSED:
        return (
            "the server gave its log-probabilities after dividing by the temperature (0), so that one token has it "
            "all; use answer_by='generation'"
        )
    return ""


def first_letters(question: Question, top: Sequence[Sequence[Any]], usage: Usage) -> LetterReading:
    """Add up the forms of each letter in a list of [token, log-probability] pairs that has no fault."""
    letters: dict[str, float] = defaultdict(float)
    bare: dict[str, float] = defaultdict(float)
    openings: dict[str, float] = defaultdict(float)
    pairs = [(_plain(token), logprob) for token, logprob in _once(top)]
    for text, logprob in pairs:
        probability = math.exp(logprob)
        form = _FORM.fullmatch(text)
        if form is None:
            if _OPENING.fullmatch(text):
                openings[text] += probability
            continue
        letter = form["letter"].upper()
        letters[letter] += probability
        bare[letter] += 0.0 if form["before"] or form["after"] else probability
    shown = LETTERS[: len(question.options)]
    best = max(pairs, key=lambda pair: pair[1])[0].upper()
    word = best if best in shown and len(best) == 1 and _may_be_word(best, question) else ""
    opening = max(starmap(Continuation, openings.items()), key=lambda o: o.probability, default=Continuation())
    by_position = tuple(letters[letter] for letter in shown)
    return LetterReading(question, usage, by_position, opening, word, bare[word] if word else 0.0)


def _may_be_word(letter: str, question: Question) -> bool:
    """Whether a reply that begins with this letter is as likely to begin with a word of one letter."""
    words = [_FIRST_WORD.match(option) for option in question.options]
    return letter == "I" or any(word is not None and word[1].upper() == letter for word in words)


def _plain(token: str) -> str:
    """A token's text without blanks around it, full-width and circled characters as plain ones."""
    return unicodedata.normalize("NFKC", token.translate(GLUE)).strip()


def _once(top: Sequence[Sequence[Any]]) -> list[tuple[str, float]]:
    """The pairs without repetitions: some servers list the chosen token again."""
    return list(dict.fromkeys((str(token), float(logprob)) for token, logprob in top))
