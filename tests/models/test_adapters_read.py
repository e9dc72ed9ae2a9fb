"""Adapters in memory: what is read is what they compute, in evaluation mode and without what a training adds."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy

import evenhand
from evenhand.errors import EvenhandError, SettingsError
from evenhand.inference import Engine, Prompt
from evenhand.interfaces import Passage, Sampling
from evenhand.models.adapters import merged, open_adapter
from evenhand.models.hugging_face import save_module
from evenhand.models.local import LocalModel
from evenhand.training import causal_lm_loss, finish_of, layout_of, pack

IDS = torch.tensor([[1, 9, 12, 14, 20, 7]])
PASSAGES = [Passage("the dog cat the nurse"), Passage("dog cat she dog")]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # PEFT's, about models without a name
        yield


def shaken(module: Any, seed: int = 0) -> Any:
    """As after a training: none of what can be trained is as it was."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            if p.requires_grad:
                p.add_(0.2 * torch.randn(p.shape, generator=generator))
    return module


def under(tiny: LocalModel, config: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return shaken(get_peft_model(copy.deepcopy(tiny.weights.module), config)).eval()


def logits(module: Any) -> torch.Tensor:
    with torch.no_grad():
        return torch.as_tensor(module(input_ids=IDS).logits)


def read(module: Any, tiny: LocalModel) -> list[float]:
    return [found.logprob for found in evenhand.wrap(module, tiny.weights.tokenizer).score(PASSAGES)]


# --------------------------------------------------------------------------------------------- several adapters


SEVERAL: dict[str, Callable[[], Any]] = {
    "OFT": lambda: peft.OFTConfig(oft_block_size=8, target_modules=["q_proj"]),
    "C3A": lambda: peft.C3AConfig(block_size=8, target_modules=["q_proj"]),
    "OSF": lambda: peft.OSFConfig(target_modules=["q_proj"]),
    "HRA": lambda: peft.HRAConfig(r=4, target_modules=["q_proj"]),
}


@pytest.mark.parametrize("kind", SEVERAL)
def test_two_active_adapters_are_merged_exactly_or_refused(kind: str, tiny: LocalModel) -> None:
    tuned = under(tiny, SEVERAL[kind]())
    tuned.add_adapter("second", SEVERAL[kind]())
    tuned.set_adapter("second")
    shaken(tuned, seed=3).eval()
    assert torch.allclose(logits(merged(tuned)), logits(tuned), atol=1e-5)
    tuned.base_model.set_adapter(["default", "second"])
    if kind == "HRA":
        assert torch.allclose(logits(merged(tuned)), logits(tuned), atol=1e-5)
        return
    with pytest.raises(
        SettingsError, match=rf"{kind} adapters default, second,? .*activate only one, with model\.set_adapter"
    ):
        merged(tuned)
    tuned.base_model.disable_adapter_layers()
    assert torch.allclose(logits(merged(tuned)), logits(tiny.weights.module), atol=1e-5)


def on_two_layers(kind: str, tiny: LocalModel) -> Any:
    """Two active adapters of a kind, on other layers."""
    tuned = under(tiny, SEVERAL[kind]())
    config = SEVERAL[kind]()
    config.target_modules = {"v_proj"}
    tuned.add_adapter("second", config)
    tuned.set_adapter("second")
    shaken(tuned, seed=3).eval()
    tuned.base_model.set_adapter(["default", "second"])
    return tuned


@pytest.mark.parametrize("kind", ["OFT", "C3A", "HRA"])
def test_two_active_adapters_on_layers_of_their_own_are_merged_exactly(kind: str, tiny: LocalModel) -> None:
    tuned = on_two_layers(kind, tiny)
    both = logits(tuned)
    for one in ("default", "second"):
        tuned.set_adapter(one)
        assert not torch.allclose(logits(tuned), both, atol=1e-4), "both act"
    tuned.base_model.set_adapter(["default", "second"])
    assert torch.allclose(logits(merged(tuned)), both, atol=1e-5)


def test_the_second_osf_adapter_is_not_run_and_so_not_merged(tiny: LocalModel) -> None:
    tuned = on_two_layers("OSF", tiny)
    both = logits(tuned)
    with pytest.raises(SettingsError, match=r"PEFT runs only the first of the OSF adapters default, second.*only one"):
        merged(tuned)
    tuned.set_adapter("default")
    assert torch.equal(logits(tuned), both), "PEFT runs the first alone"
    assert torch.allclose(logits(merged(tuned)), both, atol=1e-5)


def test_the_remedy_of_saving_several_adapters_can_be_followed(tiny: LocalModel, tmp_path: Path) -> None:
    tuned = on_two_layers("C3A", tiny)
    with pytest.raises(SettingsError, match=r"default` switched on: save evenhand.models.adapters.merged\(module\)"):
        save_module(tuned, tmp_path / "several")
    save_module(merged(tuned), tmp_path / "merged")
    tuned = on_two_layers("OSF", tiny)
    remedy = r"activate only one, with model.set_adapter\(name\), and save .*merged\(module\)"
    with pytest.raises(SettingsError, match=remedy):
        save_module(tuned, tmp_path / "several")
    assert not (tmp_path / "several").exists()
    tuned.set_adapter("second")
    save_module(merged(tuned), tmp_path / "one")


def test_a_mixed_model_is_read_and_neither_merged_nor_saved(tiny: LocalModel, tmp_path: Path) -> None:
    first = LoraConfig(r=2, target_modules=["q_proj"])
    mixed: Any = get_peft_model(copy.deepcopy(tiny.weights.module), first, mixed=True)
    mixed.add_adapter("second", peft.LoHaConfig(r=2, target_modules=["v_proj"]))
    mixed.set_adapter(["default", "second"])
    shaken(mixed).eval()
    assert read(mixed, tiny) != pytest.approx(read(tiny.weights.module, tiny), abs=1e-3)
    with pytest.raises(SettingsError, match=r"\(LORA, LOHA\) is not a peft.PeftModel that can be merged"):
        merged(mixed)
    with pytest.raises(SettingsError, match="PEFT does not save a PeftMixedModel"):
        evenhand.wrap(mixed, tiny.weights.tokenizer).save(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


# ------------------------------------------------------------------------------------------------ on in part


def test_a_head_that_stays_off_is_refused_for_reading_and_merging(tiny: LocalModel) -> None:
    """transformers' `enable_adapters` switches LoRA layers on, and leaves the copies of `modules_to_save` off."""
    module: Any = copy.deepcopy(tiny.weights.module)
    module.add_adapter(LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["lm_head"]))
    shaken(module)
    on = read(module, tiny)
    module.disable_adapters()
    assert read(module, tiny) == pytest.approx(read(tiny.weights.module, tiny), abs=1e-5)
    module.enable_adapters()
    with pytest.raises(SettingsError, match=r"switched off \(lm_head\).*enable_adapters leaves modules_to_save"):
        read(module, tiny)
    module.lm_head.enable_adapters(True)
    assert read(module, tiny) == on

    tuned = under(tiny, LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["lm_head"]))
    tuned.get_base_model().lm_head.enable_adapters(False)
    with pytest.raises(SettingsError, match="switched off"):
        merged(tuned)


