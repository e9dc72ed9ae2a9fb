"""Weights that accelerate offloads: the model is read as any other, and refused wherever weights are written."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from accelerate import cpu_offload, disk_offload, dispatch_model
from transformers import BertConfig, BertForMaskedLM, T5Config, T5ForConditionalGeneration

import evenhand
from evenhand.errors import SettingsError
from evenhand.inference.offload_support import offloaded
from evenhand.interfaces import Method, Pair, Passage, TrainData
from evenhand.methods.unlearning.pairwise import Pairwise
from evenhand.methods.unlearning.pcgu import PCGU
from evenhand.methods.unlearning.task_vector import TaskVectorNegation
from evenhand.models.adapters import merged
from evenhand.models.local import LocalModel
from evenhand.models.masked import MaskedModel
from evenhand.models.tiny import tiny_tokenizer

PASSAGES = [Passage("the dog cat the nurse"), Passage("dog cat"), Passage("dog cat she dog")]
REMEDY = "offloaded .*on the device meta.*load it without offloading"


def _in_part(module: Any, folder: Path) -> Any:
    """The second layer on a disk, everything else in memory."""
    places = dict.fromkeys(["model.embed_tokens", "model.rotary_emb", "model.norm", "lm_head"], "cpu")
    places |= {f"model.layers.{i}": "disk" if i == 1 else "cpu" for i in range(len(module.model.layers))}
    return dispatch_model(module, places, offload_dir=str(folder), main_device="cpu")


WAYS: dict[str, Callable[[Any, Path], Any]] = {
    "one layer": _in_part,
    "cpu_offload": lambda module, _: cpu_offload(module),
    "disk_offload": lambda module, folder: disk_offload(module, str(folder)),
}


def wrapped(tiny: LocalModel, way: str, folder: Path) -> Any:
    module = WAYS[way](copy.deepcopy(tiny.weights.module), folder)
    assert offloaded(module)
    return evenhand.wrap(module, tiny.weights.tokenizer)


@pytest.mark.parametrize("way", WAYS)
def test_an_offloaded_model_answers_as_the_one_in_memory(way: str, tiny: LocalModel, tmp_path: Path) -> None:
    model = wrapped(tiny, way, tmp_path)
    assert model.fingerprint == evenhand.wrap(tiny.weights.module, tiny.weights.tokenizer).fingerprint
    for one, other in zip(model.score(PASSAGES), tiny.score(PASSAGES), strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-4)


@pytest.mark.parametrize("way", ["cpu_offload", "disk_offload"])
def test_what_cannot_be_saved_is_refused_before_anything_is_written(way: str, tiny: LocalModel, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"offloaded without a device map and cannot be saved: load it without"):
        wrapped(tiny, way, tmp_path / "weights").save(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_other_offloaded_values_are_another_model(tiny: LocalModel, tmp_path: Path) -> None:
    module = copy.deepcopy(tiny.weights.module)
    with torch.no_grad():
        module.get_submodule("model.layers.1.mlp.down_proj").get_parameter("weight")[0, 0] += 0.5
    other = evenhand.wrap(_in_part(module, tmp_path), tiny.weights.tokenizer)
    assert other.fingerprint != tiny.fingerprint


@pytest.mark.parametrize("way", WAYS)
def test_editing_and_merging_are_refused_with_the_remedy(way: str, tiny: LocalModel, tmp_path: Path) -> None:
    model = wrapped(tiny, way, tmp_path)
    with pytest.raises(SettingsError, match=REMEDY), model.editing():
        pytest.fail("the weights were handed out")
    with pytest.raises(SettingsError, match=REMEDY):
        merged(model.weights.module)


@pytest.mark.parametrize("method", [TaskVectorNegation(), PCGU(), Pairwise()], ids=lambda m: m.name)
def test_methods_that_write_weights_are_refused(method: Method, tiny: LocalModel, tmp_path: Path) -> None:
    data = TrainData(pairs=(Pair("the dog", "the cat"),), texts=("the dog",))
    model = wrapped(tiny, "one layer", tmp_path)
    assert "offloaded (model.layers.1." in method.unsupported_reason(model, data)
    with pytest.raises(SettingsError, match=REMEDY):
        method.apply(model, data)


def test_an_adapter_without_values_is_refused_when_it_is_read(tiny: LocalModel) -> None:
    module = cpu_offload(copy.deepcopy(tiny.weights.module))
    tuned = peft.get_peft_model(module, peft.LoraConfig(r=2, target_modules=["q_proj"]))
    with pytest.raises(SettingsError, match="put adapters on it before it is offloaded"):
        evenhand.wrap(tuned, tiny.weights.tokenizer).score(PASSAGES)


@pytest.mark.parametrize("kind", ["masked", "encoder-decoder"])
def test_other_kinds_of_models_are_read_alike(kind: str) -> None:
    sizes = {"num_layers": 2, "num_heads": 4, "d_model": 32, "d_kv": 8, "d_ff": 64, "decoder_start_token_id": 0}
    tokenizer = tiny_tokenizer()
    if kind == "masked":
        tokenizer.add_special_tokens({"mask_token": "<mask>"})
        sizes = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32, "intermediate_size": 64}
    config: Any = (BertConfig if kind == "masked" else T5Config)(vocab_size=len(tokenizer), **sizes)
    module: Any = (BertForMaskedLM if kind == "masked" else T5ForConditionalGeneration)(config).eval()

    def model(given: Any) -> Any:
        return MaskedModel(given, tokenizer, name="m") if kind == "masked" else evenhand.wrap(given, tokenizer)

    passages = [Passage("the dog cat")] if kind == "masked" else [Passage(" cat she", "the dog")]
    plain, moved = model(module), model(cpu_offload(copy.deepcopy(module)))
    assert moved.fingerprint == plain.fingerprint
    assert moved.score(passages)[0].logprob == pytest.approx(plain.score(passages)[0].logprob, abs=1e-4)
