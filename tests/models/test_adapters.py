"""Adapters: merged models compute what PEFT computes, and none is opened that is on its base only in part."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

import evenhand
from evenhand.errors import EvenhandError, SettingsError
from evenhand.interfaces import Pair, TrainData, TrainingRecord
from evenhand.methods.unlearning._negation import plain
from evenhand.methods.unlearning._tuned_folder import vector_of_folder
from evenhand.methods.unlearning.pcgu import PCGU
from evenhand.models.adapters import copied, forget_name, merged, open_adapter, untie
from evenhand.models.hugging_face import open_model, save_module
from evenhand.models.tiny import tiny_tokenizer
from evenhand.training.lora import with_adapter
from evenhand.training.students import build, keep

IDS = torch.tensor([[1, 5, 9, 2, 7, 3]])
TIGHT = 1e-5


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # PEFT's, about tied embeddings and models without a name
        yield


def base(architecture: str = "llama", *, tied: bool = True, layers: int = 2, words: int = 40) -> Any:
    sizes: dict[str, Any] = {
        "vocab_size": words,
        "hidden_size": 32,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "tie_word_embeddings": tied,
    }
    if architecture in ("llama", "gemma2"):
        sizes |= {"num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}
    if architecture == "gemma2":
        sizes |= {"head_dim": 8}
    kind = AutoModelForMaskedLM if architecture == "bert" else AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module: Any = kind.from_config(AutoConfig.for_model(architecture, **sizes)).float().eval()
    with torch.no_grad():
        for p in module.parameters():
            if p.dim() == 2:
                p.mul_(3.0)
    return module


def shaken(module: Any, seed: int = 0) -> Any:
    """An adapter as after a training: none of its parameters is zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            if p.requires_grad:
                p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return module.eval()


def under(module: Any, config: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return shaken(get_peft_model(module, config))


def lora(**settings: Any) -> LoraConfig:
    return LoraConfig(**{"r": 4, "lora_alpha": 12, "target_modules": ["q_proj"], **settings})


def logits(module: Any) -> torch.Tensor:
    with torch.no_grad():
        return module.eval()(input_ids=IDS).logits


def off(one: Any, other: Any) -> float:
    """Largest difference of two models' logits."""
    return float((logits(one) - logits(other)).abs().max())


def saved_and_opened(module: Any, folder: Path) -> Any:
    save_module(module, folder)
    tiny_tokenizer().save_pretrained(folder)
    kind = AutoModelForMaskedLM if type(module).__name__.endswith("ForMaskedLM") else AutoModelForCausalLM
    return kind.from_pretrained(folder).eval()


TARGETS = {"q_proj": ["q_proj"], "embed": ["embed_tokens"], "head": ["lm_head"], "both": ["embed_tokens", "lm_head"]}
STARTS: list[Any] = [True, "gaussian", "pissa", "olora", "orthogonal"]


# ----------------------------------------------------------------------------------------------------- merging


@pytest.mark.parametrize("start", STARTS, ids=str)
@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_a_merged_adapter_computes_what_peft_computes(tied: bool, targets: str, start: Any, tmp_path: Path) -> None:
    tuned = under(base(tied=tied), lora(target_modules=TARGETS[targets], init_lora_weights=start))
    want = logits(tuned)
    done = merged(tuned)
    assert torch.equal(logits(tuned), want)  # left as it was
    assert not hasattr(done, "peft_config")
    assert off(done, tuned) < TIGHT
    assert off(saved_and_opened(done, tmp_path), tuned) < TIGHT
    assert done.config.tie_word_embeddings is (tied and targets == "q_proj")


OTHER: dict[str, dict[str, Any]] = {
    "saved head": {"modules_to_save": ["lm_head"]},
    "saved embeddings": {"modules_to_save": ["embed_tokens"]},
    "both saved": {"modules_to_save": ["embed_tokens", "lm_head"]},
    "tokens": {"trainable_token_indices": [3, 5, 9]},
    "tokens apart": {"trainable_token_indices": {"embed_tokens": [3], "lm_head": [5]}},
    "DoRA embeddings": {"target_modules": ["q_proj", "embed_tokens"], "use_dora": True},
    "DoRA head": {"target_modules": ["lm_head"], "use_dora": True},
    "tied adapters": {"target_modules": ["embed_tokens"], "ensure_weight_tying": True},
    "tied adapters of the head": {"target_modules": ["q_proj", "lm_head"], "ensure_weight_tying": True},
    "tied saved modules": {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    "rsLoRA head": {"target_modules": ["lm_head"], "use_rslora": True},
    "biases": {"bias": "all"},
}
STAY_TIED = ("tokens", "tied saved modules", "biases")


@pytest.mark.parametrize("kind", OTHER)
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_other_settings_of_an_adapter_merge_alike(tied: bool, kind: str, tmp_path: Path) -> None:
    if not hasattr(LoraConfig(), "ensure_weight_tying") and "tied" in kind:
        pytest.skip("this PEFT has no ensure_weight_tying")
    tuned = under(base(tied=tied), lora(**OTHER[kind]))
    done = merged(tuned)
    assert off(done, tuned) < TIGHT
    assert off(saved_and_opened(done, tmp_path), tuned) < TIGHT
    if "tied adapters" not in kind:  # whose two products need not be rounded alike
        assert done.config.tie_word_embeddings is (tied and kind in STAY_TIED)
    shared = done.get_output_embeddings().weight is done.get_input_embeddings().weight
    assert shared is done.config.tie_word_embeddings


METHODS: dict[str, Any] = {
    "IA3": lambda: peft.IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]),
    "IA3 on the head": lambda: peft.IA3Config(target_modules=["lm_head"], feedforward_modules=[]),
    "LoHa": lambda: peft.LoHaConfig(target_modules=["q_proj"]),
    "LoKr": lambda: peft.LoKrConfig(target_modules=["lm_head"]),
    "AdaLoRA": lambda: peft.AdaLoraConfig(target_modules=["q_proj"], total_step=10),
    "VeRA": lambda: peft.VeraConfig(target_modules=["q_proj"]),
    "OFT on the head": lambda: peft.OFTConfig(target_modules=["lm_head"], oft_block_size=4),
    "layer norms": lambda: peft.LNTuningConfig(target_modules=["input_layernorm"]),
    "tokens": lambda: peft.TrainableTokensConfig(token_indices=[3, 5]),
}


