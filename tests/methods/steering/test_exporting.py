"""A steered model as plain weights gives what the steered model gives, or says why it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import evenhand
from evenhand.errors import SettingsError
from evenhand.inference.decoder_layers import decoder_layers, rows_of, with_rows
from evenhand.inference.edited_rows import orthonormal
from evenhand.interfaces import Model, TrainData
from evenhand.methods.steering import export
from evenhand.methods.steering._exporting import WRITERS
from evenhand.methods.steering._steered import Steered
from evenhand.methods.steering.fairsteer import FairSteer
from evenhand.methods.steering.steering import Steering

from .steering_pairs import in_all_orders, lettered, tiny
from .test_steering import PASSAGES

DATA = TrainData(pairs=lettered("A"))
EVERYWHERE: dict[str, Any] = {"scope": "all", "skip_first": False, "balance_letters": False}


def applied(model: Model, **more: Any) -> Steered:
    made = Steering.build(**{**EVERYWHERE, **more}).apply(model, DATA)
    assert isinstance(made, Steered)
    return made


def scores(model: Model) -> list[float]:
    return [s.logprob for s in model.score(PASSAGES)]


@pytest.mark.parametrize("architecture", sorted(WRITERS))
def test_adding_to_every_token_is_a_bias(architecture: str, tmp_path: Path) -> None:
    model = tiny(architecture)
    made = applied(model, layer="all", strength=2.0)
    assert scores(made) != pytest.approx(scores(model), abs=1e-3)
    exported = evenhand.load(str(export(made, tmp_path)))
    assert not exported.methods
    assert scores(exported) == pytest.approx(scores(made), abs=1e-5)
    assert exported.training is not None
    assert exported.training.method == "steering"


def test_transformers_alone_opens_it(tmp_path: Path) -> None:
    made = applied(tiny(), layer=0, strength=2.0)
    export(made, tmp_path)
    module = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert module.config.mlp_bias is True
    bias = decoder_layers(module)[0].mlp.down_proj.bias
    assert torch.allclose(bias, 2 * made.fit.directions[0][0], atol=1e-6)
    assert not decoder_layers(module)[1].mlp.down_proj.bias.any()
    assert not decoder_layers(module)[0].mlp.up_proj.bias.any()


def test_several_edits_add_up(tmp_path: Path) -> None:
    first = applied(tiny("gpt2"), layer=0, strength=2.0)
    both = Steering.build(**EVERYWHERE, layer=0, strength=-1.0).apply(first, DATA)
    assert scores(evenhand.load(str(export(both, tmp_path)))) == pytest.approx(scores(both), abs=1e-5)


@pytest.mark.parametrize("architecture", sorted(WRITERS))
def test_ablation_is_taken_out_of_everything_that_writes(architecture: str, tmp_path: Path) -> None:
    model = tiny(architecture)
    made = applied(model, operation="ablate", layer="all", direction_layer=1)
    exported = evenhand.load(str(export(made, tmp_path)))
    basis = orthonormal(made.fit.directions[0]).float()
    module, names = model.weights.module, WRITERS[architecture]

    def without(_: Any, __: Any, output: Any) -> Any:
        rows = rows_of(output)
        return with_rows(output, rows - (rows @ basis.T) @ basis)

    parts = [module.get_submodule(name) for name in names.embeddings]
    parts += [layer.get_submodule(n) for layer in decoder_layers(module) for n in (names.attention, names.last)]
    ids = torch.tensor([[1, 9, 12, 30, 7, 22]])
    with torch.no_grad():
        before, after = (m.weights.module(input_ids=ids).logits for m in (model, exported))
        handles = [part.register_forward_hook(without) for part in parts]
        expected = module(input_ids=ids).logits
        for handle in handles:
            handle.remove()
    assert torch.allclose(after, expected, atol=1e-5)
    assert not torch.allclose(after, before, atol=1e-2)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"scope": "answer"}, "act on every token alike"),
        ({"skip_first": True}, "act on every token alike"),
        ({"operation": "project"}, "project depends on the state"),
        ({"operation": "ablate"}, "only at every layer and strength 1"),
        ({"operation": "ablate", "layer": "all", "strength": 0.5}, "only at every layer and strength 1"),
        ({"operation": "ablate", "layer": "all"}, "give direction_layer"),
    ],
)
def test_what_no_weights_do_is_refused(given: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=message):
        export(applied(tiny(), **{"layer": 0, **given}), tmp_path)
    assert not any(tmp_path.iterdir())


def test_gates_other_architectures_and_other_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="models of the type qwen2 have no bias"):
        export(applied(tiny("qwen2"), layer=0), tmp_path)
    with pytest.raises(SettingsError, match="is not a steered model"):
        export(tiny(), tmp_path)


def test_a_gated_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from evenhand.methods.steering import fairsteer

    monkeypatch.setattr(fairsteer, "LEAST_ROWS", 1)
    mixed = TrainData(pairs=in_all_orders())
    for gate, message in (("token", "a gate depends on the state"), ("prompt", "depends on the prompt")):
        made = FairSteer.build(**EVERYWHERE, layer=0, gate=gate).apply(tiny(), mixed)
        with pytest.raises(SettingsError, match=message):
            export(made, tmp_path)


def test_an_offloaded_model_is_steered_alike_and_its_export_is_refused(tmp_path: Path) -> None:
    from accelerate import cpu_offload

    model, other = tiny("llama"), tiny("llama")
    offloaded = evenhand.wrap(cpu_offload(other.weights.module), other.weights.tokenizer)
    made = applied(offloaded, layer=0, strength=2.0)
    assert scores(made) == pytest.approx(scores(applied(model, layer=0, strength=2.0)), abs=1e-4)
    with pytest.raises(SettingsError, match=r"offloaded .*load it without offloading"):
        export(made, tmp_path / "out")
    assert not (tmp_path / "out").exists()
