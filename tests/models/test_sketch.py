"""Sketches cost what their models cost, and open no weights."""

from __future__ import annotations

import pytest

import evenhand
from evenhand.core.registry import build_benchmark
from evenhand.errors import EvenhandError
from evenhand.interfaces import Dialogue, Passage, Sampling, Usage
from evenhand.models import hugging_face
from evenhand.models.sketch import REPLY, RoughModel, SketchedModel, sketch
from evenhand.testing.scripted import questions


@pytest.fixture(scope="module")
def demo() -> evenhand.Model:
    return evenhand.load("demo")


@pytest.fixture
def without_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("weights were opened")

    monkeypatch.setattr(hugging_face, "open_model", refuse)


@pytest.mark.parametrize("answer_by", ["letters", "text", "text_per_token"])
def test_choosing_costs_what_the_model_costs(demo: evenhand.Model, answer_by: str):
    items = build_benchmark("bbq(source=demo)").load()[:20]
    asked = [item.question.altered(answer_by=answer_by) for item in items]
    model = sketch("demo").model
    model.choose(asked)
    assert model.spent == Usage.total(c.usage for c in demo.choose(asked))


def test_writing_costs_the_full_length_and_the_model_s_prompt(demo: evenhand.Model):
    dialogues = [Dialogue(()).user(q.question) for q in questions(4)]
    model = sketch("demo").model
    replies = model.generate(dialogues, Sampling(max_new_tokens=7))
    real = Usage.total(r.usage for r in demo.generate(dialogues, Sampling(max_new_tokens=7)))
    assert [r.text for r in replies] == [REPLY] * 4
    assert model.spent == Usage(4, real.prompt_tokens, 28)


def test_an_answer_that_is_generated_counts_once():
    asked = [q.altered(answer_by="generation", sampling=Sampling(max_new_tokens=3)) for q in questions(3)]
    model = sketch("demo").model
    model.choose(asked)
    assert (model.spent.calls, model.spent.new_tokens) == (3, 9)


def test_scoring_counts_what_is_read():
    model = sketch("demo").model
    model.score([Passage("Who was there?"), Passage("It was a dog.")])
    assert model.spent.calls == 2 and model.spent.prompt_tokens > 2


@pytest.mark.usefixtures("without_weights")
def test_parameters_and_precision_are_those_of_the_configuration(request: pytest.FixtureRequest):
    found = sketch("demo")
    assert isinstance(found.model, SketchedModel) and found.exact and not found.notes
    assert (found.model.name, found.dtype) == ("demo", "float32")
    assert sketch("demo(dtype=bfloat16,name=half)").dtype == "bfloat16"
    assert sketch("demo(name=half)").model.name == "half"


def test_parameters_are_counted(demo: evenhand.Model):
    assert sketch("demo").parameters == sum(p.numel() for p in demo.weights.module.parameters())


@pytest.mark.usefixtures("without_weights")
def test_what_is_not_known_is_said():
    found = sketch("endpoint:http://localhost:1/v1#x")
    assert isinstance(found.model, RoughModel) and not found.exact and found.parameters is None
    assert "estimated" in found.notes[0]
    found.model.generate([Dialogue(()).user("four letters")], Sampling(max_new_tokens=5))
    assert found.model.spent == Usage(1, 3, 5)  # 12 characters are 3 tokens


@pytest.mark.usefixtures("without_weights")
def test_a_masked_model_has_its_own_abilities():
    assert sketch("demo-mlm").model.abilities == {"score", "weights"}


def test_a_sketch_is_not_saved(tmp_path: object):
    with pytest.raises(EvenhandError, match="without weights"):
        sketch("demo").model.save("anywhere")
