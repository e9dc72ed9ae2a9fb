"""`deep_to_shallow`: the loss by hand, that the inner exit learns, and what results."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

import evenhand
from evenhand.core.artifacts import artefacts
from evenhand.errors import SettingsError
from evenhand.interfaces import Passage, TrainData
from evenhand.methods.distillation import _exits as exits
from evenhand.methods.distillation._exits import Batch, Exits, Weights, check_exit, logits_of, parts_of
from evenhand.methods.distillation.deep_to_shallow import DeepToShallow
from evenhand.models.fingerprint import of_weights
from evenhand.models.masked import MaskedModel
from evenhand.models.tiny import tiny_tokenizer
from evenhand.testing import check_method, tiny_model

TEXTS = tuple(
    f"the {job} {verb} that {pronoun} was late"
    for job in ("nurse", "doctor", "pilot", "baker")
    for verb in ("said", "knew", "saw")
    for pronoun in ("he", "she")
)
DATA = TrainData(texts=TEXTS)


def masked() -> MaskedModel:
    words = tiny_tokenizer(TEXTS, chat=False)
    words.add_special_tokens({"mask_token": "<mask>"})
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        pad_token_id=2,
    )
    torch.manual_seed(0)
    return MaskedModel(BertForMaskedLM(config).eval(), words, name="tiny-masked")


def method(**more: Any) -> DeepToShallow:
    given = {"epochs": 2, "batch_tokens": 96, "device": "cpu", "precision": "no", "learning_rate": 5e-3, "masking": 0.3}
    return DeepToShallow.build(**{**given, **more})  # type: ignore[no-any-return]


def test_the_loss_by_hand() -> None:
    """Two hidden tokens of a vocabulary of two; features 0 and 1 in two groups, width by their only distance, 1."""
    shallow = torch.tensor([[0.0, 0.0], [math.log(3), 0.0]])
    deep = torch.tensor([[math.log(4), 0.0], [0.0, 0.0]])
    made = Exits(shallow, deep, torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [3.0]]))
    labels = torch.tensor([0, 1])
    found = parts_of(made, labels, torch.tensor([0, 1]), Weights(0.1, 1.0, 1.0, "groups"))
    ce_shallow = -(math.log(1 / 2) + math.log(1 / 4)) / 2
    ce_deep = -(math.log(4 / 5) + math.log(1 / 2)) / 2
    kl_0 = 0.8 * math.log(0.8 / 0.5) + 0.2 * math.log(0.2 / 0.5)
    kl_1 = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    mmd = 2 - 2 * math.exp(-0.5)
    assert float(found["loss"]) == pytest.approx((ce_shallow + ce_deep) / 2 + 0.1 * (kl_0 + kl_1) / 2 + mmd, rel=1e-5)
    none = parts_of(made, labels, torch.tensor([1, 1]), Weights(0.1, 1.0, 1.0, "groups"))
    assert float(none["mmd"]) == 0
    layers = parts_of(made, labels, torch.tensor([1, 1]), Weights(0.0, 2.0, 1.0, "layers"))
    # points 0, 1 and 0, 3: squared distances 1, 0, 9, 1, 4, 9; torch takes the lower median, 1
    k = [math.exp(-d / 2) for d in (1, 9, 0, 1, 4)]
    apart = (2 + 2 * k[0]) / 4 + (2 + 2 * k[1]) / 4 - 2 * (k[2] + k[1] + k[3] + k[4]) / 4
    assert float(layers["mmd"]) == pytest.approx(apart, rel=1e-5)
    assert float(layers["loss"]) == pytest.approx((ce_shallow + ce_deep) / 2 + 2 * apart, rel=1e-5)


def test_the_last_layer_teaches_and_is_not_taught_by_the_inner_one() -> None:
    shallow, deep = (torch.randn(3, 5, generator=torch.Generator().manual_seed(s)).requires_grad_() for s in (0, 1))
    made = Exits(shallow, deep, torch.zeros(2, 1), torch.zeros(2, 1))
    for temperature in (1.0, 2.0):
        torch.autograd.backward(
            parts_of(made, torch.tensor([0, 1, 2]), torch.tensor([0, 1]), Weights(1.0, 0.0, temperature, "groups"))[
                "kl"
            ]
        )
    assert deep.grad is None or not bool(deep.grad.any())
    assert shallow.grad is not None and bool(shallow.grad.any())


def test_nothing_hidden_is_still_a_loss() -> None:
    made = Exits(torch.zeros(0, 5), torch.zeros(0, 5), torch.zeros(2, 1).requires_grad_(), torch.zeros(2, 1))
    found = parts_of(made, torch.zeros(0, dtype=torch.long), torch.tensor([0, 1]), Weights(1, 1, 1, "groups"))
    assert float(found["loss"]) == 0


def test_an_inner_layer_leaves_through_the_models_own_head() -> None:
    module: Any = masked().weights.module
    ids = torch.tensor([[1, 7, 9, 4], [1, 8, 5, 3]])
    with torch.no_grad():
        out = module(input_ids=ids, output_hidden_states=True)
        torch.testing.assert_close(logits_of(module, out.hidden_states[-1].flatten(0, 1)), out.logits.flatten(0, 1))
        inner = logits_of(module, out.hidden_states[1].flatten(0, 1))
        torch.testing.assert_close(inner, module.cls(out.hidden_states[1]).flatten(0, 1))
        torch.testing.assert_close(module(input_ids=ids).logits, out.logits)  # and nothing is left behind
    check_exit(module, 2)
    for layer in (0, 3):
        with pytest.raises(SettingsError, match="set 1 to 2"):
            check_exit(module, layer)


def test_padding_is_in_no_feature() -> None:
    module: Any = masked().weights.module
    ids = torch.tensor([[1, 7, 9, 4, 6]])
    labels = torch.full_like(ids, -100)
    alone = Batch({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, labels, torch.tensor([0]))
    wide = {"input_ids": torch.cat([ids, ids], 1), "attention_mask": torch.cat([torch.ones_like(ids), ids * 0], 1)}
    padded = Batch(wide, torch.cat([labels, labels], 1), torch.tensor([0]))
    with torch.no_grad():
        one, other = (exits.exits(module, module, b, 1) for b in (alone, padded))
    torch.testing.assert_close(one.features, other.features)
    torch.testing.assert_close(one.deep_features, other.deep_features)


def shallow_loss(model: Any, layer: int) -> float:
    """Of the middle word of all texts, hidden, at an inner exit."""
    module, words = model.weights
    ids = torch.tensor([words(text).input_ids for text in TEXTS])
    labels = ids[:, 4].clone()  # "that"
    ids[:, 4] = words.mask_token_id
    with torch.no_grad():
        states = module(input_ids=ids, output_hidden_states=True).hidden_states[layer][:, 4]
        return float(torch.nn.functional.cross_entropy(logits_of(module, states), labels))


def test_the_inner_exit_learns_and_a_result_of_it_is_a_smaller_model(tmp_path: Path) -> None:
    model = masked()
    own = of_weights(model.weights.module, model.weights.tokenizer)
    before = shallow_loss(model, 1)
    given = {"epochs": 6, "learning_rate": 2e-2, "batch_tokens": 48}
    whole = method(**given).apply(model, DATA)
    assert shallow_loss(whole, 1) < 0.5 * before
    facts = whole.facts()
    assert len(facts["pseudo_groups"]) == 6 and min(facts["pseudo_groups"]) >= 2
    assert facts["curve"][-1]["held_out_shallow"] < facts["curve"][0]["held_out_shallow"]
    assert of_weights(model.weights.module, model.weights.tokenizer) == own
    small = method(**given, result="shallow").apply(model, DATA)
    assert small.weights.module.config.num_hidden_layers == 1
    assert shallow_loss(small, 1) == pytest.approx(shallow_loss(whole, 1), rel=1e-4)
    assert isinstance(small, MaskedModel)
    again = evenhand.load(small.save(tmp_path / "small"))
    asked = [Passage("the nurse was late")]
    assert [s.logprob for s in again.score(asked)] == pytest.approx([s.logprob for s in small.score(asked)], abs=1e-5)


def test_features_of_groups_come_together() -> None:
    """With the discrepancy alone, pseudo-groups of the untrained inner layer end nearer to one another."""
    model = masked()
    found = {}
    for mmd in (0.0, 30.0):
        made = method(mmd=mmd, kl=0.0, epochs=4, patience=0).apply(model, DATA)
        module, words = made.weights
        ids = torch.tensor([words(text).input_ids for text in TEXTS])
        with torch.no_grad():
            states = module(input_ids=ids, output_hidden_states=True).hidden_states[1].mean(1)
        found[mmd] = float(states.var(0).sum() / states.square().sum(1).mean())
    assert found[30.0] < 0.7 * found[0.0]


def test_it_keeps_the_contract_and_a_killed_training_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = masked()
    whole = check_method(method(), model, DATA)
    judged, calls = exits.TwoExits.judged, list[int]()

    def killed(self: Any, *given: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return judged(self, *given)

    with artefacts(tmp_path):
        monkeypatch.setattr(exits.TwoExits, "judged", killed)
        with pytest.raises(KeyboardInterrupt):
            method().apply(model, DATA)
        assert method().apply(model, DATA).fingerprint == whole.fingerprint
    assert not list(tmp_path.glob("*/checkpoint*"))
    assert np.isfinite(whole.facts()["curve"][-1]["held_out_loss"])


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(SettingsError, match="masked models"):
        method().apply(tiny_model(texts=TEXTS), DATA)
    with pytest.raises(SettingsError, match="exit_layer=3"):
        method(exit_layer=3).apply(masked(), DATA)
    with pytest.raises(SettingsError, match="texts"):
        method().apply(masked(), TrainData())
    with pytest.raises(SettingsError, match="max_groups"):
        method(max_groups=1)


def test_without_a_hold_out_the_last_epoch_is_kept() -> None:
    facts = method(validation_fraction=0, patience=1).apply(masked(), DATA).facts()
    assert (facts["held_out_texts"], facts["best_epoch"]) == (0, 1)
    assert [sorted(row) for row in facts["curve"]] == [["epoch"], *[["epoch", "train_loss"]] * 2]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("align", "layers"),
        ("alignment", True),
        ("mmd_width", 1.0),
        ("detach_deep", False),
        ("ce_epochs", 5),
        ("learning_rate", 1e-4),
        ("weight_decay", 0.0),  # Adam
        ("batch_size", 100),
        ("epochs", 50),
        ("kl", 0.1),
        ("validation_fraction", 0.0),
        ("patience", 0),
    ],
)
def test_released_preset_is_the_released_training(setting: str, value: object) -> None:
    """Bayasi et al. 2025, WACV: nourhanb/Debiasify."""
    made = DeepToShallow.build(preset="released")
    assert made.settings[setting] == value and made.spec == "deep_to_shallow(preset=released)"


def test_later_settings_leave_the_keys_of_other_models_alone() -> None:
    later = {"alignment", "mmd_width", "detach_deep", "ce_epochs", "batch_size"}
    assert not later & DeepToShallow.build().key_settings().keys()
    assert later <= DeepToShallow.build(preset="released").key_settings().keys()


def test_the_last_exit_follows_the_divergence_only_where_it_is_not_detached() -> None:
    """d KL(p || q) / d logits of p = p (log p - log q - KL): for p = (4/5, 1/5) and q even, +-.8 * .2 * ln 4.

    The cross-entropy of the label 0 adds (p - (1, 0)) / 2.
    """
    for detach, more in ((True, 0.0), (False, 0.16 * math.log(4))):
        deep = torch.tensor([[math.log(4), 0.0]], requires_grad=True)
        made = Exits(torch.zeros(1, 2), deep, torch.zeros(1, 1), torch.zeros(1, 1))
        weights = Weights(kl=1.0, mmd=0.0, temperature=1.0, align="layers", detach=detach)
        parts_of(made, torch.tensor([0]), torch.tensor([0]), weights)["loss"].backward()
        assert deep.grad is not None
        assert deep.grad[0].tolist() == pytest.approx([-0.1 + more, 0.1 - more], abs=1e-6)


def test_a_kernel_of_width_1() -> None:
    """Features 0 and 2 of both exits, apart by 2: 2 - 2 exp(-2) at width 1, and 2 - 2 exp(-1/2) by the median."""
    made = Exits(torch.zeros(0, 2), torch.zeros(0, 2), torch.tensor([[0.0]]), torch.tensor([[2.0]]))
    for width, wanted in ((1.0, 2 - 2 * math.exp(-2)), (None, 2 - 2 * math.exp(-0.5))):
        weights = Weights(kl=0.0, mmd=1.0, temperature=1.0, align="layers", width=width)
        parts = parts_of(made, torch.zeros(0, dtype=torch.long), torch.tensor([0]), weights)
        assert float(parts["mmd"]) == pytest.approx(wanted, rel=1e-6)


def test_first_epochs_train_on_the_cross_entropies_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[float, float, int]] = []
    own = exits.parts_of

    def watched(made: Any, labels: Any, groups: Any, weights: Weights) -> Any:
        seen.append((weights.kl, weights.mmd, len(groups)))
        return own(made, labels, groups, weights)

    monkeypatch.setattr(exits, "parts_of", watched)
    given = {"ce_epochs": 2, "epochs": 3, "batch_size": 10, "kl": 0.3, "mmd": 2.0, "validation_fraction": 0.0}
    method(**given).apply(masked(), DATA)
    assert seen == [(0.0, 0.0, 10), (0.0, 0.0, 10), (0.0, 0.0, 4)] * 2 + [(0.3, 2.0, 10), (0.3, 2.0, 10), (0.3, 2.0, 4)]


def test_the_alignment_is_trained_and_is_no_part_of_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    layers: list[Any] = []
    own = exits.with_alignment

    def watched(*given: Any) -> Any:
        layer = own(*given)
        layers.append((layer, layer.weight.detach().clone()))
        return layer

    monkeypatch.setattr(exits, "with_alignment", watched)
    model = masked()
    made = method(align="layers", alignment=True).apply(model, DATA)
    ((layer, before),) = layers
    assert tuple(before.shape) == (16, 16) and not torch.equal(layer.weight, before)
    names = [[name for name, _ in m.weights.module.named_parameters()] for m in (made, model)]
    assert names[0] == names[1]
    with pytest.raises(SettingsError, match="align=layers"):
        method(alignment=True)
