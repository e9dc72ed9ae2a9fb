"""Weights that accelerate offloads: the model is read as any other, and refused wherever weights are written."""

from __future__ import annotations

import copy
import json
import warnings
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
from evenhand.methods.prompting.instruction import Instruction
from evenhand.methods.steering.steering import Steering
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


@pytest.mark.parametrize("stacked", [False, True], ids=["one", "a stack"])
def test_a_method_on_what_cannot_be_saved_is_refused_before_anything_is_written(
    stacked: bool, tiny: LocalModel, tmp_path: Path
) -> None:
    model = Instruction().apply(wrapped(tiny, "cpu_offload", tmp_path))
    model = Instruction().apply(model) if stacked else model
    assert "cannot be saved" in model.save_refused
    with pytest.raises(SettingsError, match=r"offloaded without a device map and cannot be saved: load it without"):
        model.save(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_a_steered_model_that_cannot_be_saved_is_refused_before_anything_is_written(
    tiny: LocalModel, tmp_path: Path
) -> None:
    words = ("dog", "cat", "she", "nurse")
    data = TrainData(pairs=tuple(Pair(f"the {a} {b}", f"{b} the {a}") for a in words for b in words))
    model = Steering(layer=1, validation_fraction=0.0).apply(wrapped(tiny, "cpu_offload", tmp_path), data)
    with pytest.raises(SettingsError, match="cannot be saved"):
        model.save(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_a_method_on_an_untouched_source_is_saved_by_its_name(tiny: LocalModel, tmp_path: Path) -> None:
    """Its weights are not written, so that it does not matter where they are."""
    tiny.save(tmp_path / "source")
    source = LocalModel(
        cpu_offload(copy.deepcopy(tiny.weights.module)),
        tiny.weights.tokenizer,
        name="m",
        source=str(tmp_path / "source"),
        folders=[tmp_path / "source"],
    )
    assert source.save_refused
    saved = Instruction().apply(source).save(tmp_path / "saved")
    assert json.loads((saved / "evenhand.json").read_text())["base"]["source"] == str(tmp_path / "source")


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


def adapted(tiny: LocalModel, config: Any) -> Any:
    """A model in memory under a trained adapter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # PEFT's, about a model without a name
        tuned: Any = peft.get_peft_model(copy.deepcopy(tiny.weights.module), config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in tuned.parameters():
            if p.requires_grad:
                p.add_(0.2 * torch.randn(p.shape, generator=generator))
    return tuned


LINEAR: dict[str, Any] = {"target_modules": ["q_proj", "down_proj"]}


@pytest.mark.parametrize(
    "config",
    [
        lambda: peft.LoraConfig(r=2, **LINEAR),
        lambda: peft.LoraConfig(r=2, **LINEAR, modules_to_save=["lm_head"]),
        lambda: peft.OFTConfig(oft_block_size=4, **LINEAR),
        lambda: peft.LNTuningConfig(target_modules=["input_layernorm"]),
    ],
    ids=["LoRA", "modules_to_save", "OFT", "LN tuning"],
)
def test_adapters_that_run_their_modules_are_read_under_offloading(config: Callable[[], Any], tiny: LocalModel) -> None:
    tuned, tokenizer = adapted(tiny, config()), tiny.weights.tokenizer
    plain = evenhand.wrap(copy.deepcopy(tuned), tokenizer).score(PASSAGES)
    assert plain[0].logprob != pytest.approx(tiny.score(PASSAGES)[0].logprob, abs=1e-3)
    for one, other in zip(evenhand.wrap(cpu_offload(tuned), tokenizer).score(PASSAGES), plain, strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-4)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (lambda: peft.LoraConfig(r=2, use_dora=True, **LINEAR), r"\(LORA\) has DoRA at .*q_proj"),
        (lambda: peft.LoraConfig(r=2, trainable_token_indices=[3], **LINEAR), "has trainable tokens at .*embed_tokens"),
        (lambda: peft.TrainableTokensConfig(token_indices=[3]), r"\(TRAINABLE_TOKENS\) has trainable tokens at"),
        (
            lambda: peft.LoraConfig(r=2, target_modules=["embed_tokens"]),
            "has lora_embedding_A.* at .*embed_tokens",
        ),
        (lambda: peft.LoraConfig(r=2, target_modules=[], target_parameters=["q_proj.weight"]), "has target_parameters"),
        (lambda: peft.LoHaConfig(r=2, **LINEAR), r"\(LOHA\) has hada_w1_a"),
        (lambda: peft.LoKrConfig(r=2, **LINEAR), r"\(LOKR\) has lokr_w1"),
        (lambda: peft.HRAConfig(r=4, **LINEAR), r"\(HRA\) has hra_u"),
        (lambda: peft.C3AConfig(block_size=8, **LINEAR), r"\(C3A\) has c3a_kernel"),
        (lambda: peft.FourierFTConfig(n_frequency=8, **LINEAR), r"\(FOURIERFT\) has fourierft_spectrum"),
        (lambda: peft.IA3Config(feedforward_modules=["down_proj"], **LINEAR), r"\(IA3\) has ia3_l"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_adapters_that_read_weights_of_modules_that_do_not_run_are_refused_by_name(
    config: Callable[[], Any], named: str, tiny: LocalModel
) -> None:
    """PEFT reads them on the device meta: some of these kinds fail there, others gave wrong probabilities."""
    module = cpu_offload(adapted(tiny, config()))
    with pytest.raises(SettingsError, match=f"{named}.*offloaded.*arbitrary: load it without offloading") as error:
        evenhand.wrap(module, tiny.weights.tokenizer)
    assert "\n" not in str(error.value)


def test_dora_is_read_where_its_own_layers_are_in_memory(tiny: LocalModel, tmp_path: Path) -> None:
    config = peft.LoraConfig(r=2, use_dora=True, layers_to_transform=[0], target_modules=["q_proj"])
    tuned = adapted(tiny, config)
    plain = evenhand.wrap(copy.deepcopy(tuned), tiny.weights.tokenizer).score(PASSAGES)
    _in_part(tuned.get_base_model(), tmp_path)
    found = evenhand.wrap(tuned, tiny.weights.tokenizer).score(PASSAGES)
    assert found[0].logprob == pytest.approx(plain[0].logprob, abs=1e-4)


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
