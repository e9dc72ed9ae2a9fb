"""Vectors of fine-tunes from elsewhere, compared with PEFT's own reload: strength -1 is the fine-tune, 0 the base."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora.config import CordaConfig, LoraGAConfig
from peft.tuners.lora.corda import preprocess_corda
from peft.tuners.lora.loraga import preprocess_loraga
from torch import nn
from transformers import AutoModelForCausalLM

from evenhand.errors import EvenhandError, SettingsError
from evenhand.methods.unlearning._negation import adapted, merged
from evenhand.methods.unlearning._task_vectors import TaskVector, total
from evenhand.methods.unlearning._tuned_folder import vector_of_folder
from evenhand.models.tiny import tiny_module

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]
IDS = torch.tensor([[1, 5, 9, 2, 7, 3]])
EXACT = 1e-4
"""Largest difference of logits in float32; the logits are up to 20 in absolute value."""
LAYERS = ["q_proj", "down_proj"]
GPT2 = {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}
KINDS: dict[str, dict[str, Any]] = {
    "default": {},
    "gaussian": {"init_lora_weights": "gaussian"},
    "orthogonal": {"init_lora_weights": "orthogonal"},
    "mica": {"init_lora_weights": "mica"},
    "eva": {"init_lora_weights": "eva"},
    "pissa": {"init_lora_weights": "pissa"},
    "olora": {"init_lora_weights": "olora"},
    "rslora pissa": {"init_lora_weights": "pissa", "use_rslora": True},
    "dora": {"use_dora": True},
    "dora pissa": {"use_dora": True, "init_lora_weights": "pissa"},
    "patterns pissa": {"init_lora_weights": "pissa", "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"q_proj": 5}},
    "embeddings": {"target_modules": ["q_proj", "embed_tokens"]},
    "embeddings pissa": {"target_modules": ["q_proj", "embed_tokens"], "init_lora_weights": "pissa"},
    "embeddings dora": {"target_modules": ["q_proj", "embed_tokens"], "use_dora": True},
    "head": {"target_modules": ["q_proj", "lm_head"]},
    "head pissa": {"target_modules": ["q_proj", "lm_head"], "init_lora_weights": "pissa"},
    "head olora": {"target_modules": ["q_proj", "lm_head"], "init_lora_weights": "olora"},
    "saved modules": {"modules_to_save": ["lm_head", "norm"]},
    "saved modules pissa": {"modules_to_save": ["embed_tokens"], "init_lora_weights": "pissa"},
    "tokens": {"trainable_token_indices": [3, 5]},
    "tokens pissa": {"trainable_token_indices": [3, 5], "init_lora_weights": "pissa"},
    "gpt2": GPT2,
    "gpt2 pissa": {**GPT2, "init_lora_weights": "pissa"},
    "gpt2 biases": {**GPT2, "bias": "lora_only", "init_lora_weights": "pissa"},
}
CONVERTED = ("pissa", "pissa_niter_4", "olora", "rslora pissa")


def given(kind: str, *, tied: bool) -> Any:
    module: Any = tiny_module(40, "gpt2" if kind.startswith("gpt2") else "llama")
    head, inputs = module.get_output_embeddings(), module.get_input_embeddings()
    head.weight = inputs.weight if tied else nn.Parameter(inputs.weight.detach().clone().flip(0))
    module.config.tie_word_embeddings = tied
    return module


def trained(module: Any, seed: int = 0) -> Any:
    """A model as after a training: no weight that is learned is where it was."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            if p.requires_grad:
                p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return module.eval()


def adapter(module: Any, **config: Any) -> Any:
    torch.manual_seed(0)
    return get_peft_model(
        copy.deepcopy(module), LoraConfig(**{"r": 4, "lora_alpha": 12, "target_modules": LAYERS} | config)
    )


def logits(module: Any) -> torch.Tensor:
    with torch.no_grad():
        return module.eval()(input_ids=IDS).logits


def gap(one: Any, other: Any) -> float:
    return float((logits(one) - logits(other)).abs().max())


def less(vector: TaskVector, strength: float) -> TaskVector:
    return total([(vector, lambda name: -strength)])


