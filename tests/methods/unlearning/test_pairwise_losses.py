"""The losses of `pairwise`: known values, limits and gradients, and independence of padding and of parts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from evenhand.methods.unlearning._pairwise import losses
from evenhand.methods.unlearning._pairwise.objective import (
    Objective,
    PairNll,
    Totals,
    pair_losses,
)
from evenhand.methods.unlearning._pairwise.retaining import cross_entropy_with_reference, kl_from_reference
from evenhand.methods.unlearning._pairwise.sequence_nll import packed, sequence_nll
from evenhand.methods.unlearning._pairwise.terms import PAIR_TERMS
from evenhand.models.tiny import tiny_module
from evenhand.training.causal import finish_of
from evenhand.training.packing import Layout

NLL = torch.tensor([3.0, 8.0, 1.5, 20.0], dtype=torch.float64)
OTHER = torch.tensor([2.0, 9.0, 4.5, 1.0], dtype=torch.float64)
LENGTHS = torch.tensor([1.0, 4.0, 2.0, 7.0], dtype=torch.float64)


def gradient(loss: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    point = at.clone().requires_grad_()
    loss(point).sum().backward()  # type: ignore[no-untyped-call]
    assert point.grad is not None
    return point.grad


def test_where_the_model_is_its_own_reference() -> None:
    assert losses.dpo(NLL, OTHER, NLL, OTHER, 0.1).tolist() == pytest.approx([0.6931471805599453] * 4, abs=1e-12)
    assert losses.npo(NLL, NLL, 0.1).tolist() == pytest.approx([13.862943611198906] * 4, abs=1e-12)
    assert float(losses.npo_of_batch_mean(NLL, LENGTHS, NLL, 0.1)) == pytest.approx(13.862943611198906, abs=1e-12)
    found = gradient(lambda x: losses.npo(x, NLL, 0.1), NLL)
    assert found.tolist() == pytest.approx([-1.0] * 4, abs=1e-12)  # that of gradient ascent on the sums


def test_npo_decays_where_gradient_ascent_does_not() -> None:
    forgotten = NLL + 30.0
    assert gradient(lambda x: losses.npo(x, NLL, 0.1), forgotten).tolist() == pytest.approx(
        [-2 / (1 + math.exp(3))] * 4
    )
    assert gradient(lambda x: losses.ascent(x, LENGTHS), forgotten).tolist() == pytest.approx((-1 / LENGTHS).tolist())


def test_npo_becomes_gradient_ascent_as_beta_goes_to_0() -> None:
    """(2 / beta) ln(1 + exp(-beta d)) = (2 / beta) ln 2 - d + O(beta)."""
    for beta in (1e-2, 1e-4, 1e-6):
        within = 100 * beta  # d is at most 19: beta d^2 / 4 in the value, beta d / 2 in the gradient
        difference = losses.npo(NLL, OTHER, beta) - 2 / beta * math.log(2)
        assert difference.tolist() == pytest.approx((OTHER - NLL).tolist(), abs=within)
        assert gradient(lambda x, b=beta: losses.npo(x, OTHER, b), NLL).tolist() == pytest.approx(  # type: ignore[misc]
            [-1.0] * 4, abs=within
        )


def test_dpo_with_its_winner_frozen_is_half_beta_npo() -> None:
    expected = 0.05 * losses.npo(OTHER, NLL, 0.1)
    assert losses.dpo(NLL, OTHER, NLL, NLL, 0.1).tolist() == pytest.approx(expected.tolist(), abs=1e-12)


def test_a_doubled_text_changes_npo_and_not_simnpo() -> None:
    one = losses.simnpo(NLL, LENGTHS, 4.5, 0.0)
    assert losses.simnpo(2 * NLL, 2 * LENGTHS, 4.5, 0.0).tolist() == pytest.approx(one.tolist())
    assert not torch.allclose(losses.npo(2 * NLL, 2 * OTHER, 0.1), losses.npo(NLL, OTHER, 0.1))


def test_values_by_hand() -> None:
    assert float(losses.simnpo(NLL, LENGTHS, 4.5, 0.5)[1]) == pytest.approx(2 / 4.5 * math.log1p(math.exp(-4.5 * 1.5)))
    assert float(losses.margin(NLL, LENGTHS, OTHER, LENGTHS, 0.2)[0]) == pytest.approx(math.log1p(math.exp(1.2)))
    assert float(losses.gap(NLL, LENGTHS, OTHER, LENGTHS)[3]) == pytest.approx((19 / 7) ** 2)
    assert losses.gap(NLL, LENGTHS, 2 * NLL, 2 * LENGTHS).tolist() == [0.0] * 4


# ------------------------------------------------------------------------------------------------ parts of a step


def nll_of(rows: slice) -> PairNll:
    also = torch.tensor([True, False, False, True])
    sides = (NLL, OTHER, LENGTHS, LENGTHS + 1, NLL + 0.5, OTHER - 0.25, also)
    return PairNll(*(side[rows] for side in sides))


TOTALS = Totals(pairs=4, forgotten=6, chosen_tokens=14, rejected_tokens=18)


def step_loss(name: str, parts: int, **more: Any) -> float:
    """What the loop makes of the parts of one step: their mean."""
    objective = Objective(weights={name: 0.7}, margin=0.3, simnpo_delta=0.2, **more)
    size = 4 // parts
    every = [pair_losses(nll_of(slice(at, at + size)), objective, TOTALS, parts)[name] for at in range(0, 4, size)]
    return float(torch.stack(every).mean())


@pytest.mark.parametrize("name", PAIR_TERMS)
def test_a_step_may_be_computed_in_parts(name: str) -> None:
    whole = step_loss(name, 1)
    assert [step_loss(name, parts) for parts in (2, 4)] == pytest.approx([whole] * 2, abs=1e-6)
    assert whole != 0


def test_the_released_batch_mean_may_not() -> None:
    whole, halves = (step_loss("npo", parts, npo_form="batch_mean", beta=20.0) for parts in (1, 2))
    assert abs(whole - halves) > 1e-3


def test_means_of_cross_entropy_are_over_tokens_and_adversarial_rows_are_forgotten_on_both_sides() -> None:
    assert step_loss("lm", 1) == pytest.approx(0.7 * 32.5 / 14)
    assert step_loss("swapped_lm", 1) == pytest.approx(0.7 * 16.5 / 18)
    forgotten = [*(OTHER / (LENGTHS + 1)).tolist(), 3.0 / 1.0, 20.0 / 7.0]
    assert step_loss("ga", 1) == pytest.approx(-0.7 * sum(forgotten) / 6)


def test_a_loss_with_weight_0_is_not_computed() -> None:
    objective = Objective(weights={"gap": 1.0, "npo": 0.0})
    assert set(pair_losses(nll_of(slice(0, 4)), objective, TOTALS, 1)) == {"gap"}


# ------------------------------------------------------------------------------------------- sums over sequences

PROMPTS = [[1, 5, 6], [1], [1, 7, 8, 9, 10]]
CONTINUATIONS = [[11, 12], [13, 14, 15, 16], [17]]


@pytest.fixture(scope="module")
def module() -> Any:
    return tiny_module(40, scale=1.0).double()


def by_hand(module: Any) -> list[float]:
    """Each sequence alone, from the model's own logits."""
    found = []
    for before, after in zip(PROMPTS, CONTINUATIONS, strict=True):
        with torch.no_grad():
            logprobs = torch.log_softmax(module(torch.tensor([before + after])).logits[0], dim=-1)
        found.append(-sum(float(logprobs[len(before) + n - 1, token]) for n, token in enumerate(after)))
    return found


