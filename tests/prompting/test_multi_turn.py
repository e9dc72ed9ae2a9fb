"""Stacks of methods on a model that keeps what it was really asked: the record and the sampling are that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from evenhand.core import registry
from evenhand.interfaces import AnswerBy, Choice, Message, Model, Question, Sampling
from evenhand.models.readings import own_reading
from evenhand.prompting.multi_turn import read_by
from evenhand.prompting.rendering import as_dialogue
from evenhand.testing import ScriptedModel

OWN = Sampling(max_new_tokens=7, stop=("###",), seed=3)
Q = Question("q", "Who was loud?", ("the dog", "the cat", "nobody"), context="There was a dog and a cat.")


class Recording(ScriptedModel):
    """Has a way of reading answers and a sampling of its own, as a model that was loaded with them; no probabilities
    where it writes."""

    def __init__(self, answer_by: AnswerBy = "letters", sampling: Sampling = OWN) -> None:
        super().__init__()
        self.answer_by, self.sampling = answer_by, sampling

    def choose(self, questions: Sequence[Question]) -> list[Choice]:
        self.questions += questions
        return [self._one(q) for q in questions]

    def _one(self, question: Question) -> Choice:
        if (question.answer_by or self.answer_by) == "generation":
            return Choice(question.order[0], reply="A")
        return Choice(
            1, tuple(0.5 if i == 1 else 0.5 / (len(question.options) - 1) for i in range(len(question.options)))
        )

    def prompt(self, n: int) -> tuple[Message, ...]:
        """What the n-th question was put as."""
        q = self.questions[n]
        return as_dialogue(q, q.answer_by or self.answer_by).messages


def stack(spec: str, model: Model) -> Model:
    return registry.build_method(spec).apply(model)


# ------------------------------------------------------------------------------------------------------- sampling


@pytest.mark.parametrize(
    "spec",
    [
        "permutation(decisions=sampled,draws=4)",
        "instruction+permutation(decisions=sampled,draws=4)",
        "contextual_calibration+permutation(decisions=sampled,draws=4)",
        "instruction+moral_self_correction(variant=instruction)+permutation(decisions=sampled,draws=4)",
    ],
)
def test_a_sampled_ensemble_asks_with_the_sampling_of_the_model_below_all_methods(spec: str) -> None:
    model = Recording("generation")
    stack(spec, model).choose([Q])
    drawn = [q for q in model.questions if q.context == Q.context]
    assert len(drawn) == 4
    assert {q.sampling for q in drawn} == {replace(OWN, temperature=1.0, seed=0)}, "its limit and its stop strings"


def test_the_sampling_of_a_method_in_between_comes_before_the_models() -> None:
    model = Recording("generation")
    stack("self_debias(max_new_tokens=11)+permutation(decisions=sampled,draws=4)", model).choose([Q])
    assert {q.sampling for q in model.questions} == {Sampling(1.0, 11)}


def test_a_question_that_says_so_itself_keeps_its_sampling() -> None:
    model, asked = Recording("generation"), Sampling(max_new_tokens=5)
    stack("instruction+permutation(decisions=sampled,draws=2)", model).choose([replace(Q, sampling=asked)])
    assert {q.sampling for q in model.questions} == {replace(asked, temperature=1.0)}


@pytest.mark.parametrize(
    "spec", ["instruction", "none(answer_by=text)", "none(temperature=0.5)", "self_debias+instruction"]
)
def test_a_wrapper_reads_and_draws_as_the_rest_of_the_package_says_it_does(spec: str) -> None:
    mitigated = stack(spec, Recording("text_per_token"))
    own = own_reading(mitigated)
    assert (mitigated.answer_by, mitigated.sampling) == (own.answer_by, own.sampling)


def test_a_model_without_such_options_has_none_under_a_method_either() -> None:
    mitigated = stack("instruction", ScriptedModel())
    assert mitigated.sampling is None and mitigated.answer_by is None
    assert read_by(mitigated, Q) == "letters" and read_by(mitigated, replace(Q, answer_by="text")) == "text"


# --------------------------------------------------------------------------------------------------------- record


@pytest.mark.parametrize("answer_by", ["letters", "text", "generation"])
@pytest.mark.parametrize(
    "spec",
    [
        "instruction",
        "instruction(place=after)",
        "instruction(place=system)",
        "instruction+moral_self_correction(variant=instruction)",
        "moral_self_correction(variant=instruction,place=after)+instruction",
        "contextual_calibration+instruction",
        "none(answer_by=text)+instruction",
        "none(answer_by=letters)+instruction(place=after)",
    ],
)
def test_the_prompt_in_the_record_is_the_one_that_was_asked(spec: str, answer_by: AnswerBy) -> None:
    model = Recording(answer_by)
    (answer,) = stack(spec, model).choose([Q])
    assert answer.before == model.prompt(0)
    by_text = (model.questions[0].answer_by or answer_by) == "text"
    assert ("(A)" in answer.before[-1].content) != by_text, "one that is scored on texts is not led by letters"


def test_a_method_that_is_put_around_an_ensemble_does_not_claim_its_own_order() -> None:
    """The question is shown in an order in which the ensemble below never asks it first."""
    model = Recording()
    shown = replace(Q, shown=(2, 1, 0))
    (answer,) = stack("permutation(orders=sampled,draws=3)+instruction", model).choose([shown])
    assert answer.before[:-1] == model.prompt(0) and "the first of 3 orders" in answer.before[-1].content


def test_an_ensemble_around_another_method_keeps_that_methods_record() -> None:
    model = Recording()
    (answer,) = stack("instruction(place=system)+permutation", model).choose([Q])
    assert answer.before[:-1] == model.prompt(0) and answer.before[0].role == "system"


def test_the_declared_way_of_reading_wins_over_the_questions() -> None:
    """As `Reading.put` has it; the record of the method above must know."""
    model = Recording()
    (answer,) = stack("none(answer_by=text)+instruction", model).choose([replace(Q, answer_by="letters")])
    assert model.questions[0].answer_by == "text" and answer.before == model.prompt(0)