def parted_and_merged(tuned: Any) -> Any:
    """PEFT's own merge, after every name of a tied weight was given a weight of its own."""
    whole = copy.deepcopy(tuned)
    seen: set[int] = set()
    for name, p in list(whole.named_parameters(remove_duplicate=False)):
        if id(p) in seen:
            path, _, last = name.rpartition(".")
            setattr(whole.get_submodule(path), last, nn.Parameter(p.detach().clone()))
        seen.add(id(p))
    whole.config.tie_word_embeddings = False
    return whole.merge_and_unload()


def mirrored(base: Any, tuned: Any) -> Any:
    """The model with base - (tuned - base) in every weight."""
    weights = dict(base.named_parameters(remove_duplicate=False))
    out = copy.deepcopy(tuned)
    with torch.no_grad():
        for name, p in out.named_parameters(remove_duplicate=False):
            p.copy_(2 * weights[name] - p)
    return out


def check(folder: Path, base: Any, reloaded: Any) -> None:
    """The whole table for one fine-tune: strengths -1, 0 and 1, merged and, where one can hold it, as an adapter."""
    before = {name: p.detach().clone() for name, p in base.named_parameters()}
    vector = vector_of_folder(folder, base)
    peft_merged = parted_and_merged(reloaded) if hasattr(reloaded, "peft_config") else reloaded
    assert gap(peft_merged, reloaded) < EXACT
    assert gap(base, reloaded) > 0.02
    for expected, strength in ((reloaded, -1.0), (base, 0.0), (mirrored(base, peft_merged), 1.0)):
        found, _ = merged(base, less(vector, strength))
        assert gap(found, expected) < EXACT, strength
        if vector.low_rank and strength:
            assert gap(adapted(base, less(vector, strength), named=False), expected) < EXACT, strength
    assert gap(merged(base, less(vector, 0.0))[0], base) == 0.0
    assert all(torch.equal(p, before[name]) for name, p in base.named_parameters())


ENDS = ("default", "pissa", "olora", "dora pissa", "embeddings", "head", "saved", "tokens", "gpt2")
"""Kinds that are also tried on tied embeddings: those that touch them, and one of each that does not."""
CASES = [(kind, tied) for kind in KINDS for tied in (False, True) if not tied or kind.startswith(ENDS)]


@pytest.mark.parametrize(("kind", "tied"), CASES)
def test_an_adapter_as_peft_saves_it(kind: str, tied: bool, tmp_path: Path) -> None:
    base = given(kind, tied=tied)
    trained(adapter(base, **KINDS[kind])).save_pretrained(tmp_path)
    check(tmp_path, base, PeftModel.from_pretrained(copy.deepcopy(base), tmp_path).eval())


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("kind", CONVERTED)
def test_an_adapter_that_was_converted_to_lora(kind: str, tied: bool, tmp_path: Path) -> None:
    base = given(kind, tied=tied)
    live = adapter(base, **KINDS.get(kind, {"init_lora_weights": kind}))
    live.peft_config["default"].init_lora_weights = True
    live.save_pretrained(tmp_path / "start")
    live.peft_config["default"].init_lora_weights = KINDS.get(kind, {"init_lora_weights": kind})["init_lora_weights"]
    trained(live).save_pretrained(tmp_path / "end", path_initial_model_for_weight_conversion=str(tmp_path / "start"))
    reloaded = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path / "end").eval()
    assert gap(reloaded, live) < EXACT
    check(tmp_path / "end", base, reloaded)


