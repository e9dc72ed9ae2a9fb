"""LoRA configurations: layers by name, and what a model does not have is refused."""

from __future__ import annotations

import pytest
import torch

from evenhand.errors import SettingsError
from evenhand.models.tiny import tiny_model, tiny_module
from evenhand.training.lora import Adapter, adapted, lora_config


def adapted_layers(architecture: str, adapter: Adapter) -> set[str]:
    module = tiny_module(20, architecture)
    tuned = adapted(module, lora_config(module, adapter), seed=0)
    return {n.split(".lora_")[0].removeprefix("base_model.model.") for n, p in tuned.named_parameters() if "lora_" in n}


def test_all_linear_layers_but_the_output_embedding() -> None:
    found = adapted_layers("llama", Adapter(2, 4))
    assert {n.rpartition(".")[2] for n in found} == {
        *("q_proj", "k_proj", "v_proj", "o_proj"),
        *("gate_proj", "up_proj", "down_proj"),
    }


def test_attention_alone_and_with_the_input_embedding() -> None:
    attention = {f"model.layers.{n}.self_attn.{p}" for n in (0, 1) for p in ("q_proj", "v_proj")}
    assert adapted_layers("llama", Adapter(2, 4, targets="attention")) == attention
    both = adapted_layers("llama", Adapter(2, 4, targets="attention", embeddings=True))
    assert both == {*attention, "model.embed_tokens"}


def test_paths_of_modules() -> None:
    one = "model.layers.0.mlp.up_proj"
    assert adapted_layers("llama", Adapter(2, 4, targets=[one])) == {one}


def test_numbers_are_handed_on() -> None:
    config = lora_config(tiny_module(20), Adapter(3, 5, 0.25, rslora=True), fan_in_fan_out=True)
    assert (config.r, config.lora_alpha, config.lora_dropout) == (3, 5, 0.25)
    assert config.use_rslora and config.fan_in_fan_out


def test_layers_that_are_not_there_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"GPT2LMHeadModel has no q_proj and v_proj: take targets=all"):
        lora_config(tiny_module(20, "gpt2"), Adapter(2, 4, targets="attention"))
    with pytest.raises(SettingsError, match=r"no module 'model\.layers\.0\.mlp\.up'.*Did you mean .*up_proj"):
        lora_config(tiny_module(20), Adapter(2, 4, targets=["model.layers.0.mlp.up"]))


def test_the_seed_decides_the_weights_and_nothing_outside() -> None:
    made = []
    for outside, seed in ((1, 0), (2, 0), (2, 1)):
        torch.manual_seed(outside)
        before, module = torch.get_rng_state(), tiny_model().weights.module
        tuned = adapted(module, lora_config(module, Adapter(2, 4)), seed)
        assert torch.equal(torch.get_rng_state(), before)
        made.append(next(p for n, p in tuned.named_parameters() if "lora_A" in n).detach())
    assert torch.equal(made[0], made[1]) and not torch.equal(made[1], made[2])