@pytest.mark.parametrize("kind", ["positions", "padding"])
@pytest.mark.parametrize("tokens", [6, 12, 2048])
def test_only_the_continuation_counts_whatever_stands_next_to_it(module: Any, kind: Any, tokens: int) -> None:
    batches = packed(PROMPTS, CONTINUATIONS, Layout(kind, dtype=torch.float64), tokens)
    with torch.no_grad():
        found = sequence_nll(module, batches, 3, finish_of(module))
    assert found.tolist() == pytest.approx(by_hand(module), abs=1e-6)


def test_gradients_reach_the_weights_through_each_sequence(module: Any) -> None:
    batches = packed(PROMPTS, CONTINUATIONS, Layout("padding", dtype=torch.float64), 2048)
    found = sequence_nll(module, batches, 3, finish_of(module))
    (one,) = torch.autograd.grad(found[0], [module.lm_head.weight], retain_graph=True)
    (all_,) = torch.autograd.grad(found.sum(), [module.lm_head.weight])
    assert float(one.norm()) > 0 and not torch.allclose(one, all_)


# --------------------------------------------------------------------------------------------------- divergences


def test_the_divergence_is_0_at_the_start_and_the_cross_entropy_has_its_gradient() -> None:
    torch.manual_seed(0)
    head = torch.nn.Linear(4, 6, bias=False).double().requires_grad_(False)
    theirs = torch.randn(5, 4, dtype=torch.float64)
    values, gradients = [], []
    for loss in (kl_from_reference, cross_entropy_with_reference):
        for mine in (theirs.clone(), theirs + 0.3):
            mine.requires_grad_()
            value = loss(mine, theirs, head, lambda logits: logits)
            gradients.append(torch.autograd.grad(value, mine)[0])
            values.append(float(value.detach()))
    assert values[0] == pytest.approx(0, abs=1e-12) and values[1] > 0.01
    assert float(gradients[0].abs().max()) < 1e-12
    logprobs = torch.log_softmax(head(theirs), dim=-1)
    assert values[2] == pytest.approx(float(-(logprobs.exp() * logprobs).sum()))  # the reference's entropy
    assert torch.allclose(gradients[1], gradients[3]) and torch.allclose(gradients[0], gradients[2], atol=1e-12)


