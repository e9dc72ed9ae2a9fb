"""Hidden states read through the prefix trie are those of plain forwards, and their means find a planted direction."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM

from evenhand.errors import EvenhandError, SettingsError
from evenhand.inference import Engine
from evenhand.inference import engine as inside
from evenhand.inference.activation_edits import ActivationEdit, LayerEdit
from evenhand.inference.decoder_layers import decoder_layers
from evenhand.inference.encoder import EncoderEngine
from evenhand.inference.states import mean_states, states
from evenhand.inference.support_probe import Tried
from evenhand.models.tiny import tiny_model

from .edit_helpers import HIDDEN, vector

LAYERS = [0, 1]


def sequences(count: int = 12) -> tuple[list[tuple[int, ...]], list[list[int]]]:
    """Pairs that differ in the last token, one sequence inside another, and one or several positions of each."""
    rng = random.Random(1)
    made: list[tuple[int, ...]] = []
    for _ in range(count // 2):
        head = tuple(rng.randrange(7, 60) for _ in range(rng.randrange(2, 9)))
        made += [(*head, 8), (*head, 9)]
    made += [made[0][:2], made[0]]
    positions = [[len(ids) - 1] if n % 3 else [0, len(ids) - 1] for n, ids in enumerate(made)]
    return made, positions


def plain_state(module: Any, ids: tuple[int, ...], layer: int) -> Tensor:
    """States after a layer in a forward of one sequence, [tokens, hidden] float64."""
    seen: list[Tensor] = []

    def hook(_: Any, __: Any, output: Any) -> None:
        seen.append(output[0] if isinstance(output, tuple) else output)

    handle = decoder_layers(module)[layer].register_forward_hook(hook)
    with torch.no_grad():
        module(input_ids=torch.tensor([ids]))
    handle.remove()
    return seen[0][0].double()


def expected_states(module: Any, asked: list[tuple[int, ...]], positions: list[list[int]]) -> Tensor:
    rows = [
        torch.stack([plain_state(module, ids, layer)[some].mean(0) for layer in LAYERS])
        for ids, some in zip(asked, positions, strict=True)
    ]
    return torch.stack(rows)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neox"])
@pytest.mark.parametrize("way", ["tree", "small packs", "batches"])
def test_states_equal_plain_forwards(architecture: str, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if way == "batches":
        monkeypatch.setattr(inside, "try_out", lambda module: Tried(None, "not today"))
    model = tiny_model(architecture, batch_tokens=7 if way == "small packs" else None)
    asked, positions = sequences()
    with pytest.warns(UserWarning, match="not today") if way == "batches" else torch.no_grad():
        found = states(model.engine, asked, positions, LAYERS)
    expected = expected_states(model.engine.module, asked, positions)
    assert found.shape == (len(asked), 2, HIDDEN)
    assert found.double() == pytest.approx(expected, abs=1e-4)
    assert expected.std() > 0.1


def test_the_last_layer_is_read_before_the_final_norm() -> None:
    model = tiny_model()
    module: Any = model.engine.module
    with torch.no_grad():
        after_norm = module(torch.tensor([[1, 8, 9]]), output_hidden_states=True).hidden_states[-1][0, -1]
    found = states(model.engine, [(1, 8, 9)], [[2]], [1])[0, 0]
    assert torch.allclose(module.model.norm(found), after_norm, atol=1e-4)
    assert not torch.allclose(found, after_norm, atol=0.1)


def test_an_encoder_reads_all_tokens() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=60, hidden_size=HIDDEN, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4
        )
        module = BertForMaskedLM(config).float().eval()
    asked, positions = sequences()
    positions = [[0] for _ in positions]
    found = states(EncoderEngine(module), asked, positions, LAYERS)
    assert found.double() == pytest.approx(expected_states(module, asked, positions), abs=1e-5)
    assert not torch.allclose(found[0], found[1], atol=1e-4), "tokens after the position that is read have no say"


def test_members_of_a_pair_share_their_question_and_nothing_runs_above_the_highest_layer() -> None:
    engine = tiny_model().engine
    head = tuple(range(10, 40))
    calls: list[int] = []
    decoder_layers(engine.module)[1].register_forward_hook(lambda *_: calls.append(1))
    engine.tried  # noqa: B018  # trying out runs all layers
    before = len(calls)
    states(engine, [(*head, 8), (*head, 9)], [[30], [30]], [0])
    assert engine.tokens == 32
    assert len(calls) == before


@pytest.mark.parametrize("weighted", [False, True])
def test_means_are_those_of_the_states(weighted: bool) -> None:
    engine = tiny_model(batch_tokens=20).engine
    asked, positions = sequences()
    groups = ["a" if n % 2 else "b" for n in range(len(asked))]
    weights = [0.5 + n for n in range(len(asked))] if weighted else None
    found = mean_states(engine, asked, positions, [1, 0], groups, weights)
    rows = states(engine, asked, positions, [1, 0]).double()
    for name in "ab":
        mine = [n for n, group in enumerate(groups) if group == name]
        mass = torch.tensor([1.0 if weights is None else weights[n] for n in mine]).double()
        expected = (rows[mine] * mass[:, None, None]).sum(0) / mass.sum()
        assert found[name].mean == pytest.approx(expected, abs=1e-5)
        assert found[name].count == len(mine)
        assert found[name].weight == pytest.approx(float(mass.sum()))
        assert found[name].mean.dtype == torch.float64


def test_a_planted_direction_is_found() -> None:
    """One member of each pair has w added to its last state: the difference of means is w."""
    model, w = tiny_model(), vector(4)
    asked, _ = sequences()
    plus = [ids for n, ids in enumerate(asked[:12]) if n % 2 == 0]
    positions = [[len(ids) - 1] for ids in plus]
    planted = model.engine.edited(ActivationEdit({1: (LayerEdit("add", w),)}, "answer"))
    one = mean_states(planted, plus, positions, LAYERS, ["+"] * len(plus))["+"].mean
    other = mean_states(model.engine, plus, positions, LAYERS, ["-"] * len(plus))["-"].mean
    assert (one - other)[0].abs().max() == 0
    assert (one - other)[1] == pytest.approx(w.double(), abs=1e-6)
    assert torch.cosine_similarity((one - other)[1], w.double(), dim=0) == pytest.approx(1.0, abs=1e-9)


def test_order_and_batches_change_nothing() -> None:
    asked, positions = sequences()
    groups = [n % 3 for n in range(len(asked))]
    order = random.Random(0).sample(range(len(asked)), len(asked))
    first = mean_states(tiny_model().engine, asked, positions, LAYERS, groups)
    other = mean_states(
        tiny_model(batch_tokens=5).engine,
        [asked[n] for n in order],
        [positions[n] for n in order],
        LAYERS,
        [groups[n] for n in order],
    )
    for group, found in first.items():
        assert other[group].mean == pytest.approx(found.mean, abs=1e-5)
        assert other[group].count == found.count


def test_a_batch_that_does_not_fit_is_not_counted_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory gives out after some layers of a pack have been handed over."""
    asked, positions = sequences()
    expected = mean_states(tiny_model().engine, asked, positions, LAYERS, ["g"] * len(asked))["g"].mean
    engine = tiny_model().engine
    engine.tried  # noqa: B018
    failures = [1, 1]

    def short(_: Any, inputs: tuple[Tensor, ...]) -> None:
        if inputs[0].shape[1] > 20 and failures:
            failures.pop()
            raise torch.OutOfMemoryError("out of memory")

    decoder_layers(engine.module)[1].register_forward_pre_hook(short)
    found = mean_states(engine, asked, positions, LAYERS, ["g"] * len(asked))["g"]
    assert failures != [1, 1]
    assert found.mean == pytest.approx(expected, abs=1e-5)


