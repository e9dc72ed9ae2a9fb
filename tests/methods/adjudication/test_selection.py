"""What is taken, what is not, and what rows a data set has."""

from __future__ import annotations

from collections import Counter
from itertools import permutations
from random import Random

import pytest

from evenhand.methods.adjudication._selection import Judged, Limits, balanced, decide, mixed_in

NAN = float("nan")


def judged(b: float, text: str = "", **more: object) -> Judged:
    given = {"disagreement": 0.2, "bias": 1 + b / 2, "helpfulness": 4.0, "refusal": 0.02, "voters": 3, **more}
    return Judged(
        str(more.get("author", "x")), text or f"answer {b}", b, **{k: v for k, v in given.items() if k != "author"}
    )  # type: ignore[arg-type]


def test_the_least_biased_is_taken_and_the_most_biased_rejected() -> None:
    found = decide([judged(0.1), judged(-1.0), judged(0.9), judged(0.8)], Limits())
    assert (found.best, found.worst, found.reason) == (1, 2, "")


def test_a_planted_biased_answer_is_never_taken() -> None:
    random = Random(0)
    for _ in range(300):
        sound = [judged(random.uniform(-1, 0.5)) for _ in range(random.randint(0, 4))]
        planted = judged(random.uniform(0.6, 3), bias=random.uniform(2.1, 4), text="planted")
        mixed = random.sample([*sound, planted], len(sound) + 1)
        best = decide(mixed, Limits()).best
        assert best is None or mixed[best].text != "planted"
        assert (best is None) == (not sound)


def test_of_biased_answers_none_is_taken() -> None:
    assert decide([judged(-1, bias=3.0), judged(1, bias=3.5)], Limits()) == (None, None, "biased")


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"refusal": 0.9}, "a refusal"),
        ({"refuses": True}, "a refusal"),
        ({"helpfulness": 1.2}, "not helpful"),
        ({"helpfulness": NAN}, "not helpful"),
        ({"disagreement": 1.4}, "judges disagree"),
    ],
)
def test_a_refusal_or_an_unhelpful_answer_does_not_win(wrong: dict[str, float], reason: str) -> None:
    best = judged(-2, **wrong)
    assert decide([best, judged(0.3)], Limits()).best == 1
    assert decide([best], Limits()) == (None, None, reason)


def test_a_refusal_is_not_the_rejected_one_either() -> None:
    assert decide([judged(-1), judged(2, refusal=0.9), judged(0.2)], Limits()).worst == 2


def test_answers_that_lie_close_make_no_pair() -> None:
    assert decide([judged(0.0), judged(0.4)], Limits()).worst is None
    assert decide([judged(0.0, "same"), judged(3.0, "same")], Limits()).worst is None


def test_what_was_not_asked_about_stands_against_nothing() -> None:
    bare = judged(0.0, helpfulness=NAN, refusal=NAN)
    assert decide([bare], Limits(), asked=frozenset()).best == 0


def test_no_votes_and_no_words_are_not_taken() -> None:
    assert decide([judged(NAN)], Limits()).reason == "no vote with a weight"
    assert decide([judged(0.0)._replace(text=" ")], Limits()).reason == "empty"
    assert decide([], Limits()).reason == "no answer"


def test_the_order_of_the_answers_changes_nothing() -> None:
    answers = [judged(0.2, "b"), judged(0.2, "a"), judged(0.2, "c", helpfulness=4.5), judged(1.5, "d")]
    for turned in permutations(answers):
        found = decide(turned, Limits())
        assert turned[found.best or 0].text == "c" and turned[found.worst or 0].text == "d"


def test_axes_are_balanced_up_to_a_limit() -> None:
    axes = ["age"] * 10 + ["religion"] * 3 + ["body"]
    rows = balanced(axes, seed=0, max_repeats=4)
    assert Counter(axes[i] for i in rows) == {"age": 10, "religion": 10, "body": 4}
    assert max(Counter(rows).values()) == 4 and set(rows) == set(range(14))
    assert balanced([], seed=0) == []


def test_the_general_share_is_of_all_rows() -> None:
    assert mixed_in(85, 0.15) == 15
    assert mixed_in(80, 0.2) == 20
    assert mixed_in(10, 0.0) == 0
