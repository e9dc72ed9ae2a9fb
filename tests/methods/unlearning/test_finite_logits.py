"""Edited models whose weights are finite and whose scores are not: an earlier epoch, or a refusal, never NaN."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from evenhand.errors import DivergedError, EvenhandError
from evenhand.interfaces import Pair, TrainData
from evenhand.methods.unlearning._pcgu import edited as edits
from evenhand.methods.unlearning._pcgu.updates import Unlearning
from evenhand.methods.unlearning._result import edited
from evenhand.methods.unlearning.pcgu import PCGU
from evenhand.models.tiny import tiny_model
from evenhand.training.finite import PROBES, count_broken, probes, refuse_broken

HEADS = ("Who was there", "There was a", "Explain which")
DATA = TrainData(pairs=tuple(Pair(" dog", " cat", f"{h} {w}") for h in HEADS for w in ("in", "at", "of")))
HUGE = 30_000.0
"""Finite in float16; products of two such numbers are not."""


def half(architecture: str = "gpt2", dtype: torch.dtype = torch.float16) -> Any:
    model = tiny_model(architecture)
    model.weights.module.to(dtype)
    return model


def spoilt_after(monkeypatch: pytest.MonkeyPatch, epoch: int) -> None:
    """From this epoch on (the first is 1) an edited matrix is so large that float16 cannot hold its products."""
    settle = Unlearning._settle

    def large(run: Unlearning) -> None:
        settle(run)
        if run._done + 1 >= epoch:
            for part in run.parts:
                run.module.get_parameter(part.name).data.fill_(HUGE)

    monkeypatch.setattr(Unlearning, "_settle", large)


@pytest.mark.parametrize("validation_fraction", [0.0, 0.3])
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_an_edit_whose_scores_break_in_half_precision_alone_is_refused(
    architecture: str, validation_fraction: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The masters, in float32, score well."""
    method = PCGU.build(learning_rate=1e-4, epochs=1, validation_fraction=validation_fraction, gate=False)
    spoilt_after(monkeypatch, 1)
    with pytest.raises(DivergedError, match=r"logits of \d+ of \d+ texts are not finite in float16.*learning_rate"):
        method.apply(half(architecture), DATA)


@pytest.mark.parametrize("validation_fraction", [0.0, 0.3])
def test_the_epoch_that_is_kept_has_scores_in_the_models_own_precision(
    validation_fraction: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoilt_after(monkeypatch, 3)
    method = PCGU.build(learning_rate=1e-3, epochs=4, validation_fraction=validation_fraction, gate=False)
    with pytest.warns(UserWarning, match=r"not finite in float16 with this edit in epoch 3 at learning_rate=0\.001"):
        made = method.apply(half(), DATA)
    assert made.facts()["best_epoch"] <= 2 and len(made.facts()["curve"]) == 2 + bool(validation_fraction)
    assert not count_broken(made.weights.module, half().weights.module, probes(made.weights.tokenizer, 64))


def test_a_large_rate_in_half_precision_is_never_without_a_word() -> None:
    """Rates at which the weights stay finite."""
    outcomes = set()
    for rate in (1e-3, 30.0, 300.0, 3000.0):
        method = PCGU.build(learning_rate=rate, epochs=1, validation_fraction=0.0)
        try:
            made = method.apply(half(), DATA)
        except DivergedError:
            outcomes.add("refused")
            continue
        ids = torch.tensor([made.weights.tokenizer("There was a dog")["input_ids"]])
        with torch.no_grad():
            assert bool(made.weights.module(ids).logits.isfinite().all()), rate
        outcomes.add("finite")
    assert outcomes == {"refused", "finite"}


def test_the_base_is_left_as_it_was_when_an_epoch_is_tried() -> None:
    model = half(dtype=torch.bfloat16)
    before = {name: p.clone() for name, p in model.weights.module.state_dict().items()}
    PCGU.build(learning_rate=1e-3, epochs=2, validation_fraction=0.0, gate=False).apply(model, DATA)
    assert all(torch.equal(p, before[name]) for name, p in model.weights.module.state_dict().items())


def test_an_edit_that_was_kept_before_is_tried_too(monkeypatch: pytest.MonkeyPatch) -> None:
    model = half()

    class Broken:
        def apply(self, module: Any) -> None:
            for p in module.parameters():
                p.data.fill_(HUGE)

    with pytest.raises(DivergedError, match=r"float16.*lower learning_rate"):
        edits.edited(model, PCGU.build(), Broken())  # type: ignore[arg-type]


def test_what_was_broken_before_is_not_the_edits_fault() -> None:
    model, broken = half(), half()
    broken.weights.module.get_input_embeddings().weight.data.fill_(math.nan)
    texts = probes(model.weights.tokenizer, 64)
    assert len(texts) == len(PROBES)
    refuse_broken(broken.weights.module, broken.weights.module, texts, "")
    with pytest.raises(DivergedError, match=f"{len(texts)} of {len(texts)} texts.*: give less"):
        refuse_broken(broken.weights.module, model.weights.module, texts, "give less")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_result_of_task_vectors_or_preference_gives_scores_or_is_refused(dtype: torch.dtype) -> None:
    model, other = half("llama", dtype), half("llama", dtype)
    for part in (other.weights.module.model.norm, other.weights.module.lm_head):
        part.weight.data.fill_(HUGE if dtype == torch.float16 else 1e30)
    assert all(bool(p.isfinite().all()) for p in other.weights.module.parameters())
    with pytest.raises(EvenhandError, match=r"not finite in .*: take a smaller strength"):
        edited(other.weights.module, model, "name", None, remedy="take a smaller strength")
    assert edited(model.weights.module, model, "name", None, remedy="").name == "name"


def test_texts_are_cut_to_the_context() -> None:
    assert all(len(ids) == 3 for ids in probes(tiny_model().weights.tokenizer, 3))
