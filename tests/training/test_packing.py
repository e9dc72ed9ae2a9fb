"""Packed training: loss and all gradients are those of the plain computation, one sequence after the other."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from evenhand.errors import SettingsError
from evenhand.models.tiny import ARCHITECTURES, tiny_module
from evenhand.training import Layout, causal_lm_loss, final_hidden, finish_of, layout_of, pack, packing
from evenhand.training.packing import IGNORED, best_fit

WORDS = 60
ADAPTED = {
    "llama": ["q_proj", "v_proj", "lm_head"],
    "qwen2": ["q_proj", "up_proj", "lm_head"],
    "gemma2": ["q_proj", "o_proj"],
    "gpt2": ["c_attn"],
    "opt": ["k_proj", "fc1"],
    "gpt_neox": ["query_key_value", "embed_out"],
}
HOW = {"opt": "mask"}
"""The layouts that are not told by positions."""


def sequences(count: int = 9) -> list[list[int]]:
    rng = random.Random(0)
    lengths = [1, 2, 3, 17, 17, 30, 4, 9, 25, 6][:count]
    return [[rng.randrange(7, WORDS) for _ in range(n)] for n in lengths]


def labels_of(asked: list[list[int]]) -> list[list[int]]:
    """Some are ignored, all of the fifth sequence among them."""
    rng = random.Random(1)
    return [[t if rng.random() < 0.7 and n != 4 else IGNORED for t in ids] for n, ids in enumerate(asked)]


def made_of(architecture: str, tied: bool | None = None, scale: float = 3.0) -> PreTrainedModel:
    module = tiny_module(WORDS, architecture, scale=scale)
    if tied is not None:
        module.config.tie_word_embeddings = tied
        module = AutoModelForCausalLM.from_config(module.config)
        with torch.no_grad():
            for parameter in module.parameters():
                if parameter.dim() == 2:
                    parameter.mul_(scale)
    return module.double().eval()


def of_kind(kind: str, **sizes: Any) -> PreTrainedModel:
    small = {
        "vocab_size": WORDS,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "pad_token_id": 0,
    }
    torch.manual_seed(0)
    module: PreTrainedModel = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**small, **sizes}))
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() == 2:
                parameter.mul_(3)
    return module.double().eval()


def gradients(module: PreTrainedModel) -> dict[str, Tensor]:
    found = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    module.zero_grad(set_to_none=True)
    return found


def one_by_one(module: PreTrainedModel, asked: list[list[int]], labels: list[list[int]]) -> float:
    """Full logits in float64, no padding; the mean over all predicted tokens."""
    counted = sum(label != IGNORED for row in labels for label in row[1:])
    total = 0.0
    for ids, row in zip(asked, labels, strict=True):
        logits = module(torch.tensor([ids]), use_cache=False).logits[0, :-1]
        loss = cross_entropy(logits, torch.tensor(row[1:], dtype=torch.long), reduction="sum") / counted
        loss.backward()
        total += loss.item()
    return total


def packed(module: PreTrainedModel, asked: list[list[int]], labels: list[list[int]], layout: Layout) -> float:
    batches = pack(asked, layout, labels=labels, length=40, tokens=100)
    counted = sum(int((b.labels != IGNORED).sum()) for b in batches)
    total, finish = 0.0, finish_of(module)
    for batch in batches:
        loss = causal_lm_loss(module, batch, finish=finish, chunk=8, reduction="sum") / counted
        loss.backward()
        total += loss.item()
    return total


def check(module: PreTrainedModel, layout: Layout) -> None:
    asked = sequences()
    labels = labels_of(asked)
    plain = one_by_one(module, asked, labels)
    expected = gradients(module)
    assert packed(module, asked, labels, layout) == pytest.approx(plain, rel=1e-6)
    got = gradients(module)
    assert got.keys() == expected.keys() and len(got) > 2
    assert max(float(g.abs().max()) for g in expected.values()) > 1e-3
    for name in got:
        scale = float(expected[name].norm()) + 1e-9
        assert float((got[name] - expected[name]).norm()) < 1e-5 * scale, name


# -------------------------------------------------------------------------------------------- loss and gradients


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_is_packed_and_equal(architecture: str) -> None:
    module = made_of(architecture)
    layout = layout_of(module)
    assert layout.kind == HOW.get(architecture, "positions")
    check(module, layout)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_other_layouts_are_equal_too(architecture: str) -> None:
    module = made_of(architecture)
    for kind in ("mask", "padding"):
        check(module, Layout(kind, dtype=module.dtype))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_adapters_are_trained_alike(architecture: str) -> None:
    base = made_of(architecture)
    torch.manual_seed(0)
    config = LoraConfig(
        r=2, target_modules=ADAPTED[architecture], init_lora_weights=False, fan_in_fan_out=architecture == "gpt2"
    )
    module = get_peft_model(base, config).double().eval()
    layout = layout_of(module)
    assert layout.kind == HOW.get(architecture, "positions")
    check(module, layout)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "opt"])
@pytest.mark.parametrize("tied", [True, False])
def test_tied_and_untied_heads(architecture: str, tied: bool) -> None:
    module = made_of(architecture, tied)
    assert (module.get_input_embeddings().weight is module.get_output_embeddings().weight) == tied
    check(module, layout_of(module))


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        ("cohere", {"logit_scale": 0.25, "use_qk_norm": False}),
        ("granite", {"logits_scaling": 4.0, "attention_multiplier": 0.5, "embedding_multiplier": 2.0}),
        ("gemma2", {"head_dim": 8, "final_logit_softcapping": 2.0, "attn_logit_softcapping": 1.0}),
    ],
)
def test_scaled_and_capped_logits(kind: str, sizes: dict[str, Any]) -> None:
    module = of_kind(kind, **sizes)
    raw = torch.tensor([[-3.0, 0.5, 4.0]])
    assert not torch.allclose(finish_of(module)(raw), raw)
    check(module, layout_of(module))


def test_logits_changed_in_an_unknown_way_are_refused() -> None:
    module = made_of("llama")
    module.get_output_embeddings().register_forward_hook(
        lambda head, inputs, out: out * (2.0 if inputs[0].dim() == 3 else 1.0)
    )
    with pytest.raises(SettingsError, match="not known"):
        finish_of(module)


@pytest.mark.parametrize("architecture", ["llama", "opt"])
def test_one_batch_has_the_loss_of_the_module(architecture: str) -> None:
    """The same labels go into the module's own loss, which is in float32."""
    module = made_of(architecture)
    asked = sequences()
    for kind in ("mask", "padding"):
        for batch in pack(asked, Layout(kind, dtype=module.dtype), labels=labels_of(asked), length=40):
            loss = causal_lm_loss(module, batch, finish=finish_of(module))
            assert loss.item() == pytest.approx(module(**batch.inputs, labels=batch.labels).loss.item(), rel=1e-5)


