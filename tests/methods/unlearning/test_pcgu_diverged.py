"""What is left of a run whose weights, gradients or scores stop being finite: the epoch before it, or a refusal."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from evenhand.core.artifacts import artefacts
from evenhand.errors import DivergedError, EvenhandError
from evenhand.interfaces import Pair, TrainData
from evenhand.methods.unlearning._choosing import choose
from evenhand.methods.unlearning._negation import adapted, merged
from evenhand.methods.unlearning._pairs import Side, TokenPair
from evenhand.methods.unlearning._pcgu.fsdp import World
from evenhand.methods.unlearning._pcgu.gradients import Scoring
from evenhand.methods.unlearning._pcgu.partition import partition
from evenhand.methods.unlearning._pcgu.updates import Plan, Unlearning
from evenhand.methods.unlearning._task_vectors import LowRank, TaskVector
from evenhand.methods.unlearning.pcgu import PCGU
from evenhand.models.tiny import tiny_model, tiny_module
from evenhand.training import trl

WORDS = 41


def module() -> Any:
    return tiny_module(WORDS, "gpt2")


def pairs(count: int) -> list[TokenPair]:
    """Texts of unequal lengths that end in different words."""
    random, out = Random(7), []
    for _ in range(count):
        head = [random.randrange(WORDS) for _ in range(random.randrange(2, 9))]
        sides = [Side((*head, t), (len(head) - 1,), (t,)) for t in random.sample(range(WORDS), 2)]
        out.append(TokenPair(sides[0], sides[1], "age"))
    return out


def unlearning(base: Any, some: list[TokenPair], folder: Path | None = None, **more: Any) -> Unlearning:
    edited, held = copy.deepcopy(base).float(), more.pop("held_out", ())
    given = {"epochs": 1, "learning_rate": 0.1, "batch": 8, "micro": 3, "direction": "decrease_advantaged", **more}
    return Unlearning(
        module=edited,
        base=base,
        parts=partition(edited),
        pairs=some,
        held_out=held,
        how=Scoring(causal=True),
        plan=Plan(**given),
        world=World(edited),
        folder=folder,
    )


def broken_in(run: Unlearning, epoch: int, value: float = math.inf) -> Unlearning:
    """After the steps of an epoch (from 0) one weight is not finite, as if the last of them had been too long."""
    real = run._epoch

    def step(number: int) -> float:
        found = real(number)
        if number == epoch:
            run.module.get_parameter(run.parts.of(0).name).data.view(-1)[5] = value
        return found

    run._epoch = step  # type: ignore[method-assign]
    return run


# --------------------------------------------------------------------------------------------- nothing to keep


@pytest.mark.parametrize("gate", [False, True])
def test_a_rate_that_breaks_the_first_epoch_is_refused_by_name(gate: bool) -> None:
    """One batch: no gradient is taken after the step, so that nothing else would notice."""
    base, some = module(), pairs(8)
    run = unlearning(base, some, learning_rate=3e38, direction="both", share=1.0, gate=gate)
    with pytest.raises(DivergedError, match=r"learning_rate=3e\+38, before any epoch was finished"):
        run.run()


def test_what_breaks_between_batches_does_not_pass_as_even() -> None:
    """With the gate, odds that are nan leave nothing of a batch, which looks as if there were no bias left."""
    base, some = module(), pairs(24)
    run = unlearning(base, some, learning_rate=3e38, direction="both", share=1.0, gate=True)
    with pytest.raises(DivergedError, match="log-odds of a batch"):
        run.run()


def test_weights_have_to_be_finite_in_the_precision_of_the_model() -> None:
    """The masters are float32; float16 ends at 65,504."""
    found = {}
    for dtype in (torch.float16, torch.bfloat16):
        run = broken_in(unlearning(module().to(dtype), pairs(8)), 0, 70_000.0)
        try:
            run.run()
        except DivergedError as error:
            found[dtype] = str(error)
    assert list(found) == [torch.float16] and "1 weights are not finite in float16" in found[torch.float16]


def test_scores_may_break_before_weights_do() -> None:
    run = unlearning(module(), pairs(8))
    settle = run._settle

    def large() -> None:
        settle()
        run.module.transformer.ln_f.weight.data.fill_(1e38)  # finite, and what it is multiplied with is not

    run._settle = large  # type: ignore[method-assign]
    with pytest.raises(DivergedError, match=r"scores of 3 pairs became (nan|inf|-inf) in epoch 1"):
        run.run()


# ------------------------------------------------------------------------------------- the epoch before is kept


@pytest.mark.parametrize("held", [0, 4])
@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_the_last_good_epoch_is_kept_and_the_run_says_so(held: int, value: float, tmp_path: Path) -> None:
    base, some = module(), pairs(20)
    options: dict[str, Any] = {"learning_rate": 0.01, "held_out": some[:held]}
    run = broken_in(unlearning(base, some[held:], epochs=5, folder=tmp_path, **options), 2, value)
    made = run.run()
    expected = unlearning(base, some[held:], epochs=2, **options)
    known = expected.run()
    assert made is not None and known is not None and made.vectors.keys() == known.vectors.keys()
    for name, v in made.vectors.items():
        assert torch.equal(v.change, known.vectors[name].change) and bool(v.change.isfinite().all())
    assert run.curve == expected.curve and run.seen.facts() == expected.seen.facts(), "as if it had ended there"
    assert run.halted.startswith("diverged: 1 weights are not finite in float32 in epoch 3 at learning_rate=0.01")
    assert run.halted.endswith(f"the edit is of epoch {run.best}")
    again = broken_in(unlearning(base, some[held:], epochs=5, folder=tmp_path, **options), 2, value)
    assert again.run() is not None and again.halted == run.halted, "a run that goes on from the checkpoint ends alike"


def test_batches_that_the_gate_leaves_out_are_no_divergence() -> None:
    base, some = module(), pairs(16)
    run = unlearning(base, some, gate=True, epochs=3, learning_rate=1e-6)
    run._leaning = lambda batch: list(batch) if batch[0] in some[:8] else []  # type: ignore[method-assign]
    assert run.run() is not None and not run.halted
    assert len(run.curve) == 3 and all(math.isfinite(row["advantaged"]) for row in run.curve)


def test_the_method_keeps_it_in_its_facts_and_warns_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heads = ("Who was there", "There was a", "Explain which")
    data = TrainData(pairs=tuple(Pair(" dog", " cat", f"{h} {w}") for h in heads for w in ("in", "at", "of")))
    method = PCGU.build(learning_rate=1e-3, epochs=3, validation_fraction=0.0, gate=False)
    settle = Unlearning._settle

    def late(run: Unlearning) -> None:
        settle(run)
        if run._done == 1:
            run.module.get_parameter(run.parts.of(0).name).data.view(-1)[5] = math.nan

    monkeypatch.setattr(Unlearning, "_settle", late)
    for _ in range(2):
        with artefacts(tmp_path), pytest.warns(UserWarning, match=r"pcgu on .* diverged.*lower learning_rate"):
            made = method.apply(tiny_model(), data)
    facts = made.facts()
    assert facts["best_epoch"] == 1 and "epoch 2 at learning_rate=0.001" in facts["halted"]
    assert all(bool(p.isfinite().all()) for p in made.weights.module.parameters())


# ------------------------------------------------------------------------------------------------- task vectors


def vector(size: float, low_rank: bool = True) -> TaskVector:
    name = "model.layers.0.self_attn.q_proj.weight"
    have = tiny_module(41, "llama").get_parameter(name).shape
    up, down = torch.full((have[0], 1), size), torch.ones(1, have[1])
    return TaskVector({name: (LowRank(down, up, 1.0, False),) if low_rank else up @ down})


def test_a_strength_that_breaks_weights_is_refused() -> None:
    base = tiny_module(41, "llama")
    assert merged(base, vector(1e30))[0] is not None, "large, and finite"
    with pytest.raises(DivergedError, match=r"q_proj.*float32.*smaller strength"):
        merged(base, vector(math.inf, low_rank=False))
    with pytest.raises(DivergedError, match=r"q_proj.*float16.*smaller strength"):
        merged(base.half(), vector(1e6))
    with pytest.raises(DivergedError, match=r"q_proj.*smaller strength"):
        adapted(tiny_module(41, "llama"), vector(math.inf), named=False)


@pytest.mark.filterwarnings("ignore:.*logits are not finite")
def test_a_strength_that_breaks_weights_or_scores_is_never_chosen() -> None:
    base = tiny_model("llama")
    broken = tiny_model("llama")
    broken.weights.module.get_input_embeddings().weight.data[3:] = math.nan

    def make(strength: float) -> Any:
        if strength > 0.75:
            raise DivergedError("weights are not finite")
        return broken if strength > 0.5 else base

    strength, found = choose(make, (0.4, 0.6, 0.9), ["a dog", "There was a cat"], [], 0.5)
    assert strength == 0.4 and [t.perplexity for t in found[2:]] == [math.inf] * 2


# --------------------------------------------------------------------------------------------- trained through TRL


@pytest.mark.parametrize("frozen", [False, True])
def test_a_training_that_left_weights_that_are_not_finite_is_refused(frozen: bool, tmp_path: Path) -> None:
    """Losses do not tell: the Trainer of transformers logs finite ones in their place."""
    layer = torch.nn.Linear(2, 2)
    layer.weight.requires_grad_(not frozen)

    def train(resume_from_checkpoint: str | None) -> None:
        layer.weight.data[0, 0] = math.nan

    trainer = SimpleNamespace(
        model=layer,
        train=train,
        remove_callback=lambda callback: None,
        args=SimpleNamespace(output_dir=str(tmp_path), learning_rate=0.5),
    )
    if frozen:  # as it was before
        trl.run(trainer)
        return
    with pytest.raises(EvenhandError, match=r"weight is no longer finite; take a learning_rate below 0\.5"):
        trl.run(trainer)
