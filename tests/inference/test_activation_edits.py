"""Activation edits: their arithmetic, and that every way of running a model applies them alike."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from evenhand.errors import EvenhandError, SettingsError
from evenhand.inference import Engine, Prompt, Request
from evenhand.inference import engine as inside
from evenhand.inference.activation_edits import ActivationEdit, LayerEdit, Mode, Scope, TokenGate
from evenhand.inference.decoder_layers import decoder_layers
from evenhand.inference.edit_hooks import EditHooks
from evenhand.inference.edited_rows import apply_rows, unchanged_share
from evenhand.inference.support_probe import Tried
from evenhand.interfaces import Sampling
from evenhand.models.tiny import tiny_model
from evenhand.prompting.sessions import conversation

from .edit_helpers import (
    HIDDEN,
    LAYER,
    SCOPES,
    branching,
    by_hand,
    edit_of,
    edited_logits,
    hooked,
    layer_edit,
    start_of,
    vector,
)

MODES: tuple[Mode, ...] = ("add", "project", "ablate")
ARCHITECTURES = ("llama", "gpt2", "gpt_neox", "opt")


def some_rows(count: int = 6, seed: int = 5) -> Tensor:
    return torch.randn(count, HIDDEN, generator=torch.Generator().manual_seed(seed)) * 3


# ------------------------------------------------------------------------------------------------ the arithmetic


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("strength", [1.0, 0.4])
def test_rows_follow_the_formulas(mode: Mode, strength: float) -> None:
    one, rows = layer_edit(mode, strength=strength), some_rows()
    expected = torch.stack([by_hand(one, row) for row in rows])
    assert apply_rows(one, rows).double() == pytest.approx(expected, abs=1e-5)
    assert not torch.allclose(rows.double(), expected, atol=0.1)


def test_ablation_removes_the_direction_and_nothing_else_and_twice_is_once() -> None:
    w = vector(1)
    one, rows = LayerEdit("ablate", w), some_rows()
    made, unit = apply_rows(one, rows), w / w.norm()
    assert (made @ unit).abs().max() < 1e-5
    across = rows - (rows @ unit)[:, None] * unit
    assert torch.allclose(made, across, atol=1e-5)
    assert torch.allclose(apply_rows(one, made), made, atol=1e-6)


def test_ablated_directions_agree_in_any_order_and_length_and_may_depend_on_one_another() -> None:
    directions, rows = torch.stack([vector(n) for n in (1, 2, 3)]), some_rows()
    first = apply_rows(LayerEdit("ablate", directions), rows)
    mixed = torch.stack([directions[2] * 7, directions[0], directions[1] - directions[0], directions[0]])
    assert torch.allclose(apply_rows(LayerEdit("ablate", mixed), rows), first, atol=1e-5)
    assert (first @ directions.T).abs().max() < 1e-4


def test_projection_moves_the_coordinate_to_the_target() -> None:
    v, o = vector(1), vector(2)
    made = apply_rows(LayerEdit("project", v, 1.0, offset=o, target=-1.5), some_rows())
    assert (made - o) @ (v / v.norm()) == pytest.approx(torch.full((6,), -1.5), abs=1e-5)


def test_edits_of_a_layer_act_in_order() -> None:
    add, ablate = LayerEdit("add", vector(1)), LayerEdit("ablate", vector(1))
    rows, unit = some_rows(), vector(1, 1.0)
    assert (apply_rows([add, ablate], rows) @ unit).abs().max() < 1e-5
    assert (apply_rows([ablate, add], rows) @ unit) == pytest.approx(torch.full((6,), 4.0), abs=1e-5)


def test_unflagged_rows_keep_every_bit() -> None:
    rows, flags = some_rows().to(torch.bfloat16), torch.tensor([True, False, True, False, False, True])
    made = apply_rows(layer_edit("project"), rows, flags)
    assert torch.equal(made[~flags], rows[~flags])
    assert not torch.equal(made[flags], rows[flags])
    assert made.dtype == torch.bfloat16


@pytest.mark.parametrize(("bias", "acts"), [(-1.0, True), (1.0, False)])
def test_a_gate_without_weight_acts_always_or_never(bias: float, acts: bool) -> None:
    one = replace(layer_edit("add"), gate=TokenGate(torch.zeros(HIDDEN), bias))
    rows = some_rows()
    made = apply_rows(one, rows)
    assert torch.equal(made, apply_rows(replace(one, gate=None), rows) if acts else rows)


def test_a_gate_decides_row_by_row() -> None:
    one, rows = layer_edit("add", gated=True), some_rows(40)
    changed = (apply_rows(one, rows) != rows).any(1)
    assert one.gate is not None
    assert torch.equal(changed, torch.sigmoid(rows @ one.gate.weight + one.gate.bias) < 0.5)
    assert 0 < int(changed.sum()) < 40


def test_coordinates_that_rounding_keeps_are_counted() -> None:
    rows = torch.full((2, HIDDEN), 256.0)  # steps of 2 in bfloat16
    step = torch.zeros(HIDDEN)
    step[:8], step[8:16] = 0.9, 1.1
    one = LayerEdit("add", step)
    assert unchanged_share(one, rows, torch.bfloat16) == (HIDDEN - 8) / HIDDEN
    assert unchanged_share(one, rows) == (HIDDEN - 16) / HIDDEN


def test_identity_and_digest() -> None:
    edit = edit_of("project", "all")
    still = ActivationEdit({0: (LayerEdit("project", vector(1), 0.0),), 1: (layer_edit("add", strength=0.0),)})
    assert still.is_identity
    assert not edit.is_identity
    assert not ActivationEdit({0: (LayerEdit("project", vector(1), 0.0, target=0.1),)}).is_identity
    assert ActivationEdit({0: (LayerEdit("add", torch.zeros(HIDDEN)),)}).is_identity
    assert edit.digest() == edit_of("project", "all").digest() == edit.then(still).digest()
    others = [
        edit_of("project", "after"),
        edit_of("project", "all", gated=True),
        edit_of("project", "all", skip_first=False),
        ActivationEdit({1: edit.layers[0]}),
        ActivationEdit({0: (replace(edit.layers[0][0], strength=0.5),)}),
        ActivationEdit({0: (replace(edit.layers[0][0], offset=None),)}),
        ActivationEdit({0: (replace(edit.layers[0][0], directions=vector(2)),)}),
    ]
    assert len({edit.digest(), *(o.digest() for o in others)}) == 8


def test_what_makes_no_edit_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"'ad' of an edit is not known.*add"):
        LayerEdit("ad", vector(1))  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="2 were given"):
        LayerEdit("add", torch.ones(2, HIDDEN))
    with pytest.raises(SettingsError, match="length 0"):
        LayerEdit("ablate", torch.zeros(HIDDEN))
    with pytest.raises(SettingsError, match="belong to project"):
        LayerEdit("add", vector(1), target=1.0)
    with pytest.raises(SettingsError, match="finite"):
        LayerEdit("add", torch.full((HIDDEN,), torch.nan))
    with pytest.raises(SettingsError, match="counted from 0"):
        ActivationEdit({-1: (layer_edit("add"),)})
    with pytest.raises(SettingsError, match="same scope"):
        edit_of("add", "all").then(edit_of("add", "after"))
    engine = tiny_model().engine
    with pytest.raises(SettingsError, match="has the layers 0 to 1"):
        engine.edited(ActivationEdit({2: (layer_edit("add"),)}))
    with pytest.raises(SettingsError, match=r"31 coordinates.*32"):
        engine.edited(ActivationEdit({0: (LayerEdit("add", torch.ones(31)),)}))


# --------------------------------------------------------------------------------------------- a model that reads


def compare(engine: Engine, module: Any, edit: ActivationEdit, fingerprint: str = "f", *, reordered: int = 0) -> None:
    asked = branching(module.config.vocab_size)
    random.Random(reordered).shuffle(asked)
    moved = 0.0
    for request, values in zip(asked, engine.read(asked, fingerprint), strict=True):
        logits = edited_logits(module, request.ids, edit, min(p for p, _ in request.reads))
        expected = torch.log_softmax(logits, -1)
        with torch.no_grad():
            plain = torch.log_softmax(module(torch.tensor([request.ids])).logits[0].double(), -1)
        for (position, token), value in zip(request.reads, values, strict=True):
            assert value == pytest.approx(float(expected[position, token]), abs=1e-4)
            moved = max(moved, abs(float(plain[position, token] - expected[position, token])))
    assert moved > 0.05, "the edit is too small for this test to notice a wrong flag"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("gated", [False, True])
def test_the_tree_equals_one_by_one(mode: Mode, scope: Scope, gated: bool) -> None:
    model, edit = tiny_model(), edit_of(mode, scope, gated=gated)
    engine = model.engine.edited(edit)
    assert engine.tried.finish is not None
    assert engine.tried.continues
    compare(engine, model.engine.module, edit)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("scope", SCOPES)
def test_all_architectures_equal_one_by_one(architecture: str, scope: Scope) -> None:
    model, edit = tiny_model(architecture), edit_of("project", scope, skip_first=scope != "all")
    compare(model.engine.edited(edit), model.engine.module, edit)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("budget", [1, 16, 4096])
def test_padded_batches_equal_one_by_one(scope: Scope, budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inside, "try_out", lambda module: Tried(None, "not today"))
    model, edit = tiny_model("gpt2", batch_tokens=budget), edit_of("project", scope)
    engine = model.engine.edited(edit)
    with pytest.warns(UserWarning, match="not today"):
        compare(engine, model.engine.module, edit)


def test_requests_in_any_order_and_batch_size_give_the_same() -> None:
    found = []
    for budget in (1, 9, 4096):
        engine = tiny_model(batch_tokens=budget).engine.edited(edit_of("ablate", "answer"))
        asked = branching(engine.module.config.vocab_size)
        order = random.Random(budget).sample(range(len(asked)), len(asked))
        values = engine.read([asked[n] for n in order], "f")
        found.append([value for _, some in sorted(zip(order, values, strict=True)) for value in some])
    assert found[0] == pytest.approx(found[1], abs=1e-5)
    assert found[0] == pytest.approx(found[2], abs=1e-5)


def test_only_nodes_with_other_flags_split() -> None:
    module = tiny_model()
    long = (1, 8, 9, 10, 11, 12)
    asked = [Request(long, ((5, 8),)), Request(long[:3], ((2, 8),))]
    fed = {}
    for scope in SCOPES:
        engine = module.engine.edited(edit_of("add", scope))
        engine.read(asked, scope)
        fed[scope] = engine.tokens
    assert fed == {"all": 6, "answer": 7, "after": 6}  # one request ends where the other goes on unedited


def test_the_opening_token_is_left_alone_unless_told_otherwise() -> None:
    model = tiny_model()
    asked = [Request((1,), ((0, 9),))]
    plain = model.engine.read(asked, "f")
    assert model.engine.edited(edit_of("add", "all")).read(asked, "f") == plain
    moved = model.engine.edited(edit_of("add", "all", skip_first=False)).read(asked, "f")
    assert abs(moved[0][0] - plain[0][0]) > 0.01


@pytest.mark.parametrize("scope", SCOPES)
def test_adding_the_opposite_undoes_a_planted_hook(scope: Scope) -> None:
    model = tiny_model()
    module, asked = model.engine.module, branching(len(model.weights.tokenizer))
    expected = model.engine.read(asked, "f")
    edit = ActivationEdit({LAYER: (LayerEdit("add", vector(1), -1.0),)}, scope)
    for request, values in zip(asked, expected, strict=True):
        start = start_of(edit, min(p for p, _ in request.reads))
        with hooked(module, LAYER, lambda n, row, start=start: row + vector(1) * (n >= start)):  # type: ignore[misc]
            restored = one_by_one(module, request, edit)
        assert restored == pytest.approx(values, abs=1e-4)


def one_by_one(module: Any, request: Request, edit: ActivationEdit) -> tuple[float, ...]:
    """Reads of a request whose forward sees a plain hook first; such a hook knows no trees."""
    from evenhand.inference.scoring import score_batch

    with torch.no_grad(), EditHooks(edit).installed(module):
        return score_batch(module, [request], 0)[0]


# -------------------------------------------------------------------------------------------- a model that writes


def prompts(vocabulary: int) -> list[Prompt]:
    rng = random.Random(3)
    long = tuple(rng.randrange(7, vocabulary) for _ in range(9))
    return [Prompt((1, *long)), Prompt((1, *long[:4])), Prompt((1, *long[:4], 8)), Prompt((1, 9)), Prompt((1,))]


def plain_replies(module: Any, asked: list[Prompt], edit: ActivationEdit, steps: int) -> list[tuple[int, ...]]:
    """Greedy replies by a loop without cache, one by one, with a plain hook."""
    made = []
    for prompt in asked:
        ids = prompt.ids
        for _ in range(steps):
            ids = (*ids, int(edited_logits(module, ids, edit, len(prompt.ids) - 1)[-1].argmax()))
            if ids[-1] == 2:
                break
        made.append(tuple(token for token in ids[len(prompt.ids) :] if token != 2))
    return made


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("loop", ["ours", "theirs"])
def test_replies_equal_a_plain_loop(mode: Mode, scope: Scope, loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, edit = tiny_model(), edit_of(mode, scope, gated=mode == "add")
    engine = model.engine.edited(edit)
    if loop == "theirs":
        monkeypatch.setattr(inside, "try_out", lambda module: Tried(None, "not today"))
    asked = prompts(len(model.weights.tokenizer))
    with pytest.warns(UserWarning) if loop == "theirs" else conversation():
        made = engine.generate(asked, Sampling(max_new_tokens=6), "f")
    expected = plain_replies(model.engine.module, asked, edit, 6)
    assert [g.ids for g in made] == expected
    plain = model.engine.generate(asked, Sampling(max_new_tokens=6), "plain")
    assert [g.ids for g in plain] != expected


@pytest.mark.parametrize("scope", SCOPES)
def test_a_conversation_goes_on_as_if_nothing_were_kept(scope: Scope) -> None:
    model, sampling = tiny_model(), Sampling(max_new_tokens=4)
    engine = model.engine.edited(edit_of("project", scope))
    asked = prompts(len(model.weights.tokenizer))
    with conversation():
        first = engine.generate(asked, sampling, "f")
        more = [Prompt((*p.ids, *g.ids, 10, 11)) for p, g in zip(asked, first, strict=True)]
        second = engine.generate(more, sampling, "f")
        reads = [Request((*p.ids, 12, 13), ((len(p.ids) - 1, 12), (len(p.ids), 13))) for p in more]
        scored = engine.read(reads, "f")
        before = engine.tokens
        again = engine.generate(more, Sampling(max_new_tokens=1), "f")
        fed = engine.tokens - before
    alone = tiny_model().engine.edited(edit_of("project", scope))
    assert [g.ids for g in alone.generate(more, sampling, "f")] == [g.ids for g in second]
    for one, other in zip(scored, alone.read(reads, "f"), strict=True):
        assert one == pytest.approx(other, abs=1e-5)
    assert [g.ids for g in again] == [g.ids[:1] for g in second]
    assert fed == len(more), "what was read under the same flags was read again"


def test_two_strengths_and_the_base_in_turns_never_mix() -> None:
    model = tiny_model()
    asked = branching(len(model.weights.tokenizer))
    edits = [ActivationEdit({0: (LayerEdit("add", vector(1), a),)}, "answer") for a in (1.0, -1.0)]
    engines = [model.engine, *(model.engine.edited(edit) for edit in edits)]
    alone = [engine.read(asked, str(n)) for n, engine in enumerate(engines)]
    with conversation():
        for _ in range(2):
            for n, engine in enumerate(engines):
                for one, other in zip(engine.read(asked, str(n)), alone[n], strict=True):
                    assert one == pytest.approx(other, abs=1e-5)
    assert model.engine.read(asked, "0") == alone[0], "the base is not what it was, bit for bit"


# ------------------------------------------------------------------------------------------- what is not silent


def test_a_forward_without_flags_is_an_error() -> None:
    module = tiny_model().engine.module
    edit = edit_of("add", "answer")
    with EditHooks(edit).installed(module), pytest.raises(EvenhandError, match="no tokens are flagged"):
        module(torch.tensor([[1, 8, 9]]))
    module(torch.tensor([[1, 8, 9]]))


def test_other_threads_are_not_edited() -> None:
    import threading

    module, found = tiny_model().engine.module, []
    ids = torch.tensor([[1, 8, 9]])
    expected = module(ids).logits
    with EditHooks(edit_of("add", "all")).installed(module):
        thread = threading.Thread(target=lambda: found.append(module(ids).logits))
        thread.start()
        thread.join()
    assert torch.equal(found[0], expected)


def test_a_model_that_ignores_hooks_is_refused() -> None:
    model = tiny_model()
    layer: Any = decoder_layers(model.engine.module)[LAYER]
    engine = model.engine.edited(edit_of("add", "all"))
    plain = type(layer).forward

    class FusedLayer(type(layer)):  # type: ignore[misc]
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return plain(self, *args, **kwargs)

    layer.__class__ = FusedLayer
    with pytest.raises(EvenhandError, match="without the edit of layer 0's output"):
        engine.read([Request((1, 8, 9), ((2, 9),))], "f")


def test_a_model_that_drops_what_hooks_give_is_refused() -> None:
    model = tiny_model()
    engine = model.engine.edited(edit_of("add", "all"))
    layers = decoder_layers(model.engine.module)
    kept: list[Any] = []
    layers[LAYER].register_forward_hook(lambda _, __, output: kept.append(output))
    layers[LAYER + 1].register_forward_pre_hook(lambda _, inputs: (kept[-1], *inputs[1:]))
    with pytest.raises(EvenhandError, match="does not use the output of hooks on layer 0"):
        engine.read([Request((1, 8, 9), ((2, 9),))], "f")
