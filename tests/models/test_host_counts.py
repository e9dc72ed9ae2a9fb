"""What asking costs in addition to the model, in counts: texts tokenised, calls, nodes fed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp

from evenhand.core.answer_cache import answer_cache
from evenhand.inference import Request
from evenhand.interfaces import Choice, Question, Usage
from evenhand.models.choosing import (
    IMPOSSIBLE,
    LetterPlan,
    by_position,
    choice_from_letters,
    distribution_choice,
    distribution_choices,
    letter_plan,
    letter_strings,
)
from evenhand.models.letter_prompts import letter_prompts
from evenhand.models.tiny import tiny_model, tiny_tokenizer
from evenhand.models.tokenization import Encoder

OPTIONS = ("the old man", "the young woman", "unknown")


def questions(count: int, start: int = 0) -> list[Question]:
    """Questions of one form: all words are letters, which are unknown to the tiny tokenizer or known alike."""
    names = [f"{chr(97 + n % 26)} {chr(97 + n // 26 % 26)}" for n in range(start, start + count)]
    return [Question(f"q{n}", f"Who is it {name} ?", OPTIONS, context="A man sat.") for n, name in enumerate(names)]


def python_calls(run: Callable[[], object]) -> int:
    """Calls of functions written in Python."""
    counted = 0

    def count(_: object, event: str, __: object) -> None:
        nonlocal counted
        counted += event == "call"

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        run()
    finally:
        sys.setprofile(before)
    return counted


def per_item(model_calls: Callable[[list[Question]], object]) -> float:
    """Python's calls per question: the difference between few questions and twice as many."""
    model_calls(questions(2))
    few, many = (
        python_calls(lambda asked=asked: model_calls(asked)) for asked in (questions(60, 5), questions(120, 70))
    )
    return (many - few) / 60


def test_python_calls_per_question_are_few() -> None:
    model = tiny_model()
    # 131; before lines, arrays and bulk it was 810
    assert per_item(model.choose) < 160


def test_python_calls_per_question_that_is_stored_or_found_are_few(tmp_path: Path) -> None:
    model = tiny_model()
    with answer_cache(tmp_path / "answers.sqlite"):
        assert per_item(model.choose) < 190
        assert per_item(model.choose) < 130, "all of it is known"


def test_lines_of_all_orders_are_tokenised_once_in_few_calls() -> None:
    model = tiny_model()
    asked = [q.reordered(order) for q in questions(20) for order in permutations(range(3))]
    pieces = model._encoder.pieces
    assert pieces.ends is not None
    model.choose(asked[:1])
    texts, calls = pieces.tokenised, pieces.calls
    model.choose(asked)
    # new: 19 lines of contexts and questions, the options at three letters each but those of the first order, and the
    # last option with its closing token
    assert pieces.tokenised - texts <= 19 + 9 + 3
    assert pieces.calls - calls <= 2


def test_all_orders_feed_only_what_they_do_not_share() -> None:
    model = tiny_model()
    assert model.engine.tried.finish is not None
    asked = [q.reordered(order) for q in questions(4) for order in permutations(range(3))]
    sequences = [
        r.ids
        for prompt in letter_prompts(model._encoder, [(t, 3) for t in _texts(model._encoder, asked)])
        for r in prompt.requests
    ]
    before = model.engine.tokens
    model.choose(asked)
    assert model.engine.tokens - before == len({ids[:n] for ids in sequences for n in range(1, len(ids) + 1)})


def _texts(encoder: Encoder, asked: list[Question]) -> list[str]:
    from evenhand.prompting import rendering

    return encoder.dialogue_texts([rendering.as_dialogue(q, "letters") for q in asked])


@pytest.mark.parametrize("chat", [True, False])
def test_requests_are_those_of_plans_made_of_whole_prompts(chat: bool) -> None:
    encoder = Encoder(tiny_tokenizer(chat=chat))
    asked = [*questions(3), replace(questions(1)[0], template="exam"), Question("x", "Who?", ("a", "b", "c", "d", "e"))]
    for text, q in zip(_texts(encoder, asked), asked, strict=True):
        options = len(q.options)
        (prompt,) = letter_prompts(encoder, [(text, options)])
        (head,), letters = encoder.prompted([text]), letter_strings(options)
        plan = letter_plan(head, encoder.continuing([text] * len(letters), letters), options)
        assert prompt.ids == head
        assert _reads(prompt.requests) == _reads(plan.requests)
        assert (list(prompt.form.owner), prompt.form.one_token) == (plan.owner, plan.one_token)


def _reads(requests: list[Request]) -> dict[tuple[int, ...], list[tuple[int, int]]]:
    found: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    for r in requests:
        found.setdefault(r.ids, []).extend(r.reads)
    return found


def test_letters_of_several_tokens_add_up_in_their_own_parts() -> None:
    plan = LetterPlan([Request((1, 2), ((1, 7), (1, 8))), Request((1, 3), ((1, 9),))], [0, 1], False)
    question = Question("q", "?", ("a", "b"), shown=(1, 0))
    choice = choice_from_letters(question, plan, np.log([0.2, 0.6]), 5)
    assert choice.probabilities == pytest.approx((0.75, 0.25)) and choice.decision == 0
    assert choice.mass is None and choice.usage == Usage(2, 10)


def test_many_distributions_are_those_of_one_after_another() -> None:
    rng = np.random.default_rng(0)
    logits = np.concatenate([rng.normal(size=(40, 3)) * 20, np.full((1, 3), -np.inf), [[0.0, np.nan, 1.0]]])
    logits[3, 1] = -np.inf
    usages = [Usage(n) for n in range(len(logits))]
    many = distribution_choices(logits, [None] * len(logits), usages)
    for row, usage, choice in zip(logits[:40], usages, many, strict=False):
        expected = np.exp(log_softmax(row))
        assert choice == Choice(int(np.argmax(row)), tuple(expected.tolist()), usage=usage)
    assert [c.note for c in many[40:]] == [IMPOSSIBLE, "logits are not finite"]
    assert all(c == distribution_choice(row, u) for c, row, u in zip(many, logits, usages, strict=True))


def test_variants_are_added_up_wherever_they_stand() -> None:
    logprobs = np.log(np.random.default_rng(1).random((5, 4)))
    at = by_position(logprobs, [0, 1, 1, 0], 2)
    for row, values in zip(logprobs, at, strict=True):
        assert values.tolist() == [logsumexp(row[[0, 3]]), logsumexp(row[[1, 2]])]
    assert by_position(np.array([[-1.0, -np.inf]]), [0, 1], 2).tolist() == [[-1.0, -np.inf]]
