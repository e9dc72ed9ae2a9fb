"""Option letters among the first tokens that a server lists, and how much of their probability stays unread.

A server shows the texts of its most probable first tokens, not its vocabulary, so every token that can only be a
letter counts for it: "B", " b", "B.", "(B)", "**B", a full-width B. Capitals and small letters of all options count
alike, "a" included: a server that answers in small letters must not lose option A only.

"A" and "I" may also be words. A reply to "answer with a single letter" seldom begins with one, and leaving these
letters out would favour the other options, so they count, with two exceptions in which the likeliest first token is
checked against a short greedy reply: "I" if there are nine or more options, and a letter with which an option's
own text begins as a word ("A farmer"). If the reply turns out to be a sentence, that token's probability counts as
not read.

Probability on an opening mark alone, as in "(B)", belongs to no letter yet. It is read only if the server continues a
given text. An item whose letters have less than half of the probability is undecided: the letters that a list of 20
tokens leaves out then have too much probability to be ignored.

A form of a letter that is not listed is no more probable than the least probable listed token, and everything that is
not listed together has what the list leaves of 1. A letter is assumed to have all forms in which the list has a letter
of the question. That bounds the probability that was not read, and an answer's note says if it leaves the decision, or
more than a hundredth of the options' probability, open.
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
"""Minimum total probability of the option letters for an item to be decided."""
MAX_OPEN = 0.01
"""Maximum share of the options' probability that may stay unread without a note."""
MAX_TOTAL = 1.01
"""Maximum sum of listed probabilities; if it is larger, they are not probabilities (servers may send logits)."""
ROUNDING = 1e-6
"""Tolerance of sums of rounded probabilities."""
COLLAPSED = -100.0
"""If all alternatives are below this log-probability, the server divided by the temperature of 0 first."""
SAME = 0.01
"""Entries with one text whose log-probabilities differ by less than this are one token listed twice."""
GLUE = str.maketrans({"Ġ": " ", "▁": " ", "Ċ": "\n"})
"""Blanks as byte-level and SentencePiece vocabularies write them; some servers list tokens in that form."""

_MARKS = "*_\"'`“‘"
_FORM = re.compile(rf"(?P<before>[(\[{{【「{_MARKS}]*)\s*(?P<letter>[A-Za-z])\s*(?P<after>[)\]}}】」*_\"`”.:;,。、]*)")
_OPENING = re.compile(rf"[(\[{{【「{_MARKS}]+")
_FIRST_WORD = re.compile(r"\W*([A-Za-z])\s+\w")


class Continuation(NamedTuple):
    """An opening mark after which letters may follow."""

    text: str = ""
    probability: float = 0.0