def changing(start: str, base: Any) -> Any:
    """An adapter whose initialisation has changed the base."""
    module = copy.deepcopy(base)
    config: dict[str, Any] = {"r": 4, "lora_alpha": 12, "target_modules": LAYERS, "init_lora_weights": start}

    def run() -> None:
        module(input_ids=IDS)

    if start == "corda":
        lora = LoraConfig(**config, corda_config=CordaConfig(corda_method="ipm"))
        preprocess_corda(module, lora, run_model=run)
    elif start == "lora_ga":
        lora = LoraConfig(**config, lora_ga_config=LoraGAConfig())
        preprocess_loraga(module, lora, lambda: module(input_ids=IDS, labels=IDS).loss.backward())
        module.zero_grad()
    else:
        lora = LoraConfig(**config)
    torch.manual_seed(0)
    return get_peft_model(module, lora)


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("start", ["pissa", "pissa_niter_4", "olora", "corda", "lora_ga"])
def test_an_adapter_with_the_residual_model_that_it_names(start: str, tied: bool, tmp_path: Path) -> None:
    base = given(start, tied=tied)
    live = changing(start, base)
    residual = copy.deepcopy(live).unload()
    residual.save_pretrained(tmp_path / "residual")
    assert gap(residual, base) > 0.02
    live.peft_config["default"].init_lora_weights = True
    live.peft_config["default"].base_model_name_or_path = str(tmp_path / "residual")
    trained(live).save_pretrained(tmp_path / "adapter")
    check(tmp_path / "adapter", base, live)


@pytest.mark.parametrize("start", ["pissa_niter_4", "corda", "lora_ga"])
def test_an_initialisation_that_peft_does_not_repeat_is_refused(start: str, tmp_path: Path) -> None:
    base = given(start, tied=False)
    trained(changing(start, base)).save_pretrained(tmp_path)
    with pytest.raises(EvenhandError, match="path_initial_model_for_weight_conversion"):
        vector_of_folder(tmp_path, base)


def test_factors_that_do_not_fit_their_layer_are_refused_with_the_weight(tmp_path: Path) -> None:
    base = given("gpt2", tied=True)  # PEFT's OLoRA takes the weight of GPT-2's layers for [outputs, inputs]
    trained(adapter(base, **GPT2, init_lora_weights="olora")).save_pretrained(tmp_path)
    with pytest.raises(SettingsError, match=r"h\.0\.attn\.c_attn\.weight is \(96, 32\), .* \(32, 96\).* cannot run"):
        vector_of_folder(tmp_path, base)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"lora_bias": True}, r"q_proj\.bias is \(\d+,\), and this layer of the model has no bias.*lora_bias=False"),
        ({"layer_replication": [[0, 2], [0, 2]]}, r"layers\.2\.self_attn\.q_proj\.weight .* no such weight.*layer_re"),
    ],
)
def test_an_adapter_that_runs_and_no_vector_can_hold_is_refused_with_the_true_reason(
    config: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    base = given("default", tied=False)
    live = trained(adapter(base, **config))
    live.save_pretrained(tmp_path)
    assert gap(PeftModel.from_pretrained(copy.deepcopy(base), tmp_path).eval(), live) < EXACT, "PEFT's reload runs"
    with pytest.raises(SettingsError, match=reason) as told:
        vector_of_folder(tmp_path, base)
    assert "cannot run" not in str(told.value) and "OLoRA" not in str(told.value)


def named(folder: Path, name: str, **entries: Any) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "base_model_name_or_path": name, **entries}))


def test_a_base_that_has_moved_is_said(tmp_path: Path) -> None:
    base = given("pissa", tied=False)
    trained(adapter(base, init_lora_weights="pissa")).save_pretrained(tmp_path)
    named(tmp_path, "/nowhere/base")
    with pytest.warns(UserWarning, match="trained on /nowhere/base, which is not a folder here"):
        vector = vector_of_folder(tmp_path, base)
    reloaded = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path).eval()
    assert gap(merged(base, less(vector, -1.0))[0], reloaded) < EXACT


def test_another_base_is_refused_with_the_weight(tmp_path: Path) -> None:
    base = given("default", tied=False)
    trained(adapter(base)).save_pretrained(tmp_path / "adapter")
    other = copy.deepcopy(base)
    with torch.no_grad():
        other.model.norm.weight.add_(0.5)
    other.save_pretrained(tmp_path / "other")
    named(tmp_path / "adapter", str(tmp_path / "other"))
    with pytest.raises(SettingsError, match=r"differs from this model in model\.norm\.weight \(1 weights outside"):
        vector_of_folder(tmp_path / "adapter", base)
    assert vector_of_folder(tmp_path / "adapter", other).low_rank
    tiny_module(44).save_pretrained(tmp_path / "larger")
    named(tmp_path / "adapter", str(tmp_path / "larger"))
    with pytest.raises(SettingsError, match=r"another model: .*weight is \(44, 32\) in its base and \(40, 32\)"):
        vector_of_folder(tmp_path / "adapter", base)


