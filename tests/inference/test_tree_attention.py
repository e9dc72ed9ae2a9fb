"""Scoring over a tree: sharing is counted, mistakes would show, and what cannot be shared is said and still right."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from evenhand.inference import Engine, Request, attention, support_probe, tree_attention
from evenhand.inference.prefix_trie import Pack
from evenhand.inference.prepacked import Prepacked
from evenhand.inference.scoring import evaluating
from evenhand.models.tiny import ARCHITECTURES, tiny_model, tiny_module, tiny_tokenizer

WORDS = 60
SMALL: dict[str, Any] = {
    "vocab_size": WORDS,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def family(count: int = 60) -> list[Request]:
    """Sequences that branch off one another, each read at its end and somewhere before."""
    rng = random.Random(0)
    trunks = [tuple(rng.randrange(7, WORDS) for _ in range(n)) for n in (1, 6, 20)]
    made = {}
    for _ in range(count):
        trunk = rng.choice(trunks)
        branch = tuple(rng.randrange(7, WORDS) for _ in range(rng.randrange(0, 5)))
        ids = trunk[: rng.randrange(len(trunk)) + 1] + branch
        reads = ((len(ids) - 1, rng.randrange(WORDS)), (rng.randrange(len(ids)), rng.randrange(WORDS)))
        made[ids] = Request(ids, tuple(dict.fromkeys(reads)))
    return list(made.values())


def plainly(module: PreTrainedModel, asked: list[Request]) -> list[float]:
    out = []
    with evaluating(module):
        for r in asked:
            logprobs = torch.log_softmax(module(torch.tensor([r.ids])).logits[0].double(), -1)
            out += [float(logprobs[p, t]) for p, t in r.reads]
    return out


def engine_of(module: PreTrainedModel, **options: Any) -> Engine:
    return Engine(module, tiny_tokenizer(), **options)


def read(engine: Engine, asked: list[Request]) -> list[float]:
    return [value for values in engine.read(asked, "f") for value in values]


def made_of(kind: str, **sizes: Any) -> PreTrainedModel:
    config = AutoConfig.for_model(kind, **{**SMALL, **sizes})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module: PreTrainedModel = AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() == 2:
                parameter.mul_(3)
    return module


# --------------------------------------------------------------------------------------------------- sharing


def test_a_shared_beginning_is_fed_once() -> None:
    engine = tiny_model().engine
    asked = [Request(ids, ((len(ids) - 1, 9),)) for ids in [(7, 8, 9), (7, 8, 10), (7, 8, 9, 11), (12,)]]
    engine.read(asked, "f")
    assert (engine.tokens, engine.forwards, engine.sequences) == (6, 1, 4)


def test_letters_of_all_orders_share_the_prompt() -> None:
    engine = tiny_model().engine
    prefix = tuple(range(7, 27))
    engine.read([Request((*prefix, 30 + i), ((20, 40), (20, 41), (20, 42))) for i in range(6)], "f")
    assert (engine.tokens, engine.forwards) == (26, 1)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_tree_is_used_and_equal(architecture: str) -> None:
    engine = tiny_model(architecture).engine
    asked = family()
    assert read(engine, asked) == pytest.approx(plainly(engine.module, asked), abs=1e-4)
    assert engine.tokens < sum(len(r.ids) for r in asked) / 2 and engine.forwards == 1
    assert engine.tried.reason == ""


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        ("cohere", {"logit_scale": 0.25, "use_qk_norm": False}),
        ("granite", {"logits_scaling": 4.0, "attention_multiplier": 0.5, "embedding_multiplier": 2.0}),
        ("gemma2", {"head_dim": 8, "final_logit_softcapping": 2.0, "attn_logit_softcapping": 1.0}),
        ("qwen3", {"head_dim": 16}),
        ("mistral", {"sliding_window": None}),
    ],
)
def test_scaled_and_capped_models_are_equal(kind: str, sizes: dict[str, Any]) -> None:
    engine, asked = engine_of(made_of(kind, **sizes)), family()
    assert read(engine, asked) == pytest.approx(plainly(engine.module, asked), abs=1e-4)
    assert engine.tried.finish is not None and engine.forwards == 1


def test_attention_is_put_back() -> None:
    module = tiny_module(WORDS)
    before = module.config._attn_implementation
    read(engine_of(module), family(5))
    assert module.config._attn_implementation == before != attention.NAME
    module.train()
    with evaluating(module):
        assert module(torch.tensor([[7, 8, 9]])).logits.shape == (1, 3, WORDS)


# --------------------------------------------------------------------------------------- mistakes would show


@pytest.mark.parametrize("mistake", ["positions", "mask"])
def test_a_wrong_position_or_mask_would_be_noticed(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative controls: what the equality tests compare is sensitive to the tree."""
    engine, asked = tiny_model().engine, family()
    finish, expected = engine.tried.finish, plainly(engine.module, asked)
    assert finish is not None
    if mistake == "positions":
        add = Pack.add

        def by_index(self: Pack, row: int, ids: Any, shared: int, kept: Any) -> None:
            add(self, row, ids, shared, kept)
            self.positions = list(range(len(self.tokens)))

        monkeypatch.setattr(Pack, "add", by_index)
    else:
        grouped = tree_attention._group

        def unmasked(runs: Any) -> tree_attention.Group:
            group = grouped(runs)
            group.allowed.fill_(True)
            group.causal = False
            return group

        monkeypatch.setattr(tree_attention, "_group", unmasked)
    assert np.abs(np.subtract(read(engine, asked), expected)).max() > 0.01  # a hundred times the tolerance
    with evaluating(engine.module):
        assert support_probe.try_out(engine.module).finish is None, "trying out would have refused"