@dataclass(frozen=True)
class LetterReading:
    """What is known about the letters of one question."""

    question: Question
    usage: Usage = field(default_factory=Usage)
    by_position: tuple[float, ...] = ()
    """Probability of each letter, summed over all forms."""
    bounds: tuple[float, ...] = ()
    """Upper bound of each letter's probability in forms that are not listed."""
    unlisted: float = 0.0
    """Upper bound of the total probability of all letters in forms that are not listed."""
    opened: float = 0.0
    """Probability of all opening marks after which nothing was read."""
    opening: Continuation = field(default_factory=Continuation)
    """Likeliest opening mark, until what follows it is read."""
    word: str = ""
    """Letter of the likeliest token if it may be a word, else ""."""
    word_probability: float = 0.0
    """Probability of the tokens that consist of that letter alone."""
    fault: str = ""
    """Reason why nothing can be read, or ""."""
    failed: str = ""
    """Reason why there was no reply, or ""."""
    note: str = ""

    @property
    def mass(self) -> float:
        """Total probability of the option letters."""
        return float(sum(self.by_position))

    @property
    def open_share(self) -> float:
        """Upper bound of the unread share of the options' probability; 0 if every letter was read."""
        unread = self.unlisted + self.opened
        return unread / (self.mass + unread) if unread > 0 else 0.0

    @property
    def may_be_another(self) -> bool:
        """Whether an option other than the one read as likeliest may be the likeliest."""
        best = max(self.by_position)
        at = self.by_position.index(best)
        others = [p + b for n, (p, b) in enumerate(zip(self.by_position, self.bounds, strict=True)) if n != at]
        return max(others, default=0.0) + self.opened > best

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
        """Whether the letters have enough of the probability."""
        return not (self.failed or self.fault) and self.mass >= MIN_MASS

    def continued(self, top: Sequence[Sequence[Any]] | None, usage: Usage) -> LetterReading:
        """Add the letters that follow the opening mark, from the list of tokens there."""
        fault = fault_of(top)
        if fault or top is None:
            return replace(self, usage=self.usage + usage, note=f"after {self.opening.text!r} {fault}")
        after, share = first_letters(self.question, top, usage), self.opening.probability
        return replace(
            self,
            by_position=_sums(self.by_position, after.by_position, share),
            bounds=_sums(self.bounds, after.bounds, share),
            unlisted=self.unlisted + share * after.unlisted,
            opened=max(0.0, self.opened - share + share * after.opened),
            opening=Continuation(),
            usage=self.usage + usage,
        )

    def replied(self, reply: str, finished: bool, usage: Usage) -> LetterReading:
        """Keep the letter that may be a word, or remove it, depending on the greedy reply."""
        at = LETTERS.index(self.word)
        usage = self.usage + usage
        if parse_choice(reply, self.question, finished) == self.question.option_at(at):
            return replace(self, word="", usage=usage)
        left = [max(0.0, p - self.word_probability * (n == at)) for n, p in enumerate(self.by_position)]
        note = f"the first token {self.word!r} is a word in the reply {reply[:40]!r}"
        return replace(self, by_position=tuple(left), word="", usage=usage, note=note)

    def choice(self) -> Choice:
        """Return the answer, with positions mapped back to identities; ties go to the lowest identity."""
        if self.failed:
            return Choice(None, status="unanswered", usage=self.usage, note=self.failed)
        if self.fault:
            return Choice(None, status="unparsed", usage=self.usage, note=self.fault)
        if not self.decided:
            return Choice(None, status="unparsed", mass=self.mass, usage=self.usage, note=self._undecided())
        options = range(len(self.question.options))
        by_identity: Array = np.array([self.by_position[self.question.position_of(o)] for o in options])
        return Choice(
            int(np.argmax(by_identity)),
            tuple(float(p) for p in by_identity / self.mass),
            mass=self.mass,
            usage=self.usage,
            note="; ".join(said for said in (self.note, self._open()) if said),
            unread=self.open_share or None,
        )

    def _open(self) -> str:
        """Return a note on an answer if the list leaves out too much, else ""."""
        if self.may_be_another:
            return (
                f"another option may be the likeliest: what the server's list of first tokens leaves out has up to "
                f"{self.open_share:.3g} of the options' probability"
            )
        if self.open_share <= MAX_OPEN:
            return ""
        return f"up to {self.open_share:.3g} of the options' probability was not read: the server's list leaves it out"

    def _undecided(self) -> str:
        none = "no option letter is among the most probable first tokens: " if self.mass == 0 else ""
        said = [f"{none}the option letters have a mass of {self.mass:.3g}, less than {MIN_MASS:g}"]
        if self.opening.probability > 0:
            said.append(
                f"{self.opening.probability:.3g} is on an opening {self.opening.text!r}, "
                "and what follows it was not read"
            )
        return "; ".join([*said, *([self.note] if self.note else []), REMEDY])


REMEDY = "use answer_by='generation' (a model that thinks first cannot be read by letters through a server)"