@pytest.mark.parametrize("method", METHODS)
def test_other_kinds_of_adapters_merge_alike_and_can_be_opened(method: str, tmp_path: Path) -> None:
    module = base()
    tuned = under(copy.deepcopy(module), METHODS[method]())
    done = merged(tuned)
    assert off(done, tuned) < TIGHT
    assert off(saved_and_opened(done, tmp_path / "merged"), tuned) < TIGHT
    tuned.save_pretrained(tmp_path / "adapter")
    assert off(open_adapter(module, tmp_path / "adapter"), tuned) < TIGHT


@pytest.mark.parametrize("targets", [["word_embeddings"], ["decoder"], ["word_embeddings", "decoder"], ["query"]])
def test_masked_models_with_shared_biases_too(targets: list[str], tmp_path: Path) -> None:
    tuned = under(base("bert"), lora(target_modules=targets))
    done = merged(tuned)
    assert off(done, tuned) < TIGHT
    assert off(saved_and_opened(done, tmp_path), tuned) < TIGHT


@pytest.mark.parametrize("architecture", ["gpt2", "gemma2"])
def test_other_architectures_too(architecture: str, tmp_path: Path) -> None:
    inputs = "wte" if architecture == "gpt2" else "embed_tokens"
    tuned = under(base(architecture), lora(target_modules=[inputs]))
    assert off(saved_and_opened(merged(tuned), tmp_path), tuned) < TIGHT


def test_several_adapters_and_switched_off_ones() -> None:
    module = base()
    tuned = get_peft_model(copy.deepcopy(module), lora(target_modules=["lm_head"]), adapter_name="one")
    tuned.add_adapter("two", lora(target_modules=["embed_tokens"]))
    tuned.base_model.set_adapter(["one", "two"])
    shaken(tuned)
    assert off(tuned, module) > 0.1
    assert off(merged(tuned), tuned) < TIGHT
    tuned.base_model.disable_adapter_layers()
    assert off(tuned, module) < TIGHT
    done = merged(tuned)
    assert off(done, module) < TIGHT
    assert done.config.tie_word_embeddings is True


