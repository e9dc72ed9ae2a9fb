"""Whether a method learns by itself from what a benchmark asks, such as prompts of the same published set."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from evenhand.errors import EvenhandError
from evenhand.experiment.decontamination import sentences_of, words_of
from evenhand.experiment.plan import Asked
from evenhand.interfaces import Method


def warn_of_overlap(methods: Sequence[Method], asked: Sequence[Asked]) -> None:
    """One warning per method and benchmark that have texts in common; case, punctuation and blanks do not count.

    Training data is decontaminated, as the comparison has it in hand. What a method reads by itself is its own, so the
    remedy is to split the set.
    """
    own = {method.spec: _own(method) for method in methods}
    if not any(own.values()):
        return
    for benchmark, items in asked:
        said = {words_of(text) for item in items for text in sentences_of(item)}
        for spec, texts in own.items():
            if shared := [text for text in texts if words_of(text) in said]:
                warnings.warn(
                    f"{spec} learns from {len(shared):,} of its {len(texts):,} texts that {benchmark.spec} asks, such "
                    f"as {shared[0]!r}: split the set, as with part=fit of the method and part=test of the benchmark",
                    UserWarning,
                    stacklevel=4,
                )


def _own(method: Method) -> Sequence[str]:
    """The method's own texts; one that cannot read them fails by itself, in its cell, where the reason is shown."""
    try:
        return method.own_texts()
    except EvenhandError:
        return ()