def test_a_residual_that_peft_would_change_again_is_refused(tmp_path: Path) -> None:
    base = given("pissa", tied=False)
    live = adapter(base, init_lora_weights="pissa")
    copy.deepcopy(live).unload().save_pretrained(tmp_path / "residual")
    trained(live).save_pretrained(tmp_path / "adapter")
    named(tmp_path / "adapter", str(tmp_path / "residual"))
    with pytest.raises(SettingsError, match="set init_lora_weights to true"):
        vector_of_folder(tmp_path / "adapter", base)
    named(tmp_path / "adapter", str(tmp_path / "residual"), init_lora_weights=True)
    check(tmp_path / "adapter", base, live)


# ----------------------------------------------------------------------------------------------- whole models


@pytest.mark.parametrize("tied", [(False, False), (False, True), (True, False), (True, True)])
def test_a_whole_model_with_tied_embeddings_or_without(tied: tuple[bool, bool], tmp_path: Path) -> None:
    base, whole = (given("default", tied=t) for t in tied)
    trained(whole).save_pretrained(tmp_path)
    opened = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert gap(opened, whole) == 0.0
    vector = vector_of_folder(tmp_path, base)
    assert gap(merged(base, less(vector, -1.0))[0], opened) < EXACT
    assert gap(merged(base, less(vector, 0.0))[0], base) == 0.0
    head = merged(base, less(vector, -1.0))[0].get_output_embeddings().weight
    weights = dict(base.named_parameters(remove_duplicate=False))
    mirror, _ = merged(base, less(vector, 1.0))
    for name, p in whole.named_parameters(remove_duplicate=False):
        assert torch.allclose(mirror.get_parameter(name), 2 * weights[name] - p, atol=1e-6)
    if tied == (True, True):
        assert head is not whole.get_output_embeddings().weight and len(vector.changes) == len(weights)


def test_a_whole_model_in_half_precision(tmp_path: Path) -> None:
    base = given("default", tied=False)
    whole = trained(copy.deepcopy(base)).to(torch.bfloat16)
    whole.save_pretrained(tmp_path)
    vector = vector_of_folder(tmp_path, base)
    assert torch.allclose(logits(merged(base, less(vector, -1.0))[0]), logits(whole.float()), atol=EXACT, rtol=EXACT)
    assert not vector_of_folder(tmp_path, copy.deepcopy(whole).to(torch.bfloat16)).changes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"model.layers.0.extra.weight": torch.ones(2)},
            "has weights without a place in it: model.layers.0.extra.weight",
        ),
        ({"model.norm.weight": None}, "lacks the weights model.norm.weight"),
    ],
)
def test_a_whole_model_with_other_tensors_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    base = given("default", tied=False)
    trained(copy.deepcopy(base)).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = {**load_file(file), **change}
    save_file({name: t for name, t in tensors.items() if t is not None}, file, {"format": "pt"})
    with pytest.raises(EvenhandError, match=message):
        vector_of_folder(tmp_path, base)


def test_a_resized_vocabulary_is_refused_with_the_weight(tmp_path: Path) -> None:
    base = given("default", tied=False)
    larger = copy.deepcopy(base)
    larger.resize_token_embeddings(44)
    larger.save_pretrained(tmp_path / "whole")
    with pytest.raises(
        SettingsError, match=r"embed_tokens\.weight is \(44, 32\) in the fine-tune and \(40, 32\) in the"
    ):
        vector_of_folder(tmp_path / "whole", base)
    trained(adapter(larger, modules_to_save=["embed_tokens", "lm_head"])).save_pretrained(tmp_path / "adapter")
    with pytest.raises(EvenhandError, match="size mismatch"):
        vector_of_folder(tmp_path / "adapter", base)
    base.resize_token_embeddings(44)
    vector = vector_of_folder(tmp_path / "adapter", base)
    reloaded = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path / "adapter").eval()
    assert gap(merged(base, less(vector, -1.0))[0], reloaded) < EXACT
