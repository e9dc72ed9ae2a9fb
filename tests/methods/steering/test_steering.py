"""`steering` finds what was planted, fits once for a sweep, is saved and loaded, and refuses what it cannot do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import evenhand
from evenhand.core.artifacts import artefacts
from evenhand.core.registry import build_method
from evenhand.errors import EvenhandError, SettingsError
from evenhand.inference.activation_edits import ActivationEdit, LayerEdit
from evenhand.inference.decoder_layers import decoder_layers
from evenhand.interfaces import Model, Passage, Stack, TrainData
from evenhand.methods.steering._fit import FILE
from evenhand.methods.steering._steered import Steered
from evenhand.methods.steering.steering import Steering
from evenhand.models.files import LEARNED, SAVED
from evenhand.models.local import LocalModel
from evenhand.models.steered import steered
from evenhand.testing import check_method
from evenhand.testing.scripted import questions

from .steering_pairs import DATA, PLAIN, lettered, tiny

ASKED = questions(4)
PASSAGES = [Passage(" she", "the nurse was slow and so"), Passage(" he", "the pilot met the nurse")]


def applied(model: Model, data: TrainData = DATA, **more: Any) -> Steered:
    made = Steering.build(**{"layer": 0, **more}).apply(model, data)
    assert isinstance(made, Steered)
    return made


def direction(model: Steered, layer: int = 0) -> Tensor:
    return model.fit.directions[layer][0]


def results(model: Steered) -> dict[str, Any]:
    assert model.training is not None
    return dict(model.training.results)


@contextmanager
def planted(model: LocalModel, token: str, added: Tensor, layer: int = 0) -> Iterator[None]:
    """Within this, the output of a layer has a vector more at every occurrence of a token."""
    module, words = model.weights
    wanted, seen = words.convert_tokens_to_ids(token), []

    def note(_: Any, inputs: Any, __: Any) -> None:
        seen[:] = [inputs[0] == wanted]

    def add(_: Any, __: Any, output: Any) -> Any:
        rows = output[0] if isinstance(output, tuple) else output
        made = rows + seen[0][..., None].to(rows) * added
        return (made, *output[1:]) if isinstance(output, tuple) else made

    handles = [
        module.get_input_embeddings().register_forward_hook(note),
        decoder_layers(module)[layer].register_forward_hook(add),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def same_tokens(model: LocalModel, one: str, other: str) -> None:
    """Let two words have one and the same embedding, so that nothing but what is planted tells them apart."""
    with model.editing() as (module, words):
        weight = module.get_input_embeddings().weight.data
        weight[words.convert_tokens_to_ids(one)] = weight[words.convert_tokens_to_ids(other)]


def planted_vector() -> Tensor:
    return torch.randn(32, generator=torch.Generator().manual_seed(3))


# ----------------------------------------------------------------------------------------------- what is found


def test_a_planted_direction_is_found() -> None:
    model, w = tiny(), planted_vector()
    same_tokens(model, "he", "she")
    with planted(model, "she", w):
        made = applied(model, PLAIN)
    assert torch.allclose(direction(made), w, atol=1e-6)
    assert float(torch.cosine_similarity(direction(made), w, dim=0)) == pytest.approx(1, abs=1e-6)
    assert results(made)["held_out_separation"]["0"] == 1.0
    assert made.training is not None
    assert (made.training.data.training, made.training.data.validation) == (16, 4)


def test_the_first_component_is_not_the_planted_mean_difference() -> None:
    model, w = tiny(), planted_vector()
    same_tokens(model, "he", "she")
    with planted(model, "she", w):
        made = applied(model, PLAIN, direction="pca")
    assert float(direction(made).norm()) == pytest.approx(1, abs=1e-5)
    assert abs(float(torch.cosine_similarity(direction(made), w, dim=0))) < 0.9


def test_letters_are_balanced_by_cyclic_orders() -> None:
    """Every biased answer is A, every other one B: alone they differ by their letters more than by anything else."""
    data = TrainData(pairs=lettered("A"))
    model = tiny()
    plain, balanced = (applied(model, data, balance_letters=b, validation_fraction=0) for b in (False, True))
    assert results(balanced)["letter_effect"] == {"0": 0.0}
    assert results(plain)["letter_effect"]["0"] > 0.9
    assert results(balanced)["states"] == {"unbiased": 60, "biased": 60, "neutral": 0}
    assert float(direction(balanced).norm()) < float(direction(plain).norm()) / 2


def test_a_direction_that_stands_for_a_letter_alone_vanishes_when_letters_are_balanced() -> None:
    model, w = tiny(), planted_vector()
    with planted(model, "B", 100 * w):
        data = TrainData(pairs=lettered("A"))
        plain, balanced = (applied(model, data, balance_letters=b) for b in (False, True))
    assert float(torch.cosine_similarity(direction(plain), w, dim=0)) > 0.9
    assert float(direction(balanced) @ w) / float(w @ w) < 1


def test_decisions_are_contrasted_at_the_last_token_of_the_prompt() -> None:
    made = applied(tiny(), fit_at="answer", min_lean=0)
    count = results(made)["states"]
    assert count["neutral"] == 0
    assert count["biased"] >= 4
    assert count["unbiased"] >= 4
    strict = applied(tiny(), fit_at="answer", min_lean=0.001, direction="weighted")
    assert not torch.allclose(direction(strict), direction(made))


def test_weighted_directions_are_differences_of_unit_vectors() -> None:
    made = applied(tiny(), fit_at="answer", direction="weighted", min_lean=0)
    assert 0 < float(direction(made).norm()) <= 2 + 1e-6


def test_one_direction_per_axis_is_ablated() -> None:
    made = applied(tiny(), operation="ablate", per_axis=True)
    assert made.fit.directions[0].shape == (2, 32)
    assert made.edit.layers[0][0].mode == "ablate"


# ------------------------------------------------------------------------------------------- how it is used


def test_a_sweep_reuses_one_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, trained = tiny(), []
    original = Steering.train
    monkeypatch.setattr(Steering, "train", lambda self, *given: trained.append(self.spec) or original(self, *given))
    with artefacts(tmp_path / "kept"):
        made = [
            applied(model, **more)
            for more in (
                {"strength": 1.0},
                {"strength": -2.0},
                {"scope": "all"},
                {"layer": 1},
                {"control": "random"},
                {"control": "flipped"},
                {"operation": "ablate"},
                {"normalise": True},
            )
        ]
        assert len(trained) == 1
        applied(model, balance_letters=False)
        assert len(trained) == 2
    assert len({m.fingerprint for m in made}) == len(made)
    specs = [m.training.spec for m in made if m.training is not None]
    assert specs[1] == "steering(layer=0,strength=-2.0)"


def test_strength_0_is_the_model_itself() -> None:
    model = tiny()
    assert Steering(strength=0.0).apply(model, DATA) is model


def test_controls_are_as_long_and_turned_round() -> None:
    model = tiny()
    own, random, flipped = (applied(model, control=c).edit.layers[0][0] for c in ("none", "random", "flipped"))
    assert torch.equal(flipped.directions, own.directions)
    assert (own.strength, flipped.strength) == (1.0, -1.0)
    assert float(random.directions.norm()) == pytest.approx(float(own.directions.norm()), rel=1e-5)
    assert abs(float(torch.cosine_similarity(random.directions[0], own.directions[0], dim=0))) < 0.6


def test_projection_uses_the_neutral_offset_where_it_is_asked_for() -> None:
    model = tiny()
    none, neutral = (
        applied(model, operation="project", target=2.0, offset=offset).edit.layers[0][0]
        for offset in ("zero", "neutral")
    )
    assert none.offset is None
    assert neutral.offset is not None
    assert none.target == 2.0


def test_layers_are_numbers_fractions_or_chosen() -> None:
    assert Steering(layer="middle").layers_of(6) == (3,)
    assert Steering(layer=0.4).layers_of(32) == (12,)
    assert Steering(layer="all").layers_of(3) == (0, 1, 2)
    assert Steering(layer=(2, 0)).layers_of(3) == (0, 2)
    assert Steering(layer="validation").layers_of(3) is None
    with pytest.raises(SettingsError, match="layer=3, but the model has the layers 0 to 2"):
        Steering(layer=3).layers_of(3)


def test_a_layer_is_chosen_by_the_lean_on_held_out_contrasts() -> None:
    model = tiny()
    made = applied(model, layer="validation")
    tried = results(made)["layers_tried"]
    assert [row["layer"] for row in tried] == [0]  # the last layers are left out, and of two one is left
    assert results(made)["layers"] == [0]
    assert applied(model, layer="validation", control="random").training.results["layers"] == [0]  # type: ignore[union-attr]


def test_the_direction_of_one_layer_can_be_used_at_all() -> None:
    made = applied(tiny(), layer="all", direction_layer=0)
    assert torch.equal(made.fit.directions[0], made.fit.directions[1])
    own = applied(tiny(), layer="all")
    assert not torch.equal(own.fit.directions[0], own.fit.directions[1])


# ------------------------------------------------------------------------------------------- saved and stacked


def test_what_is_saved_is_the_same_model(tmp_path: Path) -> None:
    tiny().save(tmp_path / "base")
    base = evenhand.load(str(tmp_path / "base"))
    made = applied(base, operation="project", target=1.0, offset="neutral", layer=1)
    made.save(tmp_path / "made")
    again = evenhand.load(str(tmp_path / "made"), trust_folder=True)
    assert again.fingerprint == made.fingerprint
    assert again.choose(ASKED) == made.choose(ASKED)
    assert again.choose(ASKED) != base.choose(ASKED)
    assert again.training is not None
    assert again.training.base.fingerprint == base.fingerprint
    assert results(again)["hidden_size"] == 32  # type: ignore[arg-type]
    size = (tmp_path / "made" / LEARNED / FILE).stat().st_size
    assert size < 1000  # the layer that is used, not all


def test_a_direction_of_another_model_is_refused(tmp_path: Path) -> None:
    made = applied(tiny())
    made.save(tmp_path)
    with pytest.raises(EvenhandError, match="was found on another model"):
        made.method.restore(tiny(seed=1), tmp_path / LEARNED)


def test_a_folder_that_was_tampered_with_is_refused(tmp_path: Path) -> None:
    made = applied(tiny())
    made.save(tmp_path)
    (tmp_path / LEARNED / FILE).unlink()
    with pytest.raises(EvenhandError, match="cannot read"):
        evenhand.load(str(tmp_path))
    made.fit.save(tmp_path / LEARNED, base="another model")
    file = tmp_path / LEARNED / SAVED
    content = json.loads(file.read_text())
    content["training"]["base"]["fingerprint"] = "0" * 64
    file.write_text(json.dumps(content))
    with pytest.raises(EvenhandError, match="was found on another model"):
        evenhand.load(str(tmp_path))


def test_prompts_go_around_steering_and_not_under_it() -> None:
    model = tiny()
    stack = build_method("steering(layer=0,strength=3)+instruction")
    assert isinstance(stack, Stack)
    both = stack.apply(model, DATA)
    assert both.methods == ("steering(layer=0,strength=3.0)", "instruction")
    alone, without = stack.parts[0].apply(model, DATA), stack.parts[1].apply(model)
    answers = [[c.probabilities for c in m.choose(ASKED)] for m in (both, alone, without)]
    assert answers[0] not in answers[1:]
    with pytest.raises(EvenhandError, match=r"in a stack it comes first: 'steering\+self_debias'"):
        build_method("instruction+steering(layer=0)").apply(model, DATA)


def test_guided_decoding_works_on_a_steered_model() -> None:
    both = build_method("steering(layer=0)+self_debias_decoding").apply(tiny(), DATA)
    assert both.choose(ASKED)[0].decision is not None


def test_two_edits_of_a_layer_are_applied_in_the_order_of_the_stack() -> None:
    model = tiny()
    data = TrainData(pairs=lettered("A"))
    first = applied(model, data, strength=9.0, balance_letters=False)
    both = Steering(layer=0, operation="ablate", balance_letters=False).apply(first, data)
    assert isinstance(both, Steered)
    added, ablated = first.edit.layers[0][0], both.edit.layers[0][0]
    expected, other = (
        steered(model, ActivationEdit({0: edits}, "answer", True)).score(PASSAGES)
        for edits in ((added, ablated), (ablated, added))
    )
    assert [s.logprob for s in both.score(PASSAGES)] == pytest.approx([s.logprob for s in expected], abs=1e-5)
    assert [s.logprob for s in both.score(PASSAGES)] != pytest.approx([s.logprob for s in other], abs=1e-3)


def test_adding_minus_the_direction_undoes_it() -> None:
    model = tiny()
    once = applied(model, scope="all", skip_first=False, strength=9.0, balance_letters=False)
    edit = once.edit.layers[0][0]
    back = steered(once.inner, ActivationEdit({0: (LayerEdit("add", edit.directions, -9.0),)}, "all", False))
    found, before, changed = ([s.logprob for s in m.score(PASSAGES)] for m in (back, model, once))
    assert found == pytest.approx(before, abs=1e-4)
    assert changed != pytest.approx(before, abs=1e-3)


def test_it_keeps_to_what_every_method_promises() -> None:
    others = [Steering(layer=0, strength=2.0), Steering(layer=1), Steering(layer=0, scope="all")]
    check_method(Steering(layer=0, strength=4.0), tiny(), data=DATA, others=others)


# ------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"layer": 1.0}, "a fraction of the depth lies between 0 and 1"),
        ({"layer": -1}, "layers are counted from 0"),
        ({"layer": "validation", "validation_fraction": 0}, "set validation_fraction above 0"),
        ({"direction": "pca", "fit_at": "answer"}, "needs the two states of a pair"),
        ({"direction": "weighted"}, "set fit_at=answer"),
        ({"per_axis": True}, "only operation=ablate supports"),
        ({"target": 1.0}, "are for operation=project"),
        ({"operation": "swap"}, "operation"),
    ],
)
def test_settings_that_contradict_one_another_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Steering.build(**given)


def test_too_little_data_is_refused_with_the_axes_that_there_are() -> None:
    with pytest.raises(SettingsError, match=r"pairs or labelled questions about Age \(there are: craft, job\)"):
        Steering(axes=("Age",)).apply(tiny(), DATA)
    with pytest.raises(SettingsError, match="needs pairs, or questions with a right option"):
        Steering().apply(tiny(), TrainData(texts=("a",)))


@pytest.mark.parametrize("preset", sorted(Steering.presets))
def test_every_preset_runs(preset: str) -> None:
    more = {"min_lean": 0, "balance_letters": True, "validation_fraction": 0.4}
    made = Steering.build(preset=preset, **(more if preset == "concept_projection" else {}))
    assert made.apply(tiny(), DATA).choose(ASKED)[0].decision is not None
