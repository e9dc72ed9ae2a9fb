"""Vectors of a model's parameters: how many, which, and what is chosen of them."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from evenhand.errors import EvenhandError, SettingsError
from evenhand.methods.unlearning._pcgu import selection
from evenhand.methods.unlearning._pcgu.fsdp import World
from evenhand.methods.unlearning._pcgu.partition import Axis, Partition, partition
from evenhand.methods.unlearning._pcgu.selection import (
    Diagnosis,
    Similarities,
    cosines,
    drawn,
    layer_of,
    lowest,
    products,
    similarities,
    wanted,
)
from evenhand.models.tiny import tiny_module


def llama_2_7b() -> nn.Module:
    config = AutoConfig.for_model(
        "llama",
        vocab_size=32000,
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=32,
        num_attention_heads=32,
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def opt_350m() -> nn.Module:
    config = AutoConfig.for_model(
        "opt",
        vocab_size=50272,
        hidden_size=1024,
        ffn_dim=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        word_embed_proj_dim=512,
        do_layer_norm_before=False,
        max_position_embeddings=2048,
    )
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def test_a_llama_2_7b_has_as_many_vectors_as_published() -> None:
    model = llama_2_7b()
    rows = partition(model)
    assert rows.size == 1_423_937  # Dige et al. 2024; the embeddings, the head and 65 norms are among them
    assert partition(model, "column").size == 1_146_945
    assert partition(model, embeddings=False).size == 1_423_937 - 2 * 32000
    assert rows.of(0).name == rows.of(31_999).name == "model.embed_tokens.weight"
    assert rows.of(32_000).name == "model.layers.0.self_attn.q_proj.weight"
    assert rows.of(rows.size - 1).name == "lm_head.weight"


def test_an_opt_350m_has_as_many_vectors_as_the_released_code_counts() -> None:
    assert partition(opt_350m()).size == 275_275 + (
        50272 - 50265
    )  # the code first cuts the vocabulary to its tokenizer


class Mixed(nn.Module):
    """One parameter of every kind, of unequal sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(7, 3)
        self.linear = nn.Linear(4, 5)  # stored (5, 4)
        self.turned = Conv1D(5, 4)  # stored (4, 5): 5 outputs
        self.convolution = nn.Conv1d(2, 6, 3)  # stored (6, 2, 3)
        self.experts = nn.Parameter(torch.zeros(2, 5, 3))
        self.frozen = nn.Parameter(torch.zeros(9, 9), requires_grad=False)
        self.scale = nn.Parameter(torch.zeros(()))


@pytest.mark.parametrize(
    ("axis", "as_stored", "counts"),
    [
        ("row", False, {"words.weight": 7, "linear.weight": 5, "turned.weight": 5, "experts": 10}),
        ("row", True, {"words.weight": 7, "linear.weight": 5, "turned.weight": 4, "experts": 10}),
        ("column", False, {"words.weight": 3, "linear.weight": 4, "turned.weight": 4, "experts": 6}),
        ("column", True, {"words.weight": 3, "linear.weight": 4, "turned.weight": 5, "experts": 6}),
    ],
)
def test_rows_and_columns_of_every_kind_of_layer(axis: Axis, as_stored: bool, counts: dict[str, int]) -> None:
    parts = partition(Mixed(), axis, as_stored=as_stored)
    found = {p.name: p.count for p in parts}
    expected = counts | {"convolution.weight": 6 if axis == "row" else 2, "scale": 1}
    expected |= {"linear.bias": 1, "turned.bias": 1, "convolution.bias": 1}
    assert found == expected
    assert parts.size == sum(expected.values())


def test_vectors_are_numbered_without_gaps() -> None:
    parts, at = partition(Mixed()), 0
    for part in parts:
        assert part.first == at
        at += part.count


