"""One of two processes that train small modules together; `test_distributed_training.py` starts it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

from evenhand.errors import EvenhandError
from evenhand.methods.unlearning._fine_tuning import Plan, fit, text_examples
from evenhand.models.tiny import tiny_model
from evenhand.training.loop import Schedule, Training
from evenhand.training.lora import Adapter

PLAN = Schedule(
    epochs=3, learning_rate=0.05, patience=0, device="cpu", gradient_accumulation_steps=2, max_grad_norm=0.5
)
X = torch.linspace(-1, 1, 26)[:, None]
Y = torch.sin(3 * X)
Rows = tuple[Tensor, Tensor]


class Net(nn.Module):
    """Has a parameter that is never used, one that only some batches use, and one that is not trained."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(1, 6), nn.Linear(6, 1)
        self.unused, self.seldom = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(1))
        self.fixed = nn.Parameter(torch.ones(1), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.two(torch.tanh(self.one(x))) * self.fixed
        return out + self.seldom if float(x[0]) > 0.9 else out


def net(seed: int = 0) -> Net:
    torch.manual_seed(seed)
    return Net()


def batches(epoch: int, random: Random) -> list[Rows]:
    """Five batches: with two a step, the last step has one, and so nothing for the second process."""
    rows = list(range(26))
    random.shuffle(rows)
    return [(X[rows[n : n + 6]], Y[rows[n : n + 6]]) for n in range(0, 26, 6)]


def loss(module: nn.Module, batch: Rows) -> Tensor:
    value: Tensor = ((module(batch[0]) - batch[1]) ** 2).mean()
    return value


def training(module: nn.Module, **changes: Any) -> Training[Rows]:
    given: dict[str, Any] = {
        "batches": batches,
        "loss": loss,
        "evaluate": lambda m: {"error": float(loss(m, (X, Y)))},
        "watched": "error",
        "schedule": PLAN,
        **changes,
    }
    return Training(module=module, **given)


def small() -> dict[str, Any]:
    module = net()
    done = training(module).run()
    return {"curve": done.curve, "weights": dict(module.state_dict())}


def language(fitted: str) -> dict[str, Any]:
    """A fine-tune whose loss calls the module several times a step, and its output embedding from outside."""
    model = tiny_model()
    module, tokenizer = model.weights.module, model.weights.tokenizer
    texts = [f"there was a little {a} and a big {b}" for a in ("dog", "cat", "tree") for b in ("dog", "cat", "day")]
    examples: Sequence[Any] = text_examples(texts, tokenizer, 32)
    examples = [*examples, *text_examples([f"once upon a time {t}" for t in texts[:5]], tokenizer, 32, kept=True)]
    schedule = replace(PLAN, epochs=2, learning_rate=1e-2 if fitted == "lora" else 1e-3)
    adapter = Adapter(2, 4)
    plan = Plan(fitted, adapter, 3, 64, 1.0, schedule)  # type: ignore[arg-type]
    made = fit(module, examples, examples[:3], plan, None, "fine-tuning")
    return {"norm": made.vector.norm(), "curve": list(made.training["curve"])}


def killed_and_resumed(folder: Path) -> dict[str, Any]:
    """Ended in its third epoch, and gone on with from weights that are not the first ones."""
    asked: list[int] = []

    def dying(epoch: int, random: Random) -> list[Rows]:
        if epoch == 2:
            raise KeyboardInterrupt
        return batches(epoch, random)

    def counted(epoch: int, random: Random) -> list[Rows]:
        asked.append(epoch)
        return batches(epoch, random)

    with suppress(KeyboardInterrupt):
        training(net(), folder=folder, batches=dying).run()
    module = net(7)
    done = training(module, folder=folder, batches=counted).run()
    return {"asked": asked, "curve": done.curve, "weights": dict(module.state_dict())}


def refusals(folder: Path, rank: int) -> list[str]:
    """What is said where one process has lost its numbers, and where each has a folder of its own."""
    said = []
    value = float("nan") if rank == 1 else 1.0
    own = folder / f"own{rank}"
    for changes in (
        {"loss": lambda m, b: loss(m, b) * value},
        {"folder": own, "schedule": replace(PLAN, epochs=1)},
        {"folder": own, "schedule": replace(PLAN, epochs=1)},
    ):
        try:
            training(net(), **changes).run()
            said.append("")
        except EvenhandError as error:
            said.append(str(error))
    return said


def other_weights(rank: int) -> dict[str, Any]:
    """Processes that begin with different weights."""
    module = net(rank)
    training(module).run()
    return {"weights": dict(module.state_dict())}


def work(rank: int, folder: Path) -> dict[str, Any]:
    return {
        "small": small(),
        "lora": language("lora"),
        "full": language("full"),
        "resumed": killed_and_resumed(folder / "checkpoints"),
        "refusals": refusals(folder, rank),
        "other": other_weights(rank),
    }


if __name__ == "__main__":
    import two_processes  # next to this file, which is run as a script

    two_processes.main(work, Path(sys.argv[1]), int(sys.argv[2]))
