"""Task vectors: what they hold of every kind of fine-tuning, and their arithmetic on models."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM

from evenhand.errors import EvenhandError, SettingsError
from evenhand.methods.unlearning._negation import adapted, by_layer, layer_of, merged, plain, spread, untie
from evenhand.methods.unlearning._recipe import weights, write
from evenhand.methods.unlearning._task_vectors import LowRank, TaskVector, difference, from_adapter, random_like, total
from evenhand.methods.unlearning._tuned_folder import vector_of_folder
from evenhand.models.tiny import tiny_module

IDS = torch.tensor([[1, 5, 9, 2, 7, 3]])
LINEAR = {"llama": ["q_proj", "v_proj", "down_proj"], "gpt2": ["c_attn", "c_proj"]}


def base(architecture: str = "llama", *, tied: bool = False) -> Any:
    module: Any = tiny_module(40, architecture)
    if tied and module.get_output_embeddings().weight is not module.get_input_embeddings().weight:
        module.get_output_embeddings().weight = module.get_input_embeddings().weight
        module.config.tie_word_embeddings = True
    return module


def shaken(module: Any, seed: int = 0) -> Any:
    """An adapter as after a training: none of its parameters is zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            if p.requires_grad:
                p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return module.eval()


def with_lora(module: Any, **config: Any) -> Any:
    given = {"r": 4, "lora_alpha": 12, "target_modules": LINEAR["llama"], **config}
    return shaken(get_peft_model(copy.deepcopy(module), LoraConfig(**given)))


def logits(module: Any) -> torch.Tensor:
    with torch.no_grad():
        return module.eval()(input_ids=IDS).logits


def minus(vector: TaskVector, strength: float) -> TaskVector:
    return total([(vector, lambda name: -strength)])


KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "alpha is not r": {"r": 3, "lora_alpha": 7},
    "rslora": {"r": 3, "lora_alpha": 7, "use_rslora": True},
    "embeddings": {"target_modules": ["q_proj", "embed_tokens"]},
    "head": {"target_modules": ["q_proj", "lm_head"]},
    "saved modules": {"modules_to_save": ["lm_head", "norm"]},
    "conv1d": {"target_modules": LINEAR["gpt2"], "fan_in_fan_out": True},
    "biases": {"target_modules": LINEAR["gpt2"], "fan_in_fan_out": True, "bias": "all"},
    "lora's biases": {"target_modules": ["c_fc"], "fan_in_fan_out": True, "lora_bias": True},
    "dora": {"use_dora": True},
}
GPT2 = ("conv1d", "biases", "lora's biases")


def fine_tuned(kind: str, *, tied: bool = False) -> tuple[Any, Any]:
    module = base("gpt2" if kind in GPT2 else "llama", tied=tied)
    return module, with_lora(module, **KINDS[kind])