def test_half_precision_is_summed_in_float32_and_rounded_once() -> None:
    tuned = under(base().to(torch.bfloat16), lora(target_modules=["q_proj", "lm_head"]))
    exact = merged(copy.deepcopy(tuned).float())
    done = merged(tuned)
    for name, p in done.named_parameters():
        assert p.dtype == torch.bfloat16
        assert torch.equal(p, exact.get_parameter(name).to(torch.bfloat16)), name


@pytest.mark.parametrize("method", ["prompt", "aLoRA"])
def test_what_no_weights_can_hold_is_refused_by_name(method: str) -> None:
    config: Any = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    if method == "aLoRA":
        config = lora(task_type="CAUSAL_LM", alora_invocation_tokens=[2, 7])
    with pytest.raises(SettingsError, match="PROMPT_TUNING" if method == "prompt" else "LORA"):
        merged(get_peft_model(base(), config))


def test_untying_is_kept_by_a_file_of_any_tied_model(tmp_path: Path) -> None:
    for architecture in ("llama", "bert", "gpt2"):
        module = base(architecture)
        want = logits(module)
        assert untie(module) and not untie(module)
        with torch.no_grad():
            module.get_input_embeddings().weight.mul_(2.0)
        assert float((logits(module) - want).abs().max()) > 0.1
        assert off(saved_and_opened(module, tmp_path / architecture), module) < TIGHT


def test_a_copy_of_tied_adapters_can_be_made() -> None:
    if not hasattr(LoraConfig(), "ensure_weight_tying"):
        pytest.skip("this PEFT has no ensure_weight_tying")
    tuned = under(base(), lora(target_modules=["embed_tokens"], ensure_weight_tying=True))
    twin = copied(tuned)
    assert off(twin, tuned) == 0
    shaken(twin, seed=3)
    assert off(twin, tuned) > 0.01


# ---------------------------------------------------------------------------------- wherever evenhand merges