# ------------------------------------------------------------------------------------------------- fall-backs


@pytest.mark.parametrize(
    ("kind", "sizes", "reason"),
    [
        ("bloom", {"n_layer": 2, "n_head": 4}, "no position ids"),  # ALiBi
        ("mamba", {"state_size": 4}, "no position ids"),  # a recurrent state
    ],
)
def test_what_the_tree_cannot_do_is_said_and_right(kind: str, sizes: dict[str, Any], reason: str) -> None:
    engine, asked = engine_of(made_of(kind, **sizes)), family()
    with pytest.warns(UserWarning, match=reason):
        values = read(engine, asked)
    assert values == pytest.approx(plainly(engine.module, asked), abs=1e-4)


def test_sequences_longer_than_the_window_go_by_themselves() -> None:
    module = made_of("mistral", sliding_window=8)
    engine, asked = engine_of(module), family()
    assert {len(r.ids) > 8 for r in asked} == {True, False}
    assert support_probe.exact_up_to(module) == 8
    assert read(engine, asked) == pytest.approx(plainly(module, asked), abs=1e-4)


# --------------------------------------------------------------------------------------------------- prepacked


def test_laid_out_weights_change_nothing_and_follow_edits() -> None:
    linear, use = nn.Linear(16, 8), Prepacked()
    module, x = nn.Sequential(linear, nn.Conv1d(1, 1, 1)), torch.randn(3, 16)
    with torch.inference_mode():
        for factor in (1.0, 3.0):
            with torch.no_grad():
                linear.weight.mul_(factor)
            expected = linear(x)
            with use(module):
                assert "forward" in vars(linear)
                assert torch.allclose(linear(x), expected, atol=1e-5)
            assert "forward" not in vars(linear)


def test_no_weights_are_laid_out_without_room(monkeypatch: pytest.MonkeyPatch) -> None:
    from evenhand.inference import prepacked

    monkeypatch.setattr(prepacked, "SPARE", 1e12)
    linear = nn.Linear(16, 8)
    with Prepacked()(linear):
        assert "forward" not in vars(linear)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_as_near_as_its_own_plain_forward(dtype: torch.dtype) -> None:
    """Both ways round differently; ours is not much farther from the float32 computation than the plain one."""
    module, asked = tiny_module(WORDS, scale=1.0), family()
    exact = plainly(module, asked)
    module.to(dtype)
    engine = engine_of(module)
    ours, plain = (np.abs(np.subtract(v, exact)).max() for v in (read(engine, asked), plainly(module, asked)))
    assert engine.tried.continues and engine.forwards == 1
    assert ours <= 2 * plain + torch.finfo(dtype).eps
