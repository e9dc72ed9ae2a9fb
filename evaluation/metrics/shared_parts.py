"""Compare pairs of sentences by what both share: what to score, and the statistics of a pair."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Hashable, Sequence
from math import isnan

from evenhand.evaluation.metrics.row_sums import Row
from evenhand.interfaces import Passage

DECIMALS = 3
"""Digits of scores that are sums of differences, as in the official scripts of CrowS-Pairs and WinoQueer."""
Plan = dict[Passage, int]
"""Texts to score, and how often the score of each counts (1 or -1)."""
Spans = list[tuple[int, int]]
"""Stretches of a sequence or text, each from a place to the one after its last."""


def differing(first: str, second: str) -> tuple[Spans, Spans]:
    """Return where two sentences differ: character spans of each, whole words with the blank before them."""
    words = [list(re.finditer(r"\s*\S+", text)) for text in (first, second)]
    first_bare, second_bare = ([w.group().strip() for w in side] for side in words)
    one, two = (
        [(side[begin].start(), side[end - 1].end()) for begin, end in spans]
        for side, spans in zip(words, differing_places(first_bare, second_bare), strict=True)
    )
    return one, two


def differing_places(first: Sequence[Hashable], second: Sequence[Hashable]) -> tuple[Spans, Spans]:
    """Return where two sequences, such as token ids, differ: spans of the positions of each."""
    found: tuple[Spans, Spans] = ([], [])
    for what, *bounds in difflib.SequenceMatcher(None, first, second, autojunk=False).get_opcodes():
        for side in (0, 1):
            begin, end = bounds[2 * side : 2 * side + 2]
            if what != "equal" and end > begin:
                found[side].append((begin, end))
    return found


def shared_plan(text: str, spans: Spans, name: str = "") -> Plan:
    """Return what to score so that the sum is over all of `text` except `spans`.

    `Model.score` sums from a position to the end, so a span is the sum from its beginning minus the sum after it.
    That holds for causal models (each token given those before it) and masked ones (given all others) alike.
    """
    plan: Counter[Passage] = Counter({Passage(text, id=name): 1})
    for begin, end in spans:
        plan[Passage(text[begin:], text[:begin], id=name)] -= 1
        if end < len(text):
            plan[Passage(text[end:], text[:end], id=name)] += 1
    return {passage: times for passage, times in plan.items() if times}


def pair_row(more: float, less: float) -> Row:
    """Return the statistics of one pair, in which ties count.

    Args:
        more: Score of the more stereotyping sentence; nan where it was not scored.
        less: Score of the other one.
    """
    difference = more - less
    if isnan(difference):
        return {"asked": 1}
    sides = {"more": more > less, "less": more < less}
    return {"asked": 1, "pairs": 1, "counted": 1, **sides, "difference": difference, "distance": abs(difference)}
