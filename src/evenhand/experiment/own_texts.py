"""Whether a method learns by itself from what a benchmark asks, such as prompts of the same published set."""

from __future__ import annotations

import re
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from evenhand.errors import EvenhandError
from evenhand.experiment.decontamination import WHOLE, sentences_of, words_of
from evenhand.experiment.plan import Asked
from evenhand.interfaces import Method

ARTICLES = ("a", "an")
"""Words that follow from the word after them: a sentence with another noun may have another one, in the same place."""
Form = tuple[int, tuple[str, ...]]
"""The words of a sentence without one of them, every article as "a", and which one; -1 with all words as they are."""


def warn_of_overlap(methods: Sequence[Method], asked: Sequence[Asked]) -> None:
    """One warning per method and benchmark that have texts in common; case, punctuation and blanks do not count.

    Sentences of at least `WHOLE` words are compared one by one, so that a greeting makes no other text, and also with
    any one word left out, so that another noun or descriptor in the same template makes none either. So many words
    have to be left: three, as in "I love Chinese ...", occur by chance.

    Training data is decontaminated, as the comparison has it in hand. What a method reads by itself is its own, so the
    remedy is to split the set.
    """
    own = {method.spec: _own(method) for method in methods}
    if not any(own.values()):
        return
    for benchmark, items in asked:
        said = dict.fromkeys(text for item in items for text in sentences_of(item))
        for spec, texts in own.items():
            if shared := _shared(texts, said):
                warnings.warn(
                    f"{spec} learns from {len(shared):,} of its {len(texts):,} texts that {benchmark.spec} asks, word "
                    f"for word or with one other word, such as {shared[0]!r}: split the set, as with part=fit of the "
                    "method and part=test of the benchmark",
                    UserWarning,
                    stacklevel=4,
                )


def _own(method: Method) -> Sequence[str]:
    """The method's own texts; one that cannot read them fails by itself, in its cell, where the reason is shown."""
    try:
        return method.own_texts()
    except EvenhandError:
        return ()


def _shared(texts: Sequence[str], said: Iterable[str]) -> list[str]:
    """Those of a method's texts that have a sentence in common with what is asked, in their order."""
    known: dict[Form, set[int]] = defaultdict(set)
    for n, text in enumerate(texts):
        for form in _forms(text):
            known[form].add(n)
    found = {n for text in said for form in _forms(text) for n in known.get(form, ())} if known else set()
    return [texts[n] for n in sorted(found)]


def _forms(text: str) -> Iterator[Form]:
    """The whole text, and its sentences of enough words, each also with any one word left out where enough are left."""
    whole = words_of(text)
    if whole:
        yield -1, whole
    for sentence in re.split(r"[.!?]+(?:\s|$)", text):
        words = words_of(sentence)
        if len(words) < WHOLE:
            continue
        yield -1, words
        alike = tuple(ARTICLES[0] if word in ARTICLES else word for word in words)
        free = [place for place, word in enumerate(alike) if word not in ARTICLES]
        if len(free) > WHOLE:
            yield from ((place, (*alike[:place], *alike[place + 1 :])) for place in free)