# ---------------------------------------------------------------------------------------------------------- TRL


def test_dpo_is_the_loss_of_trl(tmp_path: Any) -> None:
    """The same four pairs under the same adapter and reference: TRL's loss, and ours."""
    trl = pytest.importorskip("trl")
    from evenhand.interfaces import Pair
    from evenhand.methods.unlearning._dpo import read_pairs
    from evenhand.methods.unlearning._pairwise.sequence_nll import as_reference
    from evenhand.models.tiny import tiny_tokenizer
    from evenhand.training import trl_support
    from evenhand.training.lora import Adapter, adapted, lora_config

    endings = [(job, word) for job in ("nurse", "cook") for word in ("late", "sad")]
    pairs = [Pair(f" he was {word}", f" she was {word} there", f"the {job} said") for job, word in endings]
    words = tiny_tokenizer([f"{p.prompt}{p.stereotyped}{p.counter_stereotyped}" for p in pairs], chat=False)
    base = tiny_module(len(words), scale=1.0)
    tuned = adapted(base, lora_config(base, Adapter(4, 8)), 0)
    read = read_pairs(pairs, words, 99).rows
    if words.pad_token is None:
        words.pad_token = words.eos_token
    given = trl.DPOConfig(
        output_dir=str(tmp_path), beta=0.3, use_cpu=True, report_to="none", per_device_train_batch_size=4, bf16=False
    )
    trainer = trl_support.dpo_trainer(read, [], model=tuned, args=given, processing_class=words)
    (batch,) = list(trainer.get_train_dataloader())
    torch.manual_seed(1)
    for name, weight in tuned.named_parameters():
        if "lora_B.default" in name:  # not before: TRL takes the adapter that it is given as the reference
            torch.nn.init.normal_(weight, std=0.2)
    theirs = float(trainer.compute_loss(trainer.model.eval(), trainer._prepare_inputs(batch)).detach())

    def sums() -> tuple[Tensor, Tensor]:
        prompts = [row["prompt_ids"] for row in read] * 2
        after = [row[side] for side in ("chosen_ids", "rejected_ids") for row in read]
        found = sequence_nll(tuned, packed(prompts, after, Layout("padding"), 2048), 8, finish_of(tuned))
        return found[:4], found[4:]

    with as_reference(tuned):
        reference = sums()
    ours = losses.dpo(*sums(), *reference, 0.3).mean()
    assert abs(theirs - math.log(2)) > 1e-2
    assert float(ours.detach()) == pytest.approx(theirs, abs=1e-5)