def fault_of(top: Sequence[Sequence[Any]] | None) -> str:
    """Return why a list of [token, log-probability] pairs cannot be read; "" if it can."""
    if top is None:
        return "the server gave no log-probabilities; use answer_by='generation'"
    total = sum(math.exp(min(logprob, 10.0)) for _, logprob in _once(top))
    if total > MAX_TOTAL:
        return (
            f"the probabilities of the server's first tokens add up to {total:.3g}, so they are not log-probabilities; "
            "use answer_by='generation'"
        )
    *others, best = sorted(logprob for _, logprob in _once(top))
    if not others and best >= -ROUNDING:
        return (
            "the server lists a single first token with all of the probability, which says nothing about the other "
            "letters; use answer_by='generation'"
        )
    if others and others[-1] < COLLAPSED:
        return (
            "the server divided by the temperature (0) before computing log-probabilities, so that one token has "
            "all probability; use answer_by='generation'"
        )
    return ""


def first_letters(question: Question, top: Sequence[Sequence[Any]], usage: Usage) -> LetterReading:
    """Add up the forms of each letter in a list of [token, log-probability] pairs that `fault_of` accepts."""
    shown = LETTERS[: len(question.options)]
    letters, bare, openings = (defaultdict[str, float](float) for _ in range(3))
    forms: dict[str, set[str]] = defaultdict(set)
    pairs = _once(top)
    for token, logprob in pairs:
        text, probability = _plain(token), math.exp(logprob)
        form = _FORM.fullmatch(text)
        if form is None:
            if _OPENING.fullmatch(text):
                openings[text] += probability
            continue
        letter = form["letter"].upper()
        letters[letter] += probability
        bare[letter] += 0.0 if form["before"] or form["after"] else probability
        forms[letter].add(_form(token, form["letter"]))
    bounds = _bounds([forms[letter] for letter in shown], [math.exp(logprob) for _, logprob in pairs])
    best = _plain(max(pairs, key=lambda pair: pair[1])[0]).upper()
    word = best if best in shown and len(best) == 1 and _may_be_word(best, question) else ""
    return LetterReading(
        question,
        usage,
        tuple(letters[letter] for letter in shown),
        bounds,
        min(sum(bounds), _rest([math.exp(logprob) for _, logprob in pairs])),
        sum(openings.values()),
        max(starmap(Continuation, openings.items()), key=lambda o: o.probability, default=Continuation()),
        word,
        bare[word] if word else 0.0,
    )


def _form(token: str, letter: str) -> str:
    """Return the form in which a token has its letter, regardless of the letter: blanks, marks, case and width."""
    width = "" if token.translate(GLUE).isascii() else "wide "
    return width + unicodedata.normalize("NFKC", token.translate(GLUE)).replace(
        letter, "a" if letter.islower() else "A"
    )


def _bounds(forms: Sequence[set[str]], listed: Sequence[float]) -> tuple[float, ...]:
    """Bound the probability of each letter in forms that only other letters have in the list."""
    seen = set[str]().union(*forms)
    return tuple(min(_rest(listed), len(seen - own) * min(listed)) for own in forms)


def _rest(listed: Sequence[float]) -> float:
    """Return the probability that the list leaves out; rounding errors count as 0."""
    rest = 1.0 - sum(listed)
    return rest if rest > ROUNDING else 0.0


def _sums(first: Sequence[float], second: Sequence[float], share: float) -> tuple[float, ...]:
    """Add to probabilities of letters those after an opening mark, which has a share of the probability."""
    return tuple(p + share * q for p, q in zip(first, second, strict=True))


def _may_be_word(letter: str, question: Question) -> bool:
    """Whether a reply that begins with this letter may as well begin with a word of one letter."""
    words = [_FIRST_WORD.match(option) for option in question.options]
    return letter == "I" or any(word is not None and word[1].upper() == letter for word in words)


def _plain(token: str) -> str:
    """Return a token's text, stripped, with full-width and circled characters as plain ones."""
    return unicodedata.normalize("NFKC", token.translate(GLUE)).strip()


def _once(top: Sequence[Sequence[Any]]) -> list[tuple[str, float]]:
    """Return the pairs without duplicates: some servers list the chosen token again, rounded differently.

    Tokens with the same text but different probabilities are different tokens.
    """
    found: list[tuple[str, float]] = []
    for token, logprob in top:
        same = [known for text, known in found if text == str(token)]
        if not any(known == logprob or abs(known - logprob) < SAME for known in same):
            found.append((str(token), float(logprob)))
    return found
