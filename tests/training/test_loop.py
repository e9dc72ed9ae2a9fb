"""The training loop: what it learns, when it stops, what it keeps, and that a killed run ends as one that was not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import torch
from torch import Tensor, nn

from evenhand.errors import DivergedError, EvenhandError, SettingsError
from evenhand.training.loop import Schedule, Training

PLAN = Schedule(epochs=30, learning_rate=0.1, patience=0, device="cpu", weight_decay=0.0)
X = torch.linspace(-1, 1, 24)[:, None]
Y = 3 * X - 0.5
Batch = tuple[Tensor, Tensor]


def batches(epoch: int, random: Random) -> list[Batch]:
    rows = list(range(24))
    random.shuffle(rows)
    return [(X[rows[n : n + 5]], Y[rows[n : n + 5]]) for n in range(0, 24, 5)]


def loss(module: nn.Module, batch: Batch) -> Tensor:
    return ((module(batch[0]) - batch[1]) ** 2).mean()


def evaluate(module: nn.Module) -> dict[str, float]:
    assert not module.training and not torch.is_grad_enabled()
    return {"error": float(loss(module, (X, Y)))}


def line(seed: int = 0, dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(1, 1), nn.Dropout(dropout))


def training(module: nn.Module, **changes: object) -> Training[Batch]:
    given = {"batches": batches, "loss": loss, "evaluate": evaluate, "watched": "error", "schedule": PLAN, **changes}
    return Training(module=module, **given)  # type: ignore[arg-type]


def test_it_finds_the_line() -> None:
    module = line()
    done = training(module).run()
    weight, bias = (float(p.detach()) for p in module.parameters())
    assert weight == pytest.approx(3, abs=0.01) and bias == pytest.approx(-0.5, abs=0.01)
    assert [row["epoch"] for row in done.curve] == list(range(30)) and not module.training
    assert done.curve[-1]["train_loss"] < 1e-3 < done.curve[0]["train_loss"]


def test_the_last_weights_are_kept_where_that_is_asked_for_and_patience_still_ends_it() -> None:
    scripted, seen = iter([5.0, 2.0, 3.0, 4.0]), list[float]()

    def told(module: nn.Module) -> dict[str, float]:
        seen.append(float(next(module.parameters()).detach()))
        return {"error": next(scripted)}

    module = line()
    done = training(module, evaluate=told, keep_last=True, schedule=replace(PLAN, patience=2)).run()
    assert (len(done.curve), done.best) == (4, 3)
    assert float(next(module.parameters()).detach()) == seen[3] != seen[1]


@pytest.mark.parametrize(("norm", "moved"), [(0.0, 8.0), (1.0, 0.8), (100.0, 8.0)])
def test_gradients_are_scaled_down_to_the_norm_or_with_0_not_at_all(norm: float, moved: float) -> None:
    """The gradients of 6 w + 8 b have norm 10; what is seen of them before the step is that of b."""
    module, seen = nn.Linear(1, 1), list[float]()
    own = torch.optim.AdamW.step

    def watched(self: torch.optim.AdamW, *given: object, **more: object) -> object:
        seen.append(float(module.bias.grad))  # type: ignore[arg-type]
        return own(self, *given, **more)  # type: ignore[arg-type]

    def slope(network: nn.Module, _: Batch) -> Tensor:
        return 6 * module.weight.sum() + 8 * module.bias.sum()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", watched)
        training(module, loss=slope, evaluate=None, schedule=replace(PLAN, epochs=1, max_grad_norm=norm)).run()
    assert seen == pytest.approx([moved] * 5, rel=1e-5)


def test_the_best_weights_are_put_back_and_patience_ends_it() -> None:
    seen: list[float] = []
    scripted = [5.0, 2.0, 3.0, 4.0, 1.0]

    def script(module: nn.Module) -> dict[str, float]:
        seen.append(float(next(module.parameters()).detach()))
        return {"error": scripted[len(seen) - 1]}

    module = line()
    done = training(module, evaluate=script, schedule=replace(PLAN, patience=2)).run()
    assert done.best == 1 and len(done.curve) == 4, "two epochs without a better one"
    assert float(next(module.parameters()).detach()) == seen[1] != seen[3]


def test_the_rate_rises_and_falls_linearly() -> None:
    plan = Schedule(epochs=1, learning_rate=2.0, warmup_ratio=0.25)
    assert [plan.rate(x) for x in (0, 0.125, 0.25, 0.625, 1)] == pytest.approx([0, 1, 2, 1, 0])
    assert Schedule(epochs=1, learning_rate=2.0, warmup_ratio=0).rate(0) == 2


def test_accumulated_batches_are_one_step_of_their_mean() -> None:
    """Adam's first step is the rate times the sign, so a plain comparison needs more: the weights after an epoch."""
    one, other = line(), line()
    halves = [(X[:12], Y[:12]), (X[12:], Y[12:])]
    plan = replace(PLAN, epochs=3)
    training(one, batches=lambda epoch, random: [(X, Y)], schedule=plan).run()
    training(other, batches=lambda epoch, random: halves, schedule=replace(plan, gradient_accumulation_steps=2)).run()
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_same_seed_same_weights_and_another_seed_others() -> None:
    made = []
    for seed in (0, 0, 1):
        module = line(dropout=0.3)
        torch.manual_seed(len(made))  # the state outside does not matter
        training(module, schedule=replace(PLAN, epochs=3, seed=seed)).run()
        made.append([float(p.detach()) for p in module.parameters()])
    assert made[0] == made[1] != made[2]