def test_gradient_checkpointing_changes_nothing() -> None:
    module = made_of("llama").train()
    module.gradient_checkpointing_enable()
    check(module, layout_of(module))


# --------------------------------------------------------------------------------------- mistakes would show


def test_without_borders_the_loss_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative controls: positions that run on, and a mask that only looks back."""
    asked = sequences()
    labels = labels_of(asked)
    for kind in ("positions", "mask"):
        module = made_of("llama")
        plain = one_by_one(module, asked, labels)
        expected = gradients(module)
        real = packing._batch

        def running_on(*given: Any, kind: str = kind, real: Any = real) -> packing.Batch:
            batch = real(*given)
            length = batch.labels.shape[1]
            if kind == "positions":
                batch.inputs["position_ids"] = torch.arange(length).expand(len(batch.labels), length)
            else:
                seen = torch.ones(length, length).tril().bool()[None, None].expand(len(batch.labels), 1, -1, -1)
                batch.inputs["attention_mask"] = torch.zeros(seen.shape).double().masked_fill(~seen, -1e30)
            return batch

        with monkeypatch.context() as patch:
            patch.setattr(packing, "_batch", running_on)
            wrong = packed(module, asked, labels, Layout(kind, dtype=module.dtype))
            assert abs(wrong - plain) > 1e-4 * plain, "a hundred times the tolerance"
            off = {
                name: float((g - expected[name]).norm() / expected[name].norm())
                for name, g in gradients(module).items()
            }
            assert min(off.values()) > 1e-2, "a thousand times"
            assert layout_of(module).kind != kind, "trying would have refused"


@pytest.mark.parametrize("share", [1.0, 1e-4])
def test_models_that_hardly_attend_yet_are_not_mistaken(share: float) -> None:
    """What one sequence sees of another may be less than rounding between batches: it is looked for bit by bit."""
    module = made_of("opt").float()
    with torch.no_grad():
        for layer in module.model.decoder.layers:
            layer.self_attn.out_proj.weight.mul_(share)
    assert layout_of(module).kind == "mask"


@pytest.mark.parametrize(
    ("kind", "sizes"), [("bloom", {"n_layer": 2, "n_head": 4}), ("mamba", {"state_size": 4, "use_mambapy": False})]
)
def test_what_cannot_be_packed_is_padded_and_equal(kind: str, sizes: dict[str, Any]) -> None:
    module = of_kind(kind, **sizes)
    layout = layout_of(module)
    assert layout.kind == "padding"
    check(module, layout)


def test_the_layout_of_two_models_suits_both() -> None:
    assert layout_of(made_of("llama"), made_of("gpt2")).kind == "positions"
    assert layout_of(made_of("llama"), made_of("opt")).kind == "mask"
    assert layout_of(of_kind("bloom", n_layer=2, n_head=4), made_of("opt")).kind == "padding"


def test_sequences_beyond_a_window_go_alone() -> None:
    module = of_kind("mistral", sliding_window=8)
    layout = layout_of(module)
    assert (layout.kind, layout.limit) == ("positions", 8)
    for batch in pack(sequences(), layout, length=40):
        alone = len(batch.owner.unique()) == 1
        assert alone == (int(batch.inputs["position_ids"][batch.owner >= 0].max()) >= 8)
    check(module, layout)


def test_virtual_tokens_are_refused() -> None:
    from peft import PromptTuningConfig

    module = get_peft_model(made_of("llama"), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3))
    with pytest.raises(SettingsError, match="virtual tokens"):
        final_hidden(module, input_ids=torch.tensor([[7, 8, 9]]))


# ------------------------------------------------------------------------------------------------------- packing


def test_every_token_is_packed_once_with_its_label() -> None:
    asked = [[10 * n + i for i in range(size)] for n, size in enumerate([1, 2, 5, 9, 3, 3])]
    labels = [[IGNORED if t % 2 else t for t in ids] for ids in asked]
    batches = pack(asked, Layout("positions"), labels=labels, length=8, tokens=16)
    for n, ids in enumerate(asked):
        (batch,) = [b for b in batches if (b.owner == n).any()]
        at = batch.owner == n
        assert batch.inputs["input_ids"][at].tolist() == ids
        assert batch.inputs["position_ids"][at].tolist() == list(range(len(ids)))
        assert batch.labels[at].tolist() == [IGNORED, *labels[n][1:]]
    assert all((b.labels[b.owner < 0] == IGNORED).all() for b in batches)
    assert max(b.owner.shape[1] for b in batches[1:]) <= 8 and batches[0].owner.shape == (1, 9)
    assert all(b.owner.numel() <= 16 for b in batches)


def test_a_mask_shows_the_past_of_ones_own_sequence() -> None:
    (batch,) = pack([[5, 6], [7]], Layout("mask"), length=3)
    seen = batch.inputs["attention_mask"][0, 0] == 0
    assert seen.tolist() == [[True, False, False], [True, True, False], [False, False, True]]


@pytest.mark.parametrize(("sizes", "room", "bins"), [([4, 4, 4, 6, 6, 6], 10, 3), ([1, 1, 1], 3, 1), ([], 5, 0)])
def test_best_fit_fills_bins(sizes: list[int], room: int, bins: int) -> None:
    found = best_fit(sizes, room)
    assert len(found) == bins and sorted(n for b in found for n in b) == list(range(len(sizes)))


def test_best_fit_stays_near_the_fewest_bins() -> None:
    rng = random.Random(0)
    sizes = [rng.choice([1, 3, 8, 20, 45, 70]) for _ in range(500)]
    found = best_fit(sizes, 100)
    assert all(sum(sizes[n] for n in b) <= 100 for b in found)
    assert len(found) <= math.ceil(sum(sizes) / 100) * 11 / 9 + 1
    assert best_fit([7, 9, 2], 5) == [[1], [0], [2]], "what is too large has its own"


@pytest.mark.parametrize(("asked", "labels"), [([[]], None), ([[1, 2]], [[1]]), ([[1]], [[1], [2]])])
def test_what_cannot_be_packed_is_refused(asked: list[list[int]], labels: list[list[int]] | None) -> None:
    with pytest.raises(SettingsError, match="at least one token"):
        pack(asked, Layout("positions"), labels=labels)