def test_an_adapter_that_goes_off_in_part_later_is_refused(tiny: LocalModel) -> None:
    module: Any = copy.deepcopy(tiny.weights.module)
    module.add_adapter(LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["lm_head"]))
    model = evenhand.wrap(shaken(module), tiny.weights.tokenizer)
    before, on = model.fingerprint, model.score(PASSAGES)
    module.disable_adapters()
    assert model.fingerprint != before
    assert model.score(PASSAGES)[0].logprob != pytest.approx(on[0].logprob, abs=1e-3)
    module.enable_adapters()
    with pytest.raises(SettingsError, match=r"switched off \(lm_head\).*enable_adapters leaves modules_to_save"):
        model.score(PASSAGES)
    module.lm_head.enable_adapters(True)
    assert (model.fingerprint, model.score(PASSAGES)) == (before, on)


# -------------------------------------------------------------------------------------------- training modes


def test_the_dropout_of_an_adapter_added_after_eval_is_off_while_reading(tiny: LocalModel) -> None:
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], lora_dropout=0.5)
    tuned = under(tiny, config)
    tuned.add_adapter("second", config)
    tuned.set_adapter("second")
    shaken(tuned, seed=3)
    assert not tuned.training and not torch.equal(logits(tuned), logits(tuned)), "PEFT leaves the dropout on"
    engine = Engine(tuned, tiny.weights.tokenizer)
    prompts, steps = [Prompt((1, 9, 12)), Prompt((1, 20))], Sampling(max_new_tokens=8)
    first, text = read(tuned, tiny), engine.generate(prompts, steps, "f")
    assert read(tuned, tiny) == first
    still = copy.deepcopy(tuned).eval()
    assert torch.equal(logits(still), logits(still))
    assert read(still, tiny) == first
    assert Engine(still, tiny.weights.tokenizer).generate(prompts, steps, "f") == text


def test_the_penalty_of_adalora_is_in_no_loss_and_no_score(tiny: LocalModel) -> None:
    tuned = under(tiny, peft.AdaLoraConfig(target_modules=["q_proj", "v_proj"], total_step=10, task_type="CAUSAL_LM"))
    want = float(cross_entropy(logits(tuned)[0, :-1], IDS[0, 1:]))
    assert float(tuned(input_ids=IDS, labels=IDS).loss) > want + 0.01, "PEFT adds it in evaluation mode, too"
    (batch,) = pack([IDS[0].tolist()], layout_of(tuned), labels=[IDS[0].tolist()], length=40)
    assert float(causal_lm_loss(tuned, batch, finish=finish_of(tuned))) == pytest.approx(want, rel=1e-5)
    text = tiny.weights.tokenizer.decode(IDS[0, 1:])
    score = evenhand.wrap(tuned, tiny.weights.tokenizer).score([Passage(text)])[0]
    assert score.tokens == IDS.shape[1] - 1
    assert -score.logprob / score.tokens == pytest.approx(want, rel=1e-5)


# ---------------------------------------------------------------------------------------- opening and saving


@pytest.mark.parametrize("config", [{"use_dora": True}, {"modules_to_save": ["lm_head"]}], ids=["DoRA", "saved head"])
def test_an_opened_adapter_is_the_one_that_was_saved(config: dict[str, Any], tiny: LocalModel, tmp_path: Path) -> None:
    tuned = under(tiny, LoraConfig(r=4, target_modules=["q_proj"], **config))
    tuned.save_pretrained(tmp_path)
    again = open_adapter(copy.deepcopy(tiny.weights.module), tmp_path).eval()
    assert torch.equal(logits(again), logits(tuned))


@pytest.mark.parametrize("start", ["lora_ga", "pissa_niter_4"])
def test_a_start_that_cannot_be_repeated_is_refused_at_opening(start: str, tiny: LocalModel, tmp_path: Path) -> None:
    tuned = under(tiny, LoraConfig(r=4, target_modules=["q_proj"]))
    tuned.save_pretrained(tmp_path)
    file = tmp_path / "adapter_config.json"
    file.write_text(file.read_text().replace('"init_lora_weights": true', f'"init_lora_weights": "{start}"'))
    with pytest.raises(EvenhandError, match=f"init_lora_weights='{start}'"):
        open_adapter(copy.deepcopy(tiny.weights.module), tmp_path)