def test_the_state_of_the_random_numbers_outside_is_left_alone() -> None:
    module = line()
    torch.manual_seed(7)
    before = torch.get_rng_state()
    training(module, schedule=replace(PLAN, epochs=1)).run()
    assert torch.equal(torch.get_rng_state(), before)


class Killed(Exception):
    """Stands for a killed process."""


@pytest.mark.parametrize("at", [1, 7, 13])
def test_a_killed_training_goes_on_and_ends_the_same(tmp_path: Path, at: int) -> None:
    plan = replace(PLAN, epochs=4, patience=0)
    whole = line(dropout=0.3)
    expected = training(whole, schedule=plan).run()

    left = [at]

    def dying(module: nn.Module, batch: Batch) -> Tensor:
        if left[0] == 0:
            raise Killed
        left[0] -= 1
        return loss(module, batch)

    with pytest.raises(Killed):
        training(line(dropout=0.3), schedule=plan, folder=tmp_path, loss=dying).run()
    asked: list[int] = []

    def counting(epoch: int, random: Random) -> Sequence[Batch]:
        asked.append(epoch)
        return batches(epoch, random)

    module = line(dropout=0.3)
    done = training(module, schedule=plan, folder=tmp_path, batches=counting).run()
    assert asked == list(range(at // 5, 4)), "finished epochs are not repeated"
    assert done == expected
    assert [float(p.detach()) for p in module.parameters()] == [float(p.detach()) for p in whole.parameters()]


def test_a_finished_training_is_not_run_again(tmp_path: Path) -> None:
    plan = replace(PLAN, epochs=2)
    one, other = line(), line(5)
    first = training(one, schedule=plan, folder=tmp_path).run()
    again = training(other, schedule=plan, folder=tmp_path, batches=lambda *_: pytest.fail("asked again")).run()
    assert again == first and [float(p.detach()) for p in one.parameters()] == [
        float(p.detach()) for p in other.parameters()
    ]
    assert len(list(tmp_path.glob("checkpoint-*"))) == 1
    assert not list(tmp_path.rglob("*.pkl")) and {p.suffix for p in tmp_path.rglob("*.*")} >= {".safetensors", ".json"}


def test_checkpoints_of_other_settings_are_refused(tmp_path: Path) -> None:
    training(line(), schedule=replace(PLAN, epochs=1), folder=tmp_path).run()
    with pytest.raises(SettingsError, match="belongs to another training"):
        training(line(), schedule=replace(PLAN, epochs=2), folder=tmp_path).run()


def test_frozen_parameters_stay_and_are_not_stored(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    module = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    module[0].requires_grad_(False)
    before = [float(p.detach()) for p in module[0].parameters()]
    training(module, schedule=replace(PLAN, epochs=1), folder=tmp_path).run()
    assert [float(p.detach()) for p in module[0].parameters()] == before
    assert set(load_file(next(tmp_path.rglob("best.safetensors")))) == {"1.weight", "1.bias"}


def test_what_is_no_number_any_more_ends_it_with_a_reason() -> None:
    with pytest.raises(EvenhandError, match=r"loss became nan in epoch 0.*lower learning_rate"):
        training(line(), loss=lambda module, batch: loss(module, batch) * float("nan")).run()
    with pytest.raises(EvenhandError, match="error of epoch 0 is inf"):
        training(line(), evaluate=lambda module: {"error": float("inf")}).run()
    with pytest.raises(EvenhandError, match="no batches"):
        training(line(), batches=lambda epoch, random: []).run()


@pytest.mark.parametrize(
    "wrong", [{"epochs": 0}, {"learning_rate": 0.0}, {"warmup_ratio": 1.0}, {"gradient_accumulation_steps": 0}]
)
def test_schedules_that_no_training_can_follow_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match="must be"):
        replace(PLAN, **wrong)


def test_without_an_evaluation_all_epochs_are_trained_and_the_last_is_kept() -> None:
    module, other = line(), line()
    plan = replace(PLAN, epochs=4, patience=1)
    done = training(module, evaluate=None, schedule=plan).run()
    assert done.best == 3 and [sorted(row) for row in done.curve] == [["epoch", "train_loss"]] * 4
    training(other, schedule=replace(plan, patience=0)).run()
    for a, b in zip(module.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b), "an evaluation changes nothing about the steps"


def test_without_an_evaluation_a_killed_training_goes_on(tmp_path: Path) -> None:
    whole, module = line(dropout=0.3), line(dropout=0.3)
    plan = replace(PLAN, epochs=4)
    training(whole, evaluate=None, schedule=plan).run()
    left = [7]

    def dying(module: nn.Module, batch: Batch) -> Tensor:
        if left[0] == 0:
            raise Killed
        left[0] -= 1
        return loss(module, batch)

    with pytest.raises(Killed):
        training(line(dropout=0.3), evaluate=None, schedule=plan, folder=tmp_path, loss=dying).run()
    training(module, evaluate=None, schedule=plan, folder=tmp_path).run()
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), whole.parameters(), strict=True))


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("at", [0, 5, 9])
def test_a_loss_that_breaks_at_a_step_names_the_last_good_checkpoint_which_is_continued_from(
    tmp_path: Path, value: float, at: int
) -> None:
    steps = 0

    def breaking(module: nn.Module, batch: Batch) -> Tensor:
        nonlocal steps
        steps += 1
        return loss(module, batch) * (value if steps == at + 1 else 1.0)

    plan = replace(PLAN, epochs=4, learning_rate=0.01, patience=0)
    epoch = at // 5
    kept = rf"\. The last good checkpoint is .*checkpoint-0000{epoch}, after {epoch} epochs$" if epoch else r"float32$"
    said = rf"loss became {value} in epoch {epoch}; take a lower learning_rate than 0\.01, or precision=no.*{kept}"
    with pytest.raises(DivergedError, match=said):
        training(line(), loss=breaking, schedule=plan, folder=tmp_path).run()
    module, whole = line(), line()
    expected = training(whole, schedule=plan).run()
    assert training(module, schedule=plan, folder=tmp_path).run() == expected
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), whole.parameters(), strict=True))


def test_weights_that_are_not_finite_become_no_checkpoint(tmp_path: Path) -> None:
    """Those that the last step of an epoch breaks, where no evaluation tells."""
    module, epochs = line(), 0

    def counted(epoch: int, random: Random) -> list[Batch]:
        nonlocal epochs
        epochs = epoch
        return batches(epoch, random)

    def breaking(network: nn.Module, batch: Batch) -> Tensor:
        value = loss(network, batch)
        if epochs == 1:
            next(network.parameters()).register_hook(lambda grad: grad * math.nan)
        return value

    plan = replace(PLAN, epochs=3, max_grad_norm=0.0, gradient_accumulation_steps=99)
    with pytest.raises(DivergedError, match=r"weights are not finite after epoch 1; .*checkpoint-00001, after 1 epoch"):
        training(module, loss=breaking, batches=counted, schedule=plan, folder=tmp_path, evaluate=None).run()
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-00001"]
