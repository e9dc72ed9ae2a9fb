"""Logits that are not finite are never read as an answer, say so, and spoil nothing that is read next to them."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from evenhand.core.answer_cache import answer_cache
from evenhand.errors import EvenhandError
from evenhand.inference import Engine, Prompt, Request
from evenhand.inference.requests import NOT_FINITE
from evenhand.inference.top_tokens import top_tokens
from evenhand.interfaces import Dialogue, Message, Passage, Question, Sampling
from evenhand.models.loading import wrap
from evenhand.models.local import LocalModel
from evenhand.models.tiny import tiny_module, tiny_tokenizer
from evenhand.prompting.sessions import conversation
from evenhand.testing import questions

NAN, INF = math.nan, math.inf
SPOILT = 30
"""A token whose embedding is nan."""
GOOD, BAD = (1, 9, 12, 14), (1, 9, SPOILT, 14)
STEPS = Sampling(max_new_tokens=5)
WORDS = 60
pytestmark = pytest.mark.filterwarnings("ignore:.*not finite", "ignore:replies are written", "ignore:prompts are read")


def small(architecture: str, **settings: Any) -> PreTrainedModel:
    """A random model of an architecture that `tiny_module` does not make."""
    sizes = {
        "vocab_size": WORDS,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": None,
    }
    torch.manual_seed(0)
    module: PreTrainedModel = AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **sizes, **settings))
    return module.float().eval()


def edited(module: PreTrainedModel, name: str, at: Any, value: float) -> PreTrainedModel:
    """The module with one weight, row or part of a parameter replaced."""
    with torch.no_grad():
        module.get_parameter(name)[at] = value
    return module


def spoilt(architecture: str = "llama", module: PreTrainedModel | None = None) -> PreTrainedModel:
    name = {"gpt_neox": "gpt_neox.embed_in.weight"}.get(architecture, "model.embed_tokens.weight")
    return edited(module or tiny_module(WORDS, architecture), name, SPOILT, NAN)


def wrapped(module: PreTrainedModel, **options: Any) -> LocalModel:
    tokenizer = tiny_tokenizer()
    model = wrap(module, tokenizer, **options)
    assert isinstance(model, LocalModel)
    return model


def overflowing(factor: float = 2.4e4, word: str = "Explain") -> LocalModel:
    """A Llama whose first MLP is so large that float16 overflows after one word, which drives a unit of it most."""
    tokenizer = tiny_tokenizer()
    module = tiny_module(len(tokenizer), "llama")
    with torch.no_grad():
        gate = module.get_parameter("model.layers.0.mlp.gate_proj.weight").mul_(3)
        module.get_parameter("model.layers.0.mlp.up_proj.weight").mul_(3)[0] = gate[0]
        module.get_parameter("model.layers.0.mlp.down_proj.weight").mul_(factor)
        module.get_parameter("model.embed_tokens.weight")[tokenizer.convert_tokens_to_ids(word)] = gate[0] * 10
    return wrapped(module.half())


def engine_of(module: PreTrainedModel) -> Engine:
    return Engine(module, tiny_tokenizer())


def alone(module: PreTrainedModel, ids: tuple[int, ...], token: int) -> float:
    with torch.inference_mode():
        return float(torch.log_softmax(module(torch.tensor([ids])).logits[0, -1].float(), -1)[token])


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt_neox"])
@pytest.mark.parametrize("batch_tokens", [3, 60, 4096])
def test_a_request_that_is_not_finite_spoils_no_other(architecture: str, batch_tokens: int) -> None:
    module = spoilt(architecture)
    engine = Engine(module, tiny_tokenizer(), batch_tokens)
    asked = [Request(ids, ((len(ids) - 1, 8),)) for ids in (GOOD, BAD, (1, 9, 12), (1, 9, 12, 14, 20, 21), (1, 9, 8))]
    values = [v for (v,) in engine.read(asked, "f")]
    assert [math.isnan(v) for v in values] == [False, True, False, False, False]
    for request, value in zip(asked, values, strict=True):
        if not math.isnan(value):
            assert value == pytest.approx(alone(module, request.ids, 8), abs=1e-4)


def test_padding_with_a_spoilt_token_spoils_nothing() -> None:
    """By the plain way, in which shorter rows are filled up: with a token that is nan itself."""
    module = spoilt(module=small("mistral", sliding_window=2))
    engine = engine_of(module)
    engine.pad_id = SPOILT
    asked = [Request(ids, ((len(ids) - 1, 8),)) for ids in (GOOD, (1, 9, 12, 14, 20), BAD)]
    (first,), (second,), (third,) = engine.read(asked, "f")
    assert first == pytest.approx(alone(module, GOOD, 8), abs=1e-4) and math.isnan(third)
    assert second == pytest.approx(alone(module, (1, 9, 12, 14, 20), 8), abs=1e-4)


@pytest.mark.parametrize("window", [2, 64])
def test_an_infinite_logit_is_not_finite_and_an_impossible_token_is_legal(window: int) -> None:
    for value, bad in [(INF, True), (NAN, True), (-INF, False)]:
        module = edited(small("phi"), "lm_head.bias", 11, value)
        (values,) = engine_of(module).read([Request(GOOD, ((3, 11), (3, 12)))], "f")
        if bad:
            assert all(math.isnan(v) for v in values), values
        else:
            assert values == (-INF, pytest.approx(alone(module, GOOD, 12), abs=1e-4))


def test_a_row_of_impossible_tokens_alone_is_not_finite() -> None:
    module = edited(small("phi"), "lm_head.bias", slice(None), -INF)
    ((value,),) = engine_of(module).read([Request(GOOD, ((3, 11),))], "f")
    assert math.isnan(value)


def test_a_model_that_forbids_a_token_is_read_over_a_tree() -> None:
    assert engine_of(edited(small("phi"), "lm_head.bias", 11, -INF)).tried.continues


def test_warned_once_with_dtype_count_and_remedy() -> None:
    model = overflowing()
    asked = [replace(q, context="Explain") for q in questions(6)]
    with pytest.warns(UserWarning, match=r"float16.*float32 or bfloat16") as said:
        model.choose(asked)
        model.score([Passage("dog cat little")])
        model.choose(asked)
    assert sum("not finite" in str(w.message) for w in said) == 1
    with pytest.warns(UserWarning, match="weights"):
        engine_of(spoilt()).read([Request(BAD, ((3, 8),))], "f")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        engine_of(tiny_module(WORDS)).read([Request(GOOD, ((3, 8),))], "f")


def test_an_overflow_leaves_its_items_unanswered_and_answers_the_others_as_float32_does() -> None:
    model = overflowing()
    contexts = ["Once", "there", "little", "Explain", "cat", "Remove", "bias", "Explain", "rely"]
    asked = [Question(f"q{n}", "Who was not", ("dog", "cat", "little"), context=c) for n, c in enumerate(contexts)]
    made = model.choose(asked)
    exact = wrapped(model.weights.module.float()).choose(asked)
    lost = [m.decision is None for m in made]
    assert lost == [c == "Explain" for c in contexts]
    for m, e in zip(made, exact, strict=True):
        if m.decision is None:
            assert (m.status, m.note, m.probabilities, m.mass) == ("unanswered", NOT_FINITE, None, None)
        else:
            assert m.probabilities == pytest.approx(e.probabilities, abs=0.1)


@pytest.mark.parametrize("way", ["letters", "text", "text_per_token", "generation"])
@pytest.mark.parametrize(
    ("name", "at", "value"),
    [
        ("lm_head.weight", (5, 3), NAN),
        ("model.layers.1.mlp.down_proj.weight", (0, 0), NAN),
        ("model.norm.weight", 0, INF),
    ],
)
def test_no_way_of_answering_takes_a_broken_model_for_an_answer(way: Any, name: str, at: Any, value: float) -> None:
    tokenizer = tiny_tokenizer()
    model = wrapped(edited(tiny_module(len(tokenizer)), name, at, value), answer_by=way)
    for choice in model.choose(questions(3)):
        assert (choice.decision, choice.status, choice.note) == (None, "unanswered", NOT_FINITE)


def test_one_impossible_option_is_legal_and_all_impossible_ones_are_not() -> None:
    tokenizer = tiny_tokenizer()
    letters = [tokenizer.convert_tokens_to_ids(c) for c in "ABC"]
    module = tiny_module(len(tokenizer))
    module.lm_head = torch.nn.Linear(32, len(tokenizer))
    with torch.no_grad():
        module.lm_head.bias[letters[0]] = -INF
    question = Question("q", "Who was not", ("dog", "cat", "little"))
    (one,) = wrapped(module).choose([question])
    assert one.status == "answered" and one.probabilities and one.probabilities[0] == 0 and one.decision in (1, 2)
    with torch.no_grad():
        module.lm_head.bias[letters] = -INF
    (none,) = wrapped(module).choose([question])
    assert (none.decision, none.status) == (None, "unanswered") and "probability 0" in none.note


def test_scores_say_why_they_are_none() -> None:
    tokenizer = tiny_tokenizer()
    model = wrapped(spoilt(module=tiny_module(len(tokenizer))), too_long="skip")
    word = str(tokenizer.convert_ids_to_tokens(SPOILT))
    fine, broken, long = model.score([Passage("dog cat"), Passage(f"cat {word} dog"), Passage("dog " * 2000)])
    assert math.isfinite(fine.logprob) and fine.tokens == 2 and not fine.note
    assert math.isnan(broken.logprob) and broken.tokens == 0 and broken.note == NOT_FINITE
    assert math.isnan(long.logprob) and long.tokens == 0 and "the context has 1024" in long.note


# ------------------------------------------------------------------------------------------------- generation


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("loop", ["tree", "transformers"])
def test_a_reply_that_is_not_finite_is_none_and_its_neighbours_are_as_alone(temperature: float, loop: str) -> None:
    settings = {"sliding_window": 64 if loop == "tree" else 4}
    module = spoilt(module=small("mistral", **settings))
    asked = [Prompt(ids) for ids in (GOOD, BAD, (1, 9, 12), (1, 9, 12, 14, 20, 21), (1, 9, SPOILT), (1, 9))]
    sampling = Sampling(temperature, 5)
    made = engine_of(module).generate(asked, sampling, "f")
    single = [engine_of(module).generate([p], sampling, "f")[0] for p in asked]
    assert made == single
    assert [m.note for m in made] == ["", NOT_FINITE, "", "", NOT_FINITE, ""]
    assert all(m.ids == () and m.text == "" and not m.finished for m in made if m.note)


@pytest.mark.parametrize("window", [4, 64])
def test_a_reply_that_breaks_off_in_the_middle_is_none(window: int) -> None:
    """The model writes a token whose own embedding is nan."""
    module = small("mistral", sliding_window=window)
    token = engine_of(module).generate([Prompt(GOOD)], STEPS, "f")[0].ids[1]
    assert token not in GOOD
    edited(module, "model.embed_tokens.weight", token, NAN)
    made = engine_of(module).generate([Prompt(GOOD), Prompt((1, 9))], STEPS, "f")
    assert made[0].note == NOT_FINITE
    assert made[1] == engine_of(module).generate([Prompt((1, 9))], STEPS, "f")[0]


def test_a_conversation_keeps_nothing_that_is_not_finite() -> None:
    module = spoilt()
    engine, fresh = engine_of(module), engine_of(module)
    with conversation():
        for asked in ([Prompt(GOOD), Prompt(BAD)], [Prompt((*GOOD, 9)), Prompt((*BAD, 9)), Prompt((1, 9, 12, 8))]):
            made = engine.generate(asked, STEPS, "f")
            assert made == [fresh.generate([p], STEPS, "f")[0] for p in asked]


def test_known_again_from_the_cache(tmp_path: Any) -> None:
    module = spoilt()
    for _ in range(2):
        with answer_cache(tmp_path / "cache.sqlite"):
            engine = engine_of(module)
            assert [m.note for m in engine.generate([Prompt(GOOD), Prompt(BAD)], STEPS, "f")] == ["", NOT_FINITE]
            assert math.isnan(engine.read([Request(BAD, ((3, 8),))], "f")[0][0])
    assert engine.forwards == 0


def test_the_model_says_why_there_is_no_reply() -> None:
    tokenizer = tiny_tokenizer()
    model = wrapped(spoilt(module=tiny_module(len(tokenizer))))
    word = str(tokenizer.convert_ids_to_tokens(SPOILT))
    good, bad = model.generate([Dialogue((Message("user", t),)) for t in ("dog cat", f"dog {word}")], STEPS)
    assert good.text is not None
    assert (bad.text, bad.note, bad.finished) == (None, NOT_FINITE, False)


@pytest.mark.parametrize("way", ["letters", "generation"])
@pytest.mark.parametrize("name", ["lm_head.weight", "model.layers.0.mlp.down_proj.weight"])
def test_a_model_guided_by_other_texts_says_so_too(way: Any, name: str) -> None:
    from evenhand.methods.prompting.self_debias_decoding import SelfDebiasDecoding

    tokenizer = tiny_tokenizer()
    base = wrapped(edited(tiny_module(len(tokenizer)), name, (5, 3), NAN), answer_by=way)
    for choice in SelfDebiasDecoding().apply(base).choose(questions(2)):
        assert (choice.decision, choice.status, choice.note) == (None, "unanswered", NOT_FINITE)


def test_the_most_probable_tokens_of_a_broken_model_are_refused() -> None:
    with pytest.raises(EvenhandError, match=r"not finite.*float32"):
        top_tokens(spoilt(), [GOOD, BAD], 3)
    assert top_tokens(spoilt(), [GOOD], 3)
