"""Servers that somebody has started: each runs where its URL is set, as `docs/serving.md` says.

`EVENHAND_TEST_VLLM=http://localhost:8000/v1#NAME`, likewise `..._LLAMACPP`, `..._SGLANG`, `..._LITELLM`, `..._OLLAMA`;
options may follow, as in `http://localhost:4000/v1#NAME(server=vllm)`.
`EVENHAND_TEST_WEIGHTS` is a folder with the same weights in transformers' format; with it replies and draws are
compared with those of this process.
"""

from __future__ import annotations

import os

import pytest
from tests.servers.server_checks import dialogues, distinct, draws_are_the_models_own, greedy_replies_are_the_models

import evenhand
from evenhand.interfaces import Question, Sampling
from evenhand.models.endpoint import EndpointModel
from evenhand.models.local import LocalModel

pytest.importorskip("openai")

KINDS = ("vllm", "sglang", "llamacpp", "litellm", "ollama")
ANNOUNCED = ("vllm", "sglang", "llamacpp")
"""Servers whose list of models says what they are."""


@pytest.fixture(params=KINDS)
def named(request: pytest.FixtureRequest) -> tuple[str, EndpointModel]:
    kind: str = request.param
    place = os.environ.get(f"EVENHAND_TEST_{kind.upper()}")
    if not place:
        pytest.skip(f"EVENHAND_TEST_{kind.upper()} is not set")
    model = evenhand.load(f"endpoint:{place}", retries=1)
    assert isinstance(model, EndpointModel)
    return kind, model


@pytest.fixture(scope="module")
def here() -> LocalModel:
    folder = os.environ.get("EVENHAND_TEST_WEIGHTS")
    if not folder:
        pytest.skip("EVENHAND_TEST_WEIGHTS is not set")
    model = evenhand.load(folder)
    assert isinstance(model, LocalModel)
    return model


def test_a_first_look_finds_nothing_wrong(named: tuple[str, EndpointModel]) -> None:
    kind, model = named
    found = model.preflight(letters=True, draws=True)
    assert found.new_tokens > 0 and (found.server == kind or kind not in ANNOUNCED)


def test_draws_differ_and_greedy_replies_do_not(named: tuple[str, EndpointModel]) -> None:
    _, model = named
    drawn = model.generate(dialogues(8), Sampling(temperature=1.0, max_new_tokens=12))
    assert all(distinct([r.text for r in drawn[n : n + 8]]) > 1 for n in range(0, len(drawn), 8))
    again = [[r.text for r in model.generate(dialogues(), Sampling(max_new_tokens=12))] for _ in range(2)]
    assert again[0] == again[1] and None not in again[0]


def test_letters_are_read_or_undecided_with_a_reason(named: tuple[str, EndpointModel]) -> None:
    _, model = named
    choice = model.choose([Question("q", "Who was sad?", ("Tom", "Sue"), answer_by="letters")])[0]
    assert choice.mass is not None and (choice.status == "answered" or "mass" in choice.note)


def test_replies_are_those_of_the_same_weights(named: tuple[str, EndpointModel], here: LocalModel) -> None:
    greedy_replies_are_the_models(named[1], here)


def test_draws_are_the_models_own(named: tuple[str, EndpointModel], here: LocalModel) -> None:
    draws_are_the_models_own(named[1], here)