@pytest.mark.parametrize("targets", TARGETS)
def test_students_and_task_vectors_start_from_what_the_model_computes(targets: str, tmp_path: Path) -> None:
    tuned = under(base(), lora(target_modules=TARGETS[targets]))
    student = with_adapter(tuned, rank=2, alpha=4, dropout=0.0, seed=0, named=True)
    assert off(student, tuned) < TIGHT  # a fresh adapter adds nothing
    assert off(plain(tuned), tuned) < TIGHT
    assert off(build("copied", tuned, layers=2, rank=2, seed=0, named=True), tuned) < TIGHT
    save_module(shaken(student), tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    again, _ = open_model(str(tmp_path / "base"), tmp_path, device="cpu")
    assert off(again, student) < TIGHT


def test_a_masked_student_is_kept_as_it_computes(tmp_path: Path) -> None:
    tuned = under(base("bert"), lora(target_modules=["decoder", "query"]))
    want = logits(tuned)
    keep(tuned, tiny_tokenizer(), TrainingRecord(method="fair_distillation"), tmp_path)
    assert torch.equal(logits(tuned), want)  # saving leaves it as it is
    assert off(AutoModelForMaskedLM.from_pretrained(tmp_path).eval(), tuned) < TIGHT


def test_pcgu_advises_the_merge_that_keeps_tied_embeddings_right() -> None:
    tokenizer = tiny_tokenizer()
    module = under(base(words=len(tokenizer)), lora(target_modules=["lm_head"]))
    model = evenhand.wrap(module, tokenizer)
    assert "evenhand.models.adapters.merged(module)" in PCGU().unsupported_reason(model)
    data = TrainData(pairs=(Pair("he", "she"),))
    assert not PCGU().unsupported_reason(evenhand.wrap(merged(module), tokenizer), data)


# ------------------------------------------------------------------------------------------------------- saving


@pytest.mark.parametrize("start", [*STARTS, "pissa_niter_4"], ids=str)
@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("named", [False, True], ids=["nameless", "named"])
def test_a_saved_adapter_lies_on_the_base_that_it_was_trained_on(
    named: bool, targets: str, start: Any, tmp_path: Path
) -> None:
    base().save_pretrained(tmp_path / "base-model")
    module = AutoModelForCausalLM.from_pretrained(tmp_path / "base-model").eval()
    tuned = under(module, lora(target_modules=TARGETS[targets], init_lora_weights=start))
    if not named:
        forget_name(tuned)
    save_module(tuned, tmp_path / "saved")
    tiny_tokenizer().save_pretrained(tmp_path / "saved")
    where = json.loads((tmp_path / "saved" / "adapter_config.json").read_text())["base_model_name_or_path"]
    source = tmp_path / "saved" / "base" if where == "base" else tmp_path / "base-model"
    again, _ = open_model(str(source), tmp_path / "saved", device="cpu")
    assert off(again, tuned) < TIGHT


def test_what_an_adapters_folder_would_not_give_back_is_not_saved(tmp_path: Path) -> None:
    tuned = under(base(), lora())
    tuned.add_adapter("more", lora(target_modules=["v_proj"]))
    tuned.base_model.set_adapter(["default", "more"])
    with pytest.raises(SettingsError, match="default, more"):
        save_module(tuned, tmp_path)
    tuned.base_model.set_adapter("default")
    tuned.base_model.disable_adapter_layers()
    with pytest.raises(SettingsError, match="switched off"):
        save_module(tuned, tmp_path)
    assert not list(tmp_path.iterdir())
    tuned.base_model.enable_adapter_layers()
    save_module(tuned, tmp_path)
    assert (tmp_path / "adapter_config.json").is_file()


def test_a_kind_that_stays_on_its_base_needs_a_base_with_a_name(tmp_path: Path) -> None:
    config = peft.AdaptionPromptConfig(task_type="CAUSAL_LM", adapter_len=3, adapter_layers=2)
    tuned = under(base(), config)
    with pytest.raises(SettingsError, match="ADAPTION_PROMPT cannot be removed"):
        save_module(tuned, tmp_path)
    with pytest.raises(SettingsError, match="ADAPTION_PROMPT"):
        merged(tuned)
    assert off(open_adapter(base(), tmp_path), tuned) == 0


# ------------------------------------------------------------------------------------------------------ opening


def written(folder: Path, config: Any | None = None, **sizes: Any) -> Path:
    """An adapter's folder."""
    under(base(**sizes), config or lora(target_modules=["q_proj", "v_proj"])).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def renamed(folder: Path, change: Any) -> None:
    """Give the tensors of an adapter other names; those that get none are left out."""
    file = folder / "adapter_model.safetensors"
    save_file({change(k): t for k, t in load_file(file).items() if change(k)}, file, {"format": "pt"})


WRONG_NAMES = {
    "one prefix more": lambda k: f"base_model.model.{k}",
    "no prefix": lambda k: k.removeprefix("base_model.model."),
    "of a multimodal model": lambda k: k.replace("model.model.", "model.model.language_model."),
    "torch.compile": lambda k: k.replace("base_model.model.", "base_model.model._orig_mod."),
    "another projection": lambda k: k.replace("v_proj", "k_proj"),
    "other matrices": lambda k: k.replace("lora_B", "lora_up"),
    "one is missing": lambda k: "" if "layers.1.self_attn.v_proj.lora_B" in k else k,
    "only A": lambda k: "" if "lora_B" in k else k,
    "nothing": lambda k: "",
}


@pytest.mark.parametrize("way", WRONG_NAMES)
def test_an_adapter_with_other_names_is_refused(way: str, tmp_path: Path) -> None:
    renamed(written(tmp_path / "adapter"), WRONG_NAMES[way])
    base().save_pretrained(tmp_path / "base")
    with pytest.raises(EvenhandError, match=r"does not fit its base.*base_model|not in it: base_model"):
        open_model(str(tmp_path / "base"), tmp_path / "adapter", device="cpu")
    with pytest.raises(EvenhandError, match="does not fit its base"):
        vector_of_folder(tmp_path / "adapter", base())


def test_the_message_names_what_is_unused_and_what_is_missing(tmp_path: Path) -> None:
    renamed(written(tmp_path), lambda k: k.replace("layers.0.self_attn.v_proj", "layers.0.self_attn.values"))
    with pytest.raises(EvenhandError) as refused:
        open_adapter(base(), tmp_path)
    layer = "base_model.model.model.layers.0.self_attn"
    assert f"2 of its tensors are not of this model: {layer}.values" in str(refused.value)
    assert f"2 of the model's adapter tensors are not in it: {layer}.v_proj.lora_A" in str(refused.value)


@pytest.mark.parametrize("layers", [1, 3])
def test_an_adapter_for_another_number_of_layers_is_refused(layers: int, tmp_path: Path) -> None:
    with pytest.raises(EvenhandError, match="does not fit its base"):
        open_adapter(base(layers=layers), written(tmp_path))


def test_names_with_the_adapters_name_inside_are_understood(tmp_path: Path) -> None:
    tuned = under(base(), lora())
    tuned.save_pretrained(tmp_path)
    renamed(tmp_path, lambda k: k.replace(".weight", ".default.weight"))
    try:
        again = open_adapter(base(), tmp_path)
    except EvenhandError:
        return  # older releases of PEFT do not know them
    assert off(again, tuned) == 0


def test_an_adapter_of_some_layers_is_opened(tmp_path: Path) -> None:
    config = lora(layers_to_transform=[1], rank_pattern={"q_proj": 2})
    module = base()
    tuned = under(copy.deepcopy(module), config)
    tuned.save_pretrained(tmp_path)
    assert off(open_adapter(module, tmp_path), tuned) == 0


@pytest.mark.parametrize("kind", ["saved head", "tokens", "biases"])
def test_what_is_trained_beside_the_matrices_may_not_be_missing(kind: str, tmp_path: Path) -> None:
    architecture = "gpt2" if kind == "biases" else "llama"
    settings = {**OTHER[kind], **({"target_modules": ["c_attn"]} if architecture == "gpt2" else {})}
    config = lora(fan_in_fan_out=architecture == "gpt2", **settings)
    module = base(architecture)
    tuned = under(copy.deepcopy(module), config)
    tuned.save_pretrained(tmp_path)
    assert off(open_adapter(copy.deepcopy(module), tmp_path), tuned) == 0
    left = {"saved head": "lm_head", "tokens": "delta", "biases": "ln_f.bias"}[kind]
    renamed(tmp_path, lambda k: "" if left in k else k)
    with pytest.raises(EvenhandError, match=left):
        open_adapter(module, tmp_path)


def test_a_base_with_one_weight_for_two_is_refused(tmp_path: Path) -> None:
    under(base(tied=False), lora(target_modules=TARGETS["both"])).save_pretrained(tmp_path)
    with pytest.raises(EvenhandError, match="one weight for both"):
        open_adapter(base(tied=True), tmp_path)


VIRTUAL: dict[str, Any] = {
    "PROMPT_TUNING": lambda: peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
    "PREFIX_TUNING": lambda: peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
    "P_TUNING": lambda: peft.PromptEncoderConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
    "aLoRA": lambda: lora(task_type="CAUSAL_LM", alora_invocation_tokens=[2, 7]),
}


@pytest.mark.parametrize("kind", VIRTUAL)
def test_adapters_outside_of_the_layers_are_refused_by_name(kind: str, tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tuned = under(base(words=len(tokenizer)), VIRTUAL[kind]())
    tuned.save_pretrained(tmp_path)
    with pytest.raises(SettingsError, match=f"of the kind {kind}"):
        open_adapter(base(words=len(tokenizer)), tmp_path)
    with pytest.raises(SettingsError, match=f"of the kind {kind}"):
        evenhand.wrap(tuned, tokenizer)


def test_a_random_decomposition_of_the_base_is_not_made_anew(tmp_path: Path) -> None:
    written(tmp_path, lora(init_lora_weights="pissa_niter_4"))
    with pytest.raises(EvenhandError, match="path_initial_model_for_weight_conversion"):
        open_adapter(base(), tmp_path)


def test_an_adapter_on_an_adapter_is_refused(tmp_path: Path) -> None:
    base().save_pretrained(tmp_path / "base")
    first = written(tmp_path / "first")
    about = first / "adapter_config.json"
    about.write_text(json.dumps({**json.loads(about.read_text()), "base_model_name_or_path": str(tmp_path / "base")}))
    with pytest.raises(EvenhandError, match="is itself an adapter"):
        open_model(str(first), written(tmp_path / "second"), device="cpu")
