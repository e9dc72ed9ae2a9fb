"""Group contrasts that stay together when some are held out: those whose texts were written from one template.

Benchmarks vary a template: names, an adverb, the question asked about it. BBQ's 141 ambiguous templates become 1,489
different texts once options are blanked out. Such texts still share runs of words, which texts of other templates do
not. Runs that most texts share belong to the instruction.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

RUNS = (6, 8, 13)
"""Numbers of consecutive words that make two texts one family; the smallest that leaves something to divide is used.
With 6, every template of BBQ stays whole."""
COMMON = 0.5
"""Share of the texts above which a run counts as part of the instruction."""
LARGEST = 0.5
"""Maximum share of the contrasts in one family; otherwise runs are too short to separate families."""


def families(texts: Sequence[str]) -> list[str]:
    """Return a name per text, equal within a family; each text's own if no run separates families."""
    unique = sorted({*texts})
    for length in RUNS:
        root = _joined(unique, length)
        counts = Counter(root[text] for text in texts)
        if max(counts.values(), default=0) <= LARGEST * len(texts):
            return [root[text] for text in texts]
    return list(texts)


def _joined(unique: Sequence[str], length: int) -> dict[str, str]:
    """Return for each text the first text with which it shares runs of words, directly or through others."""
    runs = {text: _runs(text, length) for text in unique}
    common = Counter(run for some in runs.values() for run in some)
    parent = {text: text for text in unique}
    first: dict[tuple[str, ...], str] = {}

    def root(text: str) -> str:
        while parent[text] != text:
            parent[text] = text = parent[parent[text]]
        return text

    for text in unique:
        for run in runs[text]:
            if common[run] <= COMMON * len(unique):
                one, other = sorted((root(text), root(first.setdefault(run, text))))
                parent[other] = one
    return {text: root(text) for text in unique}


def _runs(text: str, length: int) -> set[tuple[str, ...]]:
    words = re.findall(r"[^\W_]+|_", text.casefold())
    return {tuple(words[n : n + length]) for n in range(len(words) - length + 1)}
