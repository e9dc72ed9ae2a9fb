"""What is done in Python around every answer: how often, and that nothing else comes out of it."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import FrameType
from typing import Any

import numpy as np
import pytest

from evenhand.core.hashing import short_text_hash
from evenhand.core.registry import build_benchmark, build_method
from evenhand.experiment import contracts, no_effect
from evenhand.interfaces import AnswerBy, Choice, Dialogue, Message, Model, Question, Usage
from evenhand.prompting import rendering, thinking
from evenhand.prompting.option_orders import averaged, by_position, debias
from evenhand.prompting.permutation_ensemble import debiased
from evenhand.report import opened
from evenhand.testing import ScriptedModel

ITEMS = 40


def questions(count: int = ITEMS, options: int = 3) -> list[Question]:
    texts = [tuple(f"person {i} of {n}" for i in range(options)) for n in range(count)]
    return [Question(f"q{n}", "Who was there?", texts[n], context=f"It was day {n}.") for n in range(count)]


def answering(asked: Sequence[Question]) -> list[Choice]:
    """A distribution that depends on the order, so that averages matter."""
    made = []
    for q in asked:
        raw = [1.0 + q.position_of(o) + 0.1 * len(q.context) + o for o in range(len(q.options))]
        p = tuple(r / sum(raw) for r in raw)
        made.append(Choice(p.index(max(p)), p, mass=0.25 + 0.5 * p[0], usage=Usage(1, 7)))
    return made


class Ordered(ScriptedModel):
    """Answers by letters, with distributions; its own calls are not counted."""

    answer_by: AnswerBy = "letters"

    def choose(self, questions: Sequence[Question]) -> list[Choice]:
        counting = sys.getprofile()
        sys.setprofile(None)
        try:
            return answering(questions)
        finally:
            sys.setprofile(counting)


def model() -> Model:
    return Ordered()


def calls(run: Callable[[], object]) -> Counter[str]:
    """Calls of Python functions of evenhand by name while something runs."""
    found: Counter[str] = Counter()

    def count(frame: FrameType, event: str, arg: Any) -> None:
        if event == "call":
            found[frame.f_code.co_qualname if sys.version_info >= (3, 11) else frame.f_code.co_name] += 1

    sys.setprofile(count)
    try:
        run()
    finally:
        sys.setprofile(None)
    return found


def per_item(spec: str) -> float:
    """Python calls an item takes in a cell of a comparison, without those for the first and the model's own."""

    def total(count: int) -> int:
        base, asked = model(), questions(count)
        made = build_method(spec).apply(base)
        with no_effect.overheard(base), contracts.checked(made, base):
            made.choose(asked[:1])
            return sum(calls(lambda: made.choose(asked)).values())

    return (total(2 * ITEMS) - total(ITEMS)) / ITEMS


@pytest.mark.parametrize(("spec", "most"), [("none", 10), ("permutation", 115), ("self_debias", 65)])
def test_an_item_takes_few_calls_above_the_model(spec: str, most: int) -> None:
    assert per_item(spec) <= most


def test_the_prompt_in_the_record_is_rendered_once_an_item_whatever_the_orders() -> None:
    found = calls(lambda: debiased(model(), questions()))
    assert found["as_dialogue"] == ITEMS
    assert found["letters_template"] == ITEMS


def test_which_options_may_move_is_found_out_once_an_item() -> None:
    asked = [replace(q, options=tuple(f"{o} (counted)" for o in q.options)) for q in questions()]
    assert calls(lambda: debiased(model(), asked))["_letters_named"] == 3 * ITEMS


def test_means_over_orders_are_the_same_bits_for_all_questions_at_once_and_one_by_one() -> None:
    rng = np.random.default_rng(0)
    for count, orders, options in ((1, 6, 3), (5, 2, 2), (300, 6, 3), (40, 24, 4), (7, 32, 10), (3, 120, 5)):
        p = rng.dirichlet(np.ones(options), (count, orders))
        turns = [[tuple(map(int, rng.permutation(options))) for _ in range(orders)] for _ in range(count)]
        for mean in ("arithmetic", "geometric"):
            together = averaged(p, mean)
            for n in range(count):
                shown = np.array([by_position(row, turn) for row, turn in zip(p[n], turns[n], strict=True)])
                assert debias(shown, turns[n], mean).tobytes() == together[n].tobytes()