def test_tied_parameters_count_once_and_stay_out_with_the_embeddings() -> None:
    module = tiny_module(61, "gpt2")
    assert module.lm_head.weight is module.transformer.wte.weight
    names = [p.name for p in partition(module)]
    assert "transformer.wte.weight" in names and "lm_head.weight" not in names
    apart = [p.name for p in partition(module, embeddings=False)]
    assert set(names) - set(apart) == {"transformer.wte.weight", "transformer.wpe.weight"}


def test_unknown_axes_and_nothing_to_edit_are_refused() -> None:
    with pytest.raises(SettingsError, match="row"):
        partition(Mixed(), "rows")  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="no parameters"):
        partition(nn.Embedding(3, 2), embeddings=False)


# ----------------------------------------------------------------------------------------------- cosines


def gradients(module: nn.Module, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {n: torch.randn(p.shape, generator=generator) for n, p in module.named_parameters() if p.requires_grad}


def plain(parts: Partition, one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> list[float]:
    """The same, one vector at a time."""
    out = []
    for p in parts:
        views = [g[p.name].permute((*p.kept, *p.over)).reshape(p.count, -1) for g in (one, other)]
        out += [float(torch.nn.functional.cosine_similarity(a, b, dim=0)) for a, b in zip(*views, strict=True)]
    return out


@pytest.mark.parametrize("axis", ["row", "column"])
def test_cosines_are_those_of_a_loop_over_vectors(axis: Axis) -> None:
    module = Mixed()
    parts = partition(module, axis)
    one, other = gradients(module, 1), gradients(module, 2)
    found = similarities(parts, one, other, World(module))
    assert found.cosine.tolist() == pytest.approx(plain(parts, one, other), abs=1e-6)
    assert bool(found.live.all())


def test_all_vectors_of_a_parameter_are_compared_in_a_fixed_number_of_operations() -> None:
    class Counted(torch.utils._python_dispatch.TorchDispatchMode):
        calls = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            self.calls += 1
            return function(*args, **(kwargs or {}))

    counts = []
    for rows in (10, 100_000):
        module = nn.Linear(3, rows, bias=False)
        one, other = gradients(module, 1), gradients(module, 2)
        parts, world = partition(module), World(module)
        with Counted() as mode:
            similarities(parts, one, other, world)
        counts.append(mode.calls)
    assert counts[0] == counts[1] < 50


def test_known_cosines_and_vectors_without_gradient() -> None:
    module = nn.Linear(2, 5, bias=False)
    one = {"weight": torch.tensor([[1.0, 0.0], [1.0, 0.0], [3.0, 4.0], [0.0, 0.0], [1e-30, 0.0]])}
    other = {"weight": torch.tensor([[0.0, 2.0], [-5.0, 0.0], [6.0, 8.0], [1.0, 1.0], [1.0, 0.0]])}
    found = similarities(partition(module), one, other, World(module))
    assert found.cosine.tolist() == pytest.approx([0.0, -1.0, 1.0, 0.0, 0.0])
    assert found.live.tolist() == [True, True, True, False, False]  # 1e-30 squared is 0 in float32
    found = similarities(partition(module), one, {}, World(module))
    assert not found.live.any()


def test_gradients_that_are_not_finite_are_named() -> None:
    module = Mixed()
    one, other = gradients(module, 1), gradients(module, 2)
    one["linear.weight"][3, 1] = torch.nan
    with pytest.raises(EvenhandError, match=r"linear\.weight is no longer finite"):
        similarities(partition(module), one, other, World(module))


# --------------------------------------------------------------------------------------------- selection


FOUND = Similarities(
    torch.tensor([0.5, 0.0, -0.2, 0.0, 0.5, -0.9, 0.1]), torch.tensor([True, False, True, False, True, True, True])
)


@pytest.mark.parametrize(
    ("k", "zero_rows", "expected"),
    [
        (0, "masked", []),
        (1, "masked", [5]),
        (2, "masked", [2, 5]),
        (3, "masked", [2, 5, 6]),
        (4, "masked", [0, 2, 5, 6]),  # 0 and 4 are equal: the lower index
        (5, "masked", [0, 2, 4, 5, 6]),
        (7, "masked", [0, 2, 4, 5, 6]),
        (3, "kept", [1, 2, 5]),
        (4, "kept", [1, 2, 3, 5]),
        (7, "kept", [0, 1, 2, 3, 4, 5, 6]),
    ],
)
def test_the_lowest_are_chosen_and_of_equal_ones_the_first(k: int, zero_rows: str, expected: list[int]) -> None:
    chosen = lowest(FOUND, k, zero_rows=zero_rows)  # type: ignore[arg-type]
    assert chosen.nonzero().flatten().tolist() == expected


def test_many_ties_are_broken_by_index() -> None:
    found = Similarities(torch.zeros(10_000), torch.ones(10_000, dtype=torch.bool))
    assert lowest(found, 3_333).nonzero().flatten().tolist() == list(range(3_333))


def test_more_than_there_are_is_refused() -> None:
    with pytest.raises(SettingsError, match="8 vectors of 7"):
        lowest(FOUND, 8)


def test_how_many_are_wanted() -> None:
    assert wanted(FOUND, 0.4, None, "masked") == 2 and wanted(FOUND, 0.4, None, "kept") == 3
    assert wanted(FOUND, 0.4, 6, "masked") == 6 and wanted(FOUND, 0.4, 99, "masked") == 7


def test_random_ones_have_a_gradient_and_hang_on_the_seed() -> None:
    found = Similarities(torch.zeros(100), torch.arange(100) % 2 == 0)
    one, same, other = (drawn(found, 20, seed) for seed in ("a", "a", "b"))
    assert int(one.sum()) == 20 and not one[1::2].any()
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_the_diagnosis_counts_by_layer_and_goes_on_where_it_was() -> None:
    module = nn.ModuleDict({"layers": nn.ModuleList([nn.Linear(2, 3, bias=False), nn.Linear(2, 4, bias=False)])})
    parts = partition(module)
    seen = Diagnosis(parts)
    seen.add(FOUND, lowest(FOUND, 4, zero_rows="kept"))
    again = Diagnosis(parts)
    again.restore(seen.state())
    again.add(FOUND, lowest(FOUND, 2))
    facts = again.facts()
    assert facts["by_layer"] == {"layers.0": {"chosen": 3, "live": 4}, "layers.1": {"chosen": 3, "live": 6}}
    assert facts["zero_share"] == pytest.approx(2 / 7) and facts["zero_share_of_chosen"] == pytest.approx(2 / 6)
    assert sum(facts["cosines"]) == 10 and sum(facts["cosines_of_chosen"]) == 4  # type: ignore[call-overload]
    assert len(facts["cosine_edges"]) == selection.BINS + 1  # type: ignore[arg-type]


def test_layers_are_named_by_their_number() -> None:
    assert layer_of("model.layers.12.mlp.up_proj.weight") == "model.layers.12"
    assert layer_of("lm_head.weight") == "lm_head" and layer_of("scale") == "scale"


def test_short_gradients_have_cosines_near_0_where_there_is_a_least_norm() -> None:
    """Of two equal gradients of norm 1e-9 it is 1, and with a least norm of 1e-8 a hundredth."""
    one, other = torch.tensor([[1e-9, 0.0], [3.0, 4.0]]), torch.tensor([[1e-9, 0.0], [4.0, 3.0]])
    (part,) = partition(nn.Linear(2, 2, bias=False))
    statistics = products(part, one.double(), other.double())
    assert cosines(statistics).cosine.tolist() == pytest.approx([1.0, 0.96])
    found = cosines(statistics, 1e-8).cosine
    assert found.tolist() == pytest.approx([0.01, 0.96])
    torch.testing.assert_close(found, torch.nn.functional.cosine_similarity(one, other, dim=-1))