# --------------------------------------------------------------------------------------- what a vector holds


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:.*tie:UserWarning")
def test_minus_one_is_the_fine_tune_of_every_kind_of_adapter(kind: str) -> None:
    module, tuned = fine_tuned(kind)
    found, _ = merged(module, minus(from_adapter(tuned, module), -1.0))
    assert torch.allclose(logits(found), logits(tuned), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(logits(found), logits(module), atol=0.1)


@pytest.mark.parametrize("kind", ["embeddings", "head", "saved modules"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_adapter_on_one_end_of_tied_embeddings_leaves_the_other(kind: str, tmp_path: Path) -> None:
    module, tuned = fine_tuned(kind, tied=True)
    assert module.get_output_embeddings().weight is module.get_input_embeddings().weight
    found, _ = merged(module, minus(from_adapter(tuned, module), -1.0))
    assert torch.allclose(logits(found), logits(tuned), atol=1e-4, rtol=1e-4)
    found.save_pretrained(tmp_path)
    opened = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(logits(opened), logits(found))
    assert not opened.config.tie_word_embeddings


@pytest.mark.parametrize("kind", ["plain", "alpha is not r", "rslora", "embeddings", "conv1d"])
def test_an_adapter_of_minus_lambda_is_w_minus_lambda_dw(kind: str) -> None:
    module, tuned = fine_tuned(kind)
    vector = from_adapter(tuned, module)
    by_hand = copy.deepcopy(module)
    config = tuned.peft_config["default"]
    scale = config.lora_alpha / (config.r**0.5 if config.use_rslora else config.r)
    with torch.no_grad():
        for path, layer in tuned.get_base_model().named_modules():
            if not hasattr(layer, "lora_A") or "default" not in layer.scaling:
                continue
            weight = by_hand.get_submodule(path).weight
            if len(layer.lora_embedding_A):
                weight -= 0.7 * scale * (layer.lora_embedding_B["default"] @ layer.lora_embedding_A["default"]).T
            else:
                change = layer.lora_B["default"].weight @ layer.lora_A["default"].weight
                weight -= 0.7 * scale * (change.T if kind == "conv1d" else change)
    one, two = adapted(module, minus(vector, 0.7), named=False), merged(module, minus(vector, 0.7))[0]
    assert torch.allclose(logits(one), logits(by_hand), atol=1e-4, rtol=1e-4)
    assert torch.allclose(logits(two), logits(by_hand), atol=1e-4, rtol=1e-4)
    for name, p in two.named_parameters():
        assert torch.allclose(p, by_hand.get_parameter(name), atol=1e-6)


def test_full_fine_tuning_keeps_tied_weights_tied() -> None:
    module = base(tied=True)
    tuned = shaken(copy.deepcopy(module))
    vector = difference(tuned, module)
    assert {"lm_head.weight", "model.embed_tokens.weight"} <= set(vector.changes)
    found, _ = merged(module, minus(vector, 0.5))
    assert found.get_output_embeddings().weight is found.get_input_embeddings().weight
    expected = module.lm_head.weight - 0.5 * (tuned.lm_head.weight - module.lm_head.weight)
    assert torch.allclose(found.lm_head.weight, expected, atol=1e-6)
    shared = float(vector.dense("lm_head.weight").square().sum())
    every = sum(float(vector.dense(n).square().sum()) for n in vector.changes)
    assert vector.norm() ** 2 == pytest.approx(every - shared, rel=1e-5)


# ------------------------------------------------------------------------------------------------ arithmetic


@pytest.mark.parametrize("kind", ["plain", "full"])
def test_lambda_0_is_bit_for_bit_the_base(kind: str) -> None:
    module = base()
    vector = from_adapter(with_lora(module), module) if kind == "plain" else difference(shaken(base()), module)
    found, lost = merged(module, minus(vector, 0.0))
    assert lost == 0
    for name, p in found.named_parameters():
        assert torch.equal(p, module.get_parameter(name))


@pytest.mark.parametrize("kind", ["plain", "saved modules"])
def test_adding_and_taking_out_again_gives_the_base(kind: str) -> None:
    module, tuned = fine_tuned(kind)
    vector = from_adapter(tuned, module)
    there, _ = merged(module, minus(vector, -0.6))
    back, _ = merged(there, minus(vector, 0.6))
    assert max(float((p - module.get_parameter(n)).detach().abs().max()) for n, p in back.named_parameters()) < 1e-6
    assert max(float((p - module.get_parameter(n)).detach().abs().max()) for n, p in there.named_parameters()) > 0.01


def test_two_vectors_add_up_without_cross_terms() -> None:
    module = base()
    one = from_adapter(with_lora(module, r=2, lora_alpha=2), module)
    two = from_adapter(shaken(with_lora(module, r=5, lora_alpha=20, target_modules=["q_proj", "up_proj"]), 7), module)
    both = total([(one, lambda name: -0.5), (two, lambda name: -0.25)])
    assert both.low_rank
    expected = {n: torch.zeros(()) for n in both.changes}
    for vector, factor in ((one, -0.5), (two, -0.25)):
        for name in vector.changes:
            expected[name] = expected[name] + factor * vector.dense(name)
    for name in both.changes:
        assert torch.allclose(both.dense(name), expected[name], atol=1e-6)
    whole, _ = merged(module, both)
    assert torch.allclose(logits(adapted(module, both, named=False)), logits(whole), atol=1e-4, rtol=1e-4)
    q = "model.layers.0.self_attn.q_proj.weight"
    a, b = one.changes[q][0], two.changes[q][0]  # type: ignore[index]
    up, down = torch.cat([a.up, b.up], 1), torch.cat([a.down, b.down])
    mixed = (a.up + b.up[:, :2]) @ (a.down + b.down[:2])  # what averaging factors would have
    assert not torch.allclose(both.dense(q), mixed, atol=1e-3)
    assert up.shape[1] == down.shape[0] == 7


def test_a_product_and_a_tensor_add_up() -> None:
    low = TaskVector({"w": (LowRank(torch.tensor([[1.0, 2.0, 0.0]]), torch.tensor([[1.0], [3.0]]), 0.5),)})
    full = TaskVector({"w": torch.ones(2, 3), "v": torch.tensor([4.0])})
    found = total([(low, lambda name: 2.0), (full, lambda name: -1.0)])
    assert found.dense("w").tolist() == [[0.0, 1.0, -1.0], [2.0, 5.0, -1.0]]
    assert found.dense("v").tolist() == [-4.0]
    assert not found.low_rank
    assert low.norm() == pytest.approx(0.5 * (1 + 4 + 9 + 36) ** 0.5)


def test_strength_by_layer() -> None:
    factor = by_layer(2.0, (1.0, 0.0), 0.25, 3)
    names = [f"model.layers.{n}.self_attn.q_proj.weight" for n in range(3)]
    assert [factor(n) for n in names] == [2.0, 1.0, 0.0]
    assert factor("model.embed_tokens.weight") == 0.5
    assert layer_of("transformer.h.11.mlp.c_fc.weight") == 11 and layer_of("lm_head.weight") is None
    assert spread((3.0,), 4) == [3.0] * 4
    assert spread((0.0, 1.0, 5.0), 5) == [0.0, 0.5, 1.0, 3.0, 5.0]
    with pytest.raises(SettingsError, match="3 factors for 2 layers"):
        spread((1.0, 1.0, 1.0), 2)


def test_a_layer_with_factor_0_stays_as_it_is() -> None:
    module = base()
    vector = from_adapter(with_lora(module), module)
    found, _ = merged(module, total([(vector, by_layer(-1.0, (0.0, 1.0), 1.0, 2))]))
    first, second = (f"model.layers.{n}.self_attn.q_proj.weight" for n in range(2))
    assert torch.equal(found.get_parameter(first), module.get_parameter(first))
    expected = module.get_parameter(second) - vector.dense(second)
    assert torch.allclose(found.get_parameter(second), expected, atol=1e-6)


# -------------------------------------------------------------------------------------------------- control


@pytest.mark.parametrize("kind", ["plain", "full"])
def test_a_random_vector_has_the_norms_and_ranks_and_another_direction(kind: str) -> None:
    module = base(tied=True)
    vector = from_adapter(with_lora(module), module) if kind == "plain" else difference(shaken(base(tied=True)), module)
    drawn = random_like(vector, 3)
    assert list(drawn.changes) == list(vector.changes)
    assert drawn.norm() == pytest.approx(vector.norm(), rel=1e-5)
    for name in vector.changes:
        a, b = vector.dense(name), drawn.dense(name)
        assert float(b.norm()) == pytest.approx(float(a.norm()), rel=1e-4)
        if a.numel() > 500:
            assert abs(float((a * b).sum() / a.norm() / b.norm())) < 0.2
        if kind == "plain":
            assert int(torch.linalg.matrix_rank(b)) == int(torch.linalg.matrix_rank(a)) == 4
    assert not torch.equal(random_like(vector, 4).dense(name), drawn.dense(name))
    if kind == "full":
        found, _ = merged(module, drawn)
        assert found.lm_head.weight is found.model.embed_tokens.weight


# -------------------------------------------------------------------------------------------------- precision


def test_half_precision_is_summed_in_float32_and_says_what_it_lost() -> None:
    module = base().to(torch.bfloat16)
    name = "model.layers.0.mlp.up_proj.weight"
    with torch.no_grad():
        module.get_parameter(name).fill_(1.0)
    change = torch.full((64, 32), 2**-10)  # bfloat16 has 8 bits: a quarter of the step above 1
    change[:16] = 2**-6
    found, lost = merged(module, TaskVector({name: change}))
    assert found.get_parameter(name).dtype == torch.bfloat16
    assert found.get_parameter(name)[:16].unique().item() == 1 + 2**-6
    assert found.get_parameter(name)[16:].unique().item() == 1.0
    assert lost == 0.75
    many = total([(TaskVector({name: change}), lambda n: 1.0)] * 8)  # small ones together are not lost
    assert merged(module, many)[1] == 0.0


def test_quantised_bases_are_refused() -> None:
    module = base()
    layer = module.model.layers[0].self_attn.q_proj
    vector = from_adapter(with_lora(module), module)
    layer.weight = nn.Parameter(layer.weight.to(torch.int8), requires_grad=False)
    for act in (
        lambda: merged(module, vector),
        lambda: adapted(module, vector, named=False),
        lambda: plain(module),
        lambda: difference(base(), module),
    ):
        with pytest.raises(SettingsError, match="quantised"):
            act()


def test_what_does_not_fit_is_refused() -> None:
    module = base()
    with pytest.raises(SettingsError, match="another architecture"):
        merged(module, TaskVector({"nowhere.weight": torch.ones(2)}))
    with pytest.raises(SettingsError, match="another model"):
        merged(module, TaskVector({"model.norm.weight": torch.ones(2)}))
    with pytest.raises(SettingsError, match=r"embed_tokens.weight is \(41, 32\) in the fine-tune"):
        difference(tiny_module(41), module)
    with pytest.raises(SettingsError, match="form=merged"):
        adapted(module, TaskVector({"model.norm.weight": torch.ones(32)}), named=False)


# ---------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("kind", ["saved modules", "full"])
def test_vectors_survive_storage(kind: str, tmp_path: Path) -> None:
    module = base(tied=True)
    if kind == "full":
        vector = difference(shaken(copy.deepcopy(module)), module)
    else:
        vector = from_adapter(with_lora(module, modules_to_save=["norm"]), module)
    vector.save(tmp_path)
    again = TaskVector.load(tmp_path)
    assert list(again.changes) == list(vector.changes)
    for name in vector.changes:
        assert torch.equal(again.dense(name), vector.dense(name))
    assert again.norm() == vector.norm()
    assert not untie(copy.deepcopy(module), again) if kind == "full" else again.changes
    (tmp_path / "task_vector.safetensors").write_bytes(b"broken")
    with pytest.raises(EvenhandError, match="cannot read the task vector"):
        TaskVector.load(tmp_path)


def test_vectors_of_folders(tmp_path: Path) -> None:
    module = base()
    tuned = with_lora(module, use_rslora=True)
    tuned.save_pretrained(tmp_path / "adapter")
    whole = shaken(copy.deepcopy(module))
    whole.save_pretrained(tmp_path / "whole")
    found = vector_of_folder(tmp_path / "adapter", module)
    expected = from_adapter(tuned, module)
    for name in expected.changes:
        assert torch.allclose(found.dense(name), expected.dense(name), atol=1e-7)
    full = vector_of_folder(tmp_path / "whole", module)
    assert torch.allclose(logits(merged(module, minus(full, -1.0))[0]), logits(whole), atol=1e-4, rtol=1e-4)


def test_the_recipe_says_what_was_done(tmp_path: Path) -> None:
    module = base()
    low = from_adapter(with_lora(module), module)
    full = difference(shaken(copy.deepcopy(module)), module)
    factors = [by_layer(0.6, None, 1.0, 2), by_layer(0.5, (1.0, 0.5), 0.0, 2)]

    class Words:
        def save_pretrained(self, folder: Path) -> None:
            (folder / "tokenizer.json").write_text("{}")

    file = write(tmp_path, module, Words(), "org/base", [low, full], factors, named=True)
    recipe = yaml.safe_load(file.read_text())
    assert recipe["merge_method"] == "task_arithmetic" and recipe["base_model"] == "org/base"
    assert recipe["parameters"]["normalize"] is False
    one, two = recipe["models"]
    assert one["model"].startswith("org/base+") and one["parameters"]["weight"] == -0.6
    rows = two["parameters"]["weight"]
    assert rows == [{"filter": ".0.", "value": -0.5}, {"filter": ".1.", "value": -0.25}, {"value": 0.0}]
    # by the rules of mergekit: base + sum of weight * (tuned - base), the first filter in a name counts
    opened = AutoModelForCausalLM.from_pretrained(tmp_path / "tuned-1")
    expected, _ = merged(module, total([(full, lambda n: -factors[1](n))]))
    for name, p in opened.named_parameters():
        value = next(r["value"] for r in rows if r.get("filter", "") in name)
        by_recipe = module.get_parameter(name) + value * (p - module.get_parameter(name))
        assert torch.allclose(by_recipe, expected.get_parameter(name), atol=1e-6)
    assert weights(low, lambda n: 0.3) == -0.3
    assert "--lora-merge-cache" in file.read_text(), "mergekit refuses adapters without it"


def test_a_recipe_of_whole_models_has_full_weights_in_float32(tmp_path: Path) -> None:
    module = base().half()
    low = from_adapter(with_lora(base()), base())

    class Words:
        def save_pretrained(self, folder: Path) -> None:
            (folder / "tokenizer.json").write_text("{}")

    file = write(tmp_path, module, Words(), "org/base", [low], [lambda n: 0.6], named=True, whole=True)
    recipe = yaml.safe_load(file.read_text())
    assert recipe["models"] == [{"model": str(tmp_path / "tuned-0"), "parameters": {"weight": -0.6}}]
    assert "--lora-merge-cache" not in file.read_text() and recipe["out_dtype"] == "float16"
    assert not (tmp_path / "tuned-0/adapter_config.json").exists() and module.dtype == torch.float16
    opened = AutoModelForCausalLM.from_pretrained(tmp_path / "tuned-0")
    for name, p in opened.named_parameters():
        expected = module.get_parameter(name).float()
        assert p.dtype == torch.float32
        assert torch.allclose(p, expected + low.dense(name) if name in low.changes else expected, atol=1e-7)
