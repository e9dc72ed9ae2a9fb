"""`permutation`: what is asked, what comes out, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from evenhand import load
from evenhand.errors import ContextTooLongError, SettingsError
from evenhand.interfaces import Ability, Choice, Model, Question, Usage
from evenhand.methods.permutation.permutation import Permutation
from evenhand.testing import ScriptedModel, check_method, questions, tiny_model

PREFERENCE = (0.7, 0.2, 0.1)
CONTENT = (0.3, 0.5, 0.2)
RED = Question("red", "Which?", ("red", "blue", "green"))


class Planted(Model):
    """Answers with p(position) ~ preference[position] * content[option], and counts what it was asked."""

    name = "planted"
    fingerprint = "planted"

    def __init__(self, preference: Sequence[float] = PREFERENCE, content: Sequence[float] = CONTENT) -> None:
        self.preference, self.content = preference, content
        self.calls: list[list[Question]] = []

    @property
    def abilities(self) -> frozenset[Ability]:
        return frozenset({"choose"})

    def choose(self, questions: Sequence[Question]) -> list[Choice]:
        self.calls.append(list(questions))
        return [self._answer(q) for q in questions]

    def _answer(self, question: Question) -> Choice:
        by_option = np.zeros(len(question.options))
        for position, option in enumerate(question.order):
            by_option[option] = self.preference[position] * self.content[option]
        by_option /= by_option.sum()
        return Choice(int(by_option.argmax()), tuple(by_option.tolist()), usage=Usage(1, 10))

    def save(self, folder: Any) -> Any:
        raise NotImplementedError


def ask(model: Model, method: Permutation, *asked: Question) -> list[Choice]:
    return method.apply(model).choose(asked or (RED,))


def test_all_orders_of_all_questions_are_one_call() -> None:
    model = Planted()
    ask(model, Permutation(), RED, replace(RED, id="two", options=("a", "b")))
    (asked,) = model.calls
    assert [q.id for q in asked] == ["red"] * 6 + ["two"] * 2
    assert len({q.order for q in asked[:6]}) == 6


def test_the_preferred_letter_no_longer_decides() -> None:
    raw = Planted().choose([RED])[0]
    assert raw.decision == 0
    (answer,) = ask(Planted(), Permutation(mean="geometric"))
    assert answer.decision == 1
    assert answer.probabilities == pytest.approx(CONTENT)
    assert answer.usage == Usage(6, 60)
    (paper,) = ask(Planted(), Permutation.build(preset="paper"))
    assert paper.decision == 1
    assert paper.probabilities != pytest.approx(CONTENT, abs=0.01)  # the arithmetic mean keeps the argmax only


def test_the_shown_order_makes_no_difference() -> None:
    answers = [ask(Planted(), Permutation(), RED.reordered(order))[0] for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0))]
    for answer in answers[1:]:
        assert answer.decision == answers[0].decision
        assert answer.probabilities == pytest.approx(answers[0].probabilities)


@pytest.mark.parametrize("k", range(2, 11))
def test_two_to_ten_options(k: int) -> None:
    rng = np.random.default_rng(k)
    preference, content = rng.random(k) + 0.01, rng.random(k) + 0.01
    model = Planted(preference.tolist(), content.tolist())
    question = Question("k", "Which?", tuple(f"option {n}" for n in range(k)))
    (answer,) = ask(model, Permutation(mean="geometric"), question)
    assert answer.probabilities == pytest.approx((content / content.sum()).tolist())
    assert answer.usage.calls == (2, 6)[k - 2] if k < 4 else k


def test_a_black_box_is_asked_in_drawn_orders_and_converges() -> None:
    errors = []
    exact = ask(Planted(), Permutation(orders="full"))[0].probabilities or ()
    for draws in (32, 512):
        asked = [replace(RED, id=f"{n}") for n in range(40)]
        answers = ask(Planted(), Permutation(decisions="sampled", draws=draws), *asked)
        assert answers[0].usage.calls == draws
        errors.append(np.mean([np.square(np.subtract(a.probabilities or (), exact)).sum() for a in answers]))
    assert 8 < errors[0] / errors[1] < 32  # 16 times the draws: a sixteenth of the variance


def test_decisions_alone_are_counted() -> None:
    model = ScriptedModel(decide=lambda q: q.order[0])  # always the first position
    with pytest.warns(UserWarning, match="all 300 draws from 6 prompts"):  # its draws of one order are all the same
        answers = ask(model, Permutation(decisions="sampled", draws=300))
    assert np.allclose(answers[0].probabilities or (), 1 / 3, atol=0.1)
    sampling = model.questions[0].sampling
    assert sampling is not None
    assert sampling.temperature == 1.0
    with pytest.raises(SettingsError, match="decisions=sampled"):
        ask(model, Permutation())


@pytest.mark.filterwarnings("ignore:all 60 draws")  # by rule: those of one order are all the same
def test_what_cannot_be_read_is_left_out_and_said() -> None:
    def decide(question: Question) -> int | None:
        return None if question.order[0] == 0 else question.order[0]

    (answer,) = ask(ScriptedModel(decide=decide), Permutation(decisions="sampled", draws=60))
    assert (answer.probabilities or (1,))[0] == 0.0
    assert "could not be read" in answer.note
    (never,) = ask(ScriptedModel(decide=lambda q: None), Permutation(decisions="sampled", draws=4))
    assert (never.status, never.decision) == ("unparsed", None)


def test_ties_go_to_the_lowest_identity_whatever_is_shown() -> None:
    blind = Planted((1, 1, 1), (0.4, 0.4, 0.2))
    for order in ((0, 1, 2), (1, 0, 2), (2, 1, 0)):
        assert ask(blind, Permutation(), RED.reordered(order))[0].decision == 0


def test_options_that_speak_of_positions_keep_theirs() -> None:
    model = Planted()
    (answer,) = ask(model, Permutation(), replace(RED, options=("red", "blue", "All of the above")))
    assert {q.order for q in model.calls[0]} == {(0, 1, 2), (1, 0, 2)}
    assert "stay where they are: C" in answer.note


def test_an_item_longer_than_the_context_is_named_or_left_unanswered() -> None:
    long = replace(RED, context="dog " * 2000)
    with pytest.raises(ContextTooLongError, match="red"):
        ask(tiny_model(), Permutation(), long)
    answers = ask(tiny_model(too_long="skip"), Permutation(), long, replace(RED, id="short"))
    assert [a.status for a in answers] == ["unanswered", "answered"]
    assert "context" in answers[0].note


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"draws": 0}, "at least 1"),
        ({"decisions": "sampled", "orders": "full"}, "leave orders=full out"),
        ({"decisions": "sampled", "mean": "geometric"}, "leave mean=geometric out"),
        ({"orders": "some"}, "some"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Permutation.build(**settings)


@pytest.mark.parametrize("spec", [{}, {"preset": "paper"}, {"preset": "paper_black_box"}, {"mean": "geometric"}])
def test_the_contract(spec: dict[str, Any]) -> None:
    check_method(Permutation.build(**spec))


def test_multi_token_letters_and_texts_and_replies() -> None:
    for way in ("letters", "text", "generation"):
        model = tiny_model(answer_by=way)
        method = Permutation(decisions="sampled", draws=4) if way == "generation" else Permutation()
        assert len(method.apply(model).choose(questions())) == len(questions())


def test_on_the_demo_the_oracle_and_the_model_agree() -> None:
    from evenhand.evaluation.gpqa import GPQA

    bench = GPQA(source="demo")
    items = bench.load()
    accuracy: dict[tuple[str, str], float] = {}
    for name in ("demo", "oracle:demo"):
        model = load(name)
        for label, asked in (("raw", model), ("debiased", Permutation().apply(model))):
            answers = bench.ask(asked, items)
            right = [a.decision == i.right for a, i in zip(answers, items, strict=True)]
            accuracy[name, label] = float(np.mean(right))
        assert accuracy[name, "debiased"] - accuracy[name, "raw"] > 0.1
    assert accuracy["demo", "debiased"] == pytest.approx(accuracy["oracle:demo", "debiased"], abs=0.06)