def test_what_cannot_be_read_is_refused() -> None:
    engine = tiny_model().engine
    with pytest.raises(SettingsError, match=r"sequence 0 has 3 tokens, but its states are requested at \[3\]"):
        states(engine, [(1, 2, 3)], [[3]], [0])
    with pytest.raises(SettingsError, match="layer 2"):
        states(engine, [(1, 2, 3)], [[2]], [2])
    with pytest.raises(SettingsError, match="no layer"):
        states(engine, [(1, 2, 3)], [[2]], [])
    with pytest.raises(SettingsError, match="max_bytes=100"):
        states(engine, [(1, 2, 3)], [[2]], [0], max_bytes=100)
    with pytest.raises(SettingsError, match="sum to 0"):
        mean_states(engine, [(1, 2, 3)], [[2]], [0], ["g"], [0.0])
    assert mean_states(engine, [], [], [0], []) == {}


def test_states_that_are_not_finite_are_refused() -> None:
    engine: Engine = tiny_model().engine
    engine.tried  # noqa: B018
    with torch.no_grad():
        decoder_layers(engine.module)[0].mlp.down_proj.weight[0, 0] = torch.inf
    with pytest.raises(EvenhandError, match="layer 0: they are not finite"):
        states(engine, [(1, 8, 9)], [[2]], [0])
