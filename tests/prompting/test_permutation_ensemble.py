"""The debiased teacher against hand-made distributions: white-box means, black-box counts, and what goes wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import factorial

import numpy as np
import pytest

from evenhand.errors import SettingsError
from evenhand.interfaces import Choice, Message, Question, Sampling, Usage
from evenhand.prompting.permutation_ensemble import Debiased, debiased, drawn
from evenhand.prompting.rendering import as_dialogue
from evenhand.testing import ScriptedModel

TEXTS = ("one", "two", "three", "four", "five")


def question(name: str = "q", options: int = 3, **more: object) -> Question:
    return Question(name, "Which?", TEXTS[:options], **more)  # type: ignore[arg-type]


class Factorised(ScriptedModel):
    """P(position) is proportional to prior[position] * d[option]: a letter preference on top of an opinion."""

    def __init__(self, prior: Sequence[float], d: Sequence[float], tells: bool = True) -> None:
        super().__init__()
        self.prior, self.d, self.tells, self.calls = prior, d, tells, 0

    def choose(self, questions: Sequence[Question]) -> list[Choice]:
        self.calls += 1
        self.questions += questions
        return [self._one(q) for q in questions]

    def _one(self, q: Question) -> Choice:
        raw = np.zeros(len(q.options))
        for position, option in enumerate(q.order):
            raw[option] = self.prior[position] * self.d[option]
        p = raw / raw.sum()
        if self.tells:
            return Choice(int(p.argmax()), tuple(map(float, p)), mass=0.5, usage=Usage(1, 10))
        rng = np.random.default_rng([q.draw, *q.order])
        return Choice(int(rng.choice(len(p), p=p)), usage=Usage(1, 10))


class Answers(ScriptedModel):
    """Answers by a function of the question."""

    def __init__(self, answer: Callable[[Question], Choice]) -> None:
        super().__init__()
        self.answer = answer

    def choose(self, questions: Sequence[Question]) -> list[Choice]:
        self.questions += questions
        return [self.answer(q) for q in questions]


PRIOR, D = (0.6, 0.25, 0.1, 0.05), (0.2, 0.5, 0.05, 0.25)


# --------------------------------------------------------------------------------------------------- white box


def test_the_geometric_mean_recovers_the_opinion_under_a_letter_preference() -> None:
    model = Factorised(PRIOR, D)
    taught = debiased(model, [question(options=4), question("r", 4)])
    assert model.calls == 1 and len(model.questions) == 8, "all orders of all questions in one call, cyclic with four"
    for t in taught:
        assert t.probabilities == pytest.approx(D, abs=1e-6) and t.decision == 1
        assert t.usage == Usage(4, 40) and t.status == "answered" and t.note == "" and t.mass == 0.5


def test_three_options_are_asked_in_all_orders_by_default() -> None:
    model = Factorised((0.7, 0.2, 0.1), (0.3, 0.45, 0.25))
    t = debiased(model, [question()])[0]
    assert len(set(t.orders)) == 6
    expected = np.zeros(3)
    for order in t.orders:  # by hand, over the positions
        raw = [model.prior[j] * model.d[o] for j, o in enumerate(order)]
        for j, o in enumerate(order):
            expected[o] += raw[j] / sum(raw) / 6
    assert t.probabilities == pytest.approx(expected)
    for order, p, decision in zip(t.orders, t.distributions, t.decisions, strict=True):
        assert p is not None and decision == int(np.argmax(p))
        raw = [model.prior[order.index(o)] * model.d[o] for o in range(3)]
        assert p == pytest.approx(np.array(raw) / sum(raw)), "by identity, not by position"


def test_an_asymmetric_cycle_is_mapped_back_by_the_inverse() -> None:
    """A model that sees only positions 0 and 1, unequally: an order confused with its inverse shows with K = 3."""
    t = debiased(Factorised((0.9, 0.1, 0.0), (1, 1, 1)), [question(shown=(1, 2, 0))], orders="cyclic")[0]
    assert t.orders[0] == (1, 2, 0) and t.distributions[0] == pytest.approx((0.0, 0.9, 0.1))
    arithmetic = debiased(Factorised((0.9, 0.1, 0.0), (1, 1, 1)), [question()], orders="cyclic", mean="arithmetic")[0]
    assert arithmetic.probabilities == pytest.approx([1 / 3] * 3), "a model of positions only becomes uniform"


@pytest.mark.parametrize("orders", ["full", "cyclic", "sampled"])
def test_a_model_that_order_does_not_touch_is_left_as_it_is(orders: str) -> None:
    t = debiased(Factorised((1, 1, 1, 1), D), [question(options=4)], orders=orders)[0]  # type: ignore[arg-type]
    assert t.probabilities == pytest.approx(D, abs=1e-9)
    assert len(t.orders) == {"full": factorial(4), "cyclic": 4, "sampled": 32}[orders]


def test_positional_options_keep_their_place_and_it_is_noted() -> None:
    q = Question("q", "Which?", ("one", "two", "three", "all of the above"))
    t = debiased(Factorised(PRIOR, (1, 1, 1, 1)), [q])[0]
    assert len(t.orders) == 6 and all(order[3] == 3 for order in t.orders), "three options move, so all orders"
    assert "stay where they are: D" in t.note and t.choice.note == t.note


def test_as_an_answer_it_sums_up_every_order() -> None:
    t = debiased(Factorised(PRIOR, D), [question(options=4)])[0]
    assert t.choice == Choice(1, t.probabilities, mass=0.5, usage=Usage(4, 40), before=t.before)


def test_the_record_has_the_first_prompt_that_was_asked_and_says_so() -> None:
    model = Factorised(PRIOR, D)
    (t,) = debiased(model, [question(options=4, shown=(2, 0, 3, 1))])
    first, mark = t.before
    assert first.content == as_dialogue(model.questions[0], "letters").messages[0].content
    assert mark == Message("system", "[the first of 4 orders that were asked; not shown to the model]")
    inner = (Message("user", "As a method below put it."),)
    (told,) = debiased(Answers(lambda q: Choice(0, (0.6, 0.4), before=inner)), [question(options=2)])
    assert told.before[:-1] == inner and "2 orders" in told.before[-1].content


# --------------------------------------------------------------------------------------------------- black box


def test_counts_come_from_decisions_where_the_model_tells_nothing_else() -> None:
    model = Factorised((0.5, 0.3, 0.2), (1, 1, 1), tells=False)
    t = debiased(model, [question(), question("r")], decisions="sampled", draws=40)[0]
    assert model.calls == 1 and len(model.questions) == 80
    counts = np.bincount([d for d in t.decisions if d is not None], minlength=3)
    assert t.probabilities == pytest.approx(counts / 40) and t.distributions == (None,) * 40
    asked = model.questions[:40]
    assert [q.draw for q in asked] == list(range(40)), "every draw is a sample of its own"
    assert {q.sampling for q in asked} == {Sampling(temperature=1.0, max_new_tokens=64)}
    assert {q.order for q in asked} == set(t.orders) and len(set(t.orders)) == 6


def test_sampling_keeps_what_the_question_says_but_for_the_temperature() -> None:
    model = Factorised((1, 1, 1), (1, 1, 1), tells=False)
    q = question(sampling=Sampling(max_new_tokens=7, stop=(".",)), draw=2)
    debiased(model, [q], decisions="sampled", draws=3, seed=5)
    assert {x.sampling for x in model.questions} == {Sampling(1.0, 7, seed=5, stop=(".",))}
    assert [x.draw for x in model.questions] == [6, 7, 8], "draws of several draws of a question do not overlap"


def test_the_estimate_nears_the_arithmetic_mean_as_the_root_of_the_draws() -> None:
    d = (0.2, 0.5, 0.3)
    exact = np.array(debiased(Factorised((0.7, 0.2, 0.1), d), [question()], mean="arithmetic")[0].probabilities)
    errors = {}
    for draws in (8, 128):
        some = [question(f"q{n}") for n in range(150)]
        taught = debiased(Factorised((0.7, 0.2, 0.1), d), some, decisions="sampled", draws=draws)
        found = np.array([t.probabilities for t in taught])
        errors[draws] = float(np.sqrt(((found - exact) ** 2).mean()))
        assert np.abs(found.mean(0) - exact).max() < 4 * errors[draws] / np.sqrt(150), "unbiased"
    assert errors[8] / errors[128] == pytest.approx(4, rel=0.15), "16 times the draws, a quarter of the error"
    expected = np.sqrt((exact * (1 - exact)).mean() / 8)
    assert errors[8] == pytest.approx(expected, rel=0.1)


def test_draws_depend_on_seed_and_question_and_not_on_what_else_is_asked() -> None:
    def asked(*questions: Question, seed: int = 0) -> list[Debiased]:
        return debiased(Factorised((0.5, 0.3, 0.2), (1, 1, 1)), questions, decisions="sampled", seed=seed)

    assert asked(question("a"), question("b"))[1] == asked(question("b"))[0]
    assert asked(question("a"))[0].decisions != asked(question("b"))[0].decisions
    assert asked(question("a"), seed=1)[0].decisions != asked(question("a"))[0].decisions


def test_an_outcome_is_drawn_by_its_share() -> None:
    shares = (0.0, 0.25, 0.0, 0.75, 0.0)
    assert [drawn(shares, u) for u in (0.0, 0.2499, 0.25, 0.9999999999999999)] == [1, 1, 3, 3]


# ------------------------------------------------------------------------------------------------ what goes wrong


def test_unread_draws_are_left_out_and_noted() -> None:
    unread = Choice(None, status="unparsed", usage=Usage(1))
    model = Answers(lambda q: unread if q.draw % 4 == 0 else Choice(2, usage=Usage(1)))
    t = debiased(model, [question()], decisions="sampled", draws=8)[0]
    assert t.probabilities == (0, 0, 1) and t.status == "answered" and t.usage == Usage(8)
    assert t.note == "2 of 8 orders could not be read"


def test_a_question_of_which_nothing_could_be_read_is_unparsed() -> None:
    model = Answers(lambda q: Choice(None, status="unparsed", note="a refusal"))
    for decisions in ("sampled", "probabilities"):
        t = debiased(model, [question()], decisions=decisions)[0]  # type: ignore[arg-type]
        assert t.probabilities is None and t.choice.status == "unparsed" and t.choice.decision is None
        assert "could not be read" in t.note and "a refusal" in t.note


@pytest.mark.parametrize("decisions", ["probabilities", "sampled"])
def test_one_order_without_answer_leaves_the_question_unanswered_and_no_other(decisions: str) -> None:
    never = Choice(None, status="unanswered", note="the server is down")

    def answer(q: Question) -> Choice:
        return never if q.id == "lost" and q.order == (2, 1, 0) else Choice(1, (0.1, 0.8, 0.1), usage=Usage(1))

    model = Answers(answer)
    lost, kept = debiased(model, [question("lost"), question("kept")], decisions=decisions)  # type: ignore[arg-type]
    assert (lost.status, lost.probabilities, lost.note) == ("unanswered", None, "the server is down")
    assert kept.status == "answered" and kept.decision == 1


def test_a_model_that_tells_no_probabilities_is_refused_with_the_way_out() -> None:
    with pytest.raises(SettingsError, match=r"no probabilities for q, only a decision.*decisions=sampled"):
        debiased(ScriptedModel(), [question()])


@pytest.mark.parametrize(
    "wrong", [{"orders": "full"}, {"orders": "cyclic"}, {"mean": "geometric"}, {"draws": 0}], ids=str
)
def test_settings_that_contradict_one_another_are_refused_before_anything_is_asked(wrong: dict[str, object]) -> None:
    model = ScriptedModel()
    with pytest.raises(SettingsError):
        debiased(model, [question()], decisions="sampled", **wrong)  # type: ignore[arg-type]
    assert model.questions == []


def test_no_questions_are_no_work() -> None:
    assert debiased(ScriptedModel(), []) == []