def test_an_ensemble_of_questions_of_several_shapes_is_that_of_each_alone() -> None:
    mixed = [*questions(3), *questions(2, options=2), *questions(2, options=4)]
    together = debiased(model(), mixed)
    assert together == [debiased(model(), [q])[0] for q in mixed]
    assert together[0].usage == Usage(6, 42)
    first = [c.mass for c in answering([mixed[0].reordered(order) for order in together[0].orders])]
    assert together[0].mass == float(np.mean([m for m in first if m is not None]))


def test_an_ensemble_refuses_a_model_that_leaves_answers_out() -> None:
    class Short(Ordered):
        def choose(self, questions: Sequence[Question]) -> list[Choice]:
            return answering(questions)[:-1]

    with pytest.raises(ValueError, match="shorter"):
        debiased(Short(), questions(2))


def test_prompts_are_hashed_as_they_were_when_each_was_written_out() -> None:
    asked = [q.reordered(order) for q in questions(3) for order in ((0, 1, 2), (2, 0, 1))]
    asked += [replace(asked[0], context="Another."), replace(asked[0], answer_by="generation"), replace(asked[0])]
    asked.append(replace(asked[0], shown=None, dialogue=Dialogue((Message("user", "Ready."),))))
    written = []
    for q in asked:
        ready = None if q.dialogue is None else q.dialogue.messages
        shown = (q.preamble, q.context, q.question, q.template) if ready is None else ready
        written.append(short_text_hash(repr(("choose", (shown, q.options, q.order, q.answer_by or "letters")))))
    assert list(no_effect._digests("choose", asked, "letters")) == written


def test_a_question_is_copied_with_all_its_fields() -> None:
    full = Question("q", "Who?", ("a", "b"), "c", "h", (), (1, 0), "plain", None, "text", 3, None, "Age")
    assert full.altered(draw=4) == replace(full, draw=4)
    assert full.altered() == full
    with pytest.raises(AttributeError):
        full.altered(topics="Age")


def test_costs_add_up() -> None:
    costs = [Usage(1, 2, 3), Usage(4, 5, 6)]
    assert Usage.total(costs) == costs[0] + costs[1]
    assert Usage.total([]) == Usage()


def test_a_reply_without_marks_is_searched_once() -> None:
    assert calls(lambda: thinking.parts(" (A) the cat ")) == calls(lambda: thinking.parts(""))
    assert thinking.parts(" (A) the cat ") == ("", "(A) the cat")
    assert thinking.parts("<THINK>no</think> yes") == ("no", "yes")
    assert thinking.parts("so it is </Reasoning> B") == ("so it is", "B")


def test_the_way_of_reading_is_found_out_once_for_all_questions() -> None:
    found = calls(lambda: debiased(build_method("instruction").apply(model()), questions()))
    assert found["stacked"] <= 4 < ITEMS
    assert rendering.as_dialogue(questions(1)[0], "letters").messages[0].content.startswith("Answer")


def test_a_page_shows_items_at_hand_without_reading_them_again(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = "bbq(source=demo)"
    kept = build_benchmark(spec)
    items = kept.load()
    monkeypatch.setattr(type(kept), "read", lambda self: pytest.fail("read again"))
    with opened.at_hand([kept]):
        shown = opened.Opened(kept.spec)
        assert shown.question(items[0].id) is items[0].question
    assert opened.Opened(kept.spec).benchmark is not kept


def test_a_benchmark_that_only_has_the_spec_of_another_is_not_taken_for_it() -> None:
    kept = build_benchmark("bbq(source=demo)")
    other = type("Other", (type(kept),), {"load": lambda self: []}).build(source="demo")
    assert other.spec == kept.spec
    with opened.at_hand([other]):
        assert type(opened.Opened(kept.spec).benchmark) is type(kept)
