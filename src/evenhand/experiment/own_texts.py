"""Overlap of texts that a method reads by itself with what a benchmark asks, such as prompts of one published set."""

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
"""Words that depend on the next one: a sentence with another noun may have another article in the same place."""
Form = tuple[int, tuple[str, ...]]
"""Which word is left out, and the other words with every article as "a"; -1 with all words as they are."""


def warn_of_overlap(methods: Sequence[Method], asked: Sequence[Asked]) -> None:
    """Warn once per method and benchmark that have texts in common; case, punctuation and blanks do not count.

    Sentences of at least `WHOLE` words are compared one by one, so that a greeting does not hide them, and also with
    any one word left out, so that another noun or descriptor in the same template does not either. At least `WHOLE`
    words have to be left: three, as in "I love Chinese ...", occur by chance.

    The comparison decontaminates its training data, but not what a method reads by itself: there the remedy is to
    split the set.
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
    """Return a method's own texts; none if it cannot read them, as its cell then fails and shows the reason."""
    try:
        return method.own_texts()
    except EvenhandError:
        return ()


def _shared(texts: Sequence[str], said: Iterable[str]) -> list[str]:
    """Return the method's texts that have a sentence in common with what is asked, in their order."""
    known: dict[Form, set[int]] = defaultdict(set)
    for n, text in enumerate(texts):
        for form in _forms(text):
            known[form].add(n)
    found = {n for text in said for form in _forms(text) for n in known.get(form, ())} if known else set()
    return [texts[n] for n in sorted(found)]


def _forms(text: str) -> Iterator[Form]:
    """Yield the whole text, and its long enough sentences, each also with any one word left out if enough are left."""
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
