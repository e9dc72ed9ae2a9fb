"""Benchmarks that read scores say why a text has none: too long is one reason, logits that are not finite another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest

from evenhand.core.registry import build_benchmark
from evenhand.evaluation.metrics.unanswered import gap
from evenhand.inference.requests import NOT_FINITE
from evenhand.interfaces import Model, Passage, Score
from evenhand.testing import ScriptedModel

LONG = "needs 4096 tokens, the context holds 1024"


class Scoring(ScriptedModel):
    """Scores a text by its length, and some not at all."""

    def __init__(self, note: str, every: int = 1, value: float = math.nan) -> None:
        super().__init__(abilities=frozenset({"score"}))
        self.note, self.every, self.value = note, every, value

    def score(self, passages: Sequence[Passage]) -> list[Score]:
        lost = Score(self.value, 0 if math.isnan(self.value) else 1, self.note)
        return [lost if n % self.every == 0 else Score(-float(len(p.continuation)), 2) for n, p in enumerate(passages)]


def asked(spec: str, model: Model) -> tuple[list[Any], list[Any]]:
    benchmark = build_benchmark(spec)
    items = benchmark.load()[:3]
    return items, list(benchmark.ask(model, items))


SPECS = [
    "mmlu(source=demo,reading=score)",
    "perplexity(source=demo)",
    "holistic_bias(source=demo)",
    "pronoun_skew(source=demo)",
    "crows_pairs(source=demo)",
    "stereoset(source=demo)",
    "winobias(source=demo)",
    "winogender(source=demo)",
    "redditbias(source=demo)",
    "winoqueer(source=demo,scoring=shared_words)",
    "discrim_eval(source=demo)",
    "unqover(source=demo,reading=score)",
]


@pytest.mark.parametrize("note", [NOT_FINITE, LONG])
@pytest.mark.parametrize("spec", SPECS)
def test_the_reason_is_the_score_s_own(spec: str, note: str) -> None:
    items, answers = asked(spec, Scoring(note))
    found = gap(items, answers)
    assert found is not None and found.items == len(items) and found.first.endswith(note), found


@pytest.mark.parametrize("spec", ["mmlu(source=demo,reading=score)"])
def test_one_impossible_letter_is_legal_and_four_are_no_answer(spec: str) -> None:
    _, one = asked(spec, Scoring("", every=4, value=-math.inf))
    assert all(c.status == "answered" and c.probabilities[0] == 0 and c.decision != 0 for c in one)
    _, four = asked(spec, Scoring("", value=-math.inf))
    assert all(c.decision is None and c.status == "unanswered" and "probability 0" in c.note for c in four)


def test_labels_that_have_no_score_say_why() -> None:
    from evenhand.evaluation.label_bias import _choice

    assert _choice([-1.0, math.nan], NOT_FINITE).note == NOT_FINITE
    assert _choice([-1.0, -math.inf], "").decision == 0
    assert _choice([-math.inf, -math.inf], "").status == "unanswered"
