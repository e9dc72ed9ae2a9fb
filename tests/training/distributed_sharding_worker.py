"""One of two processes that train tiny language models, whole or sharded; `test_distributed_sharding.py` starts it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.functional import cross_entropy

from evenhand.errors import EvenhandError
from evenhand.models.tiny import tiny_module
from evenhand.training.accelerate_support import processes
from evenhand.training.divergences import kl
from evenhand.training.dtensor_support import whole
from evenhand.training.hidden import final_hidden
from evenhand.training.loop import Schedule, Training
from evenhand.training.lora import Adapter, adapted, lora_config
from evenhand.training.losses import chunked_cross_entropy

WORDS = 24
PLAN = Schedule(epochs=2, learning_rate=3e-3, patience=0, device="cpu", weight_decay=0.1, max_grad_norm=0.1)


class Case(NamedTuple):
    """What is trained, and how."""

    model: str
    fitted: str
    accumulation: int

    @property
    def name(self) -> str:
        return f"{self.model}-{self.fitted}-{self.accumulation}"


CASES = [
    Case("llama", "full", 3),
    Case("llama", "lora", 3),
    Case("gpt2", "full", 1),
    Case("gpt2", "lora", 1),
    Case("bert", "full", 3),
    Case("bert", "lora", 1),
    Case("mixed", "full", 2),
]


class Mixed(nn.Module):
    """Has a parameter that no batch uses, one that only some use, and one that is not trained; no list of blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(WORDS, 6), nn.Linear(6, WORDS)
        self.unused, self.seldom = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(1))
        self.fixed = nn.Parameter(torch.ones(1), requires_grad=False)

    def forward(self, ids: Tensor) -> Tensor:
        out: Tensor = self.two(torch.tanh(self.one(nn.functional.one_hot(ids, WORDS).to(self.fixed)))) * self.fixed
        return out + self.seldom * out if int(ids[0, 0]) % 5 == 0 else out


def bert() -> nn.Module:
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 24,
    }
    return BertForMaskedLM(BertConfig(vocab_size=WORDS, max_position_embeddings=16, **sizes))


def model(case: Case, *, seed: int = 0, double: bool = True) -> Any:
    """Dropout is off; in float64, where the order of sums does not show."""
    if case.model == "mixed":
        torch.manual_seed(seed)
        made: Any = Mixed()
    else:
        made = bert() if case.model == "bert" else tiny_module(WORDS, case.model, scale=2.0)
    for m in made.modules():
        if isinstance(m, nn.Dropout):
            m.p = 0.0
    if case.fitted == "lora":
        made = adapted(made, lora_config(made, Adapter(2, 4)), 0)
    return made.double() if double else made


def batches(epoch: int, random: Random) -> list[Tensor]:
    """Seven batches: of three a step, or two, the last one has a single one, and nothing for the second process."""
    return [torch.tensor([[random.randrange(WORDS) for _ in range(7)] for _ in range(3)]) for _ in range(7)]


def loss(module: Any, ids: Tensor) -> Tensor:
    """Calls the model once, or three times, and its output embedding from outside of its forward pass."""
    if isinstance(module, Mixed):
        return cross_entropy(module(ids).flatten(0, 1), ids.roll(1, 1).flatten())
    head = module.get_output_embeddings()
    if module.config.model_type == "bert":
        plain: Tensor = module(input_ids=ids, labels=ids.roll(1, 1)).loss
        return plain + 0.01 * head.weight.square().sum()
    value = of_text(module, head, ids)
    if int(ids[0, 0]) % 2:
        return value
    with torch.no_grad():
        before = final_hidden(module, input_ids=ids.flip(1))
    after = final_hidden(module, input_ids=ids.flip(0))
    apart = kl(head(before).log_softmax(-1), head(after).log_softmax(-1)).mean()
    return value + 0.1 * apart


def of_text(module: Any, head: nn.Module, ids: Tensor) -> Tensor:
    hidden = final_hidden(module, input_ids=ids)[:, :-1].flatten(0, 1)
    return chunked_cross_entropy(hidden, head, ids[:, 1:].flatten(), chunk=5)


def training(module: Any, accumulation: int, **changes: Any) -> Training[Tensor]:
    held = batches(99, Random(99))[0]

    def evaluate(m: Any) -> Mapping[str, float]:
        return {"error": float(loss(m, held))}

    given: dict[str, Any] = {
        "batches": batches,
        "loss": loss,
        "evaluate": evaluate,
        "watched": "error",
        "schedule": replace(PLAN, gradient_accumulation_steps=accumulation),
        **changes,
    }
    return Training(module=module, **given)


def trained(case: Case, *, seed: int = 0, double: bool = True, **changes: Any) -> dict[str, Any]:
    module = model(case, seed=seed, double=double)
    kinds = [type(m) for m in module.modules()]
    done = training(module, case.accumulation, **changes).run()
    assert kinds == [type(m) for m in module.modules()], "nothing of the sharding is left"
    assert all(type(p) is nn.Parameter for p in module.parameters())
    return {"curve": done.curve, "weights": {n: p.detach().clone() for n, p in module.named_parameters()}}


class Killed(Exception):
    """Stands for a killed process."""


def stopped(case: Case, folder: Path) -> None:
    """Ends in its second epoch."""

    def dying(epoch: int, random: Random) -> Sequence[Tensor]:
        if epoch == 1:
            raise Killed
        return batches(epoch, random)

    with suppress(Killed):
        trained(case, folder=folder, batches=dying)


def refused(case: Case) -> str:
    """What is said where one process has lost its numbers."""
    rank = int(os.environ["RANK"])
    try:
        trained(case, loss=lambda m, b: loss(m, b) * (float("nan") if rank else 1.0))
    except EvenhandError as error:
        return str(error)
    return ""


def gradients() -> dict[str, Tensor]:
    """Of one step of three batches, before they are clipped: AdamW would not show how long they are."""
    module, ranks = model(Case("llama", "full", 3)), processes("cpu", "no")
    ranks.place(module)
    with ranks.prepared(module):
        ranks.learned(loss, module, batches(0, Random(0))[:3])
        ranks.sum_gradients(module)
        return {name: whole(p.grad) for name, p in module.named_parameters() if p.grad is not None}


def clipped_norm() -> list[float]:
    """A gradient of 3, 4 and 12, which has the norm 13, clipped to half of that while it lies on two processes."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (2,))
    rows = torch.tensor([[3.0], [4.0], [12.0]])
    p = nn.Parameter(distribute_tensor(torch.zeros(3, 1), mesh, [Shard(0)]))
    p.grad = distribute_tensor(rows, mesh, [Shard(0)])
    processes("cpu", "no").clip([p], 6.5)
    assert isinstance(p.grad, DTensor)
    clipped: list[float] = p.grad.full_tensor().flatten().tolist()
    return clipped


def seen_in_a_loss() -> dict[str, Any]:
    """How the weights of a model lie while a loss is computed, and how often the loss calls its decoder."""
    found: dict[str, Any] = {"runs": 0}
    module = model(Case("llama", "full", 2))

    def count(*_: Any) -> None:
        found["runs"] += 1

    def looking(m: Any, ids: Tensor) -> Tensor:
        block, head = m.model.layers[0].mlp.up_proj.weight, m.get_output_embeddings().weight
        shard = block.to_local() if isinstance(block, DTensor) else block
        found.update(block=shard.numel() / block.numel(), head=(type(head) is nn.Parameter, tuple(head.shape)))
        handle = m.model.register_forward_hook(count)
        try:
            for _ in range(1 + int(os.environ["RANK"])):  # the second process calls it twice
                value = of_text(m, m.get_output_embeddings(), ids)
        finally:
            handle.remove()
        return value

    training(module, 2, loss=looking, evaluate=None, schedule=replace(PLAN, epochs=1)).run()
    return found


def sharded_alone() -> dict[str, Any]:
    """What only a sharded training can show."""
    full = Case("llama", "full", 2)
    return {
        "other": trained(Case("mixed", "full", 2), seed=int(os.environ["RANK"])),
        "half": trained(full, schedule=replace(PLAN, precision="bf16"), double=False),
        "clipped": clipped_norm(),
        "seen": seen_in_a_loss(),
        "fp16": said_of_half(full),
    }


def said_of_half(case: Case) -> str:
    try:
        trained(case, schedule=replace(PLAN, precision="fp16"))
    except EvenhandError as error:
        return str(error)
    return ""


def both(folder: Path, layout: str, cases: Sequence[Case]) -> dict[str, Any]:
    """What a training must do in each layout."""
    full, lora = Case("llama", "full", 2), Case("llama", "lora", 2)
    found: dict[str, Any] = {case.name: trained(case) for case in cases}
    found["float32"] = trained(lora, double=False)
    found["gradients"] = gradients()
    found["resumed"] = trained(full, folder=folder / f"{layout}-one")
    stopped(full, folder / layout)
    found["refused"] = refused(lora)
    plan = replace(PLAN, gradient_accumulation_steps=2, gradient_checkpointing=True)
    found["checkpointed"] = trained(full, schedule=plan)
    return found


def work(_: int, folder: Path) -> dict[str, Any]:
    found = {"whole": both(folder, "whole", CASES[:2] + CASES[4:5])}
    os.environ["ACCELERATE_USE_FSDP"] = "true"
    found["sharded"] = both(folder, "sharded", CASES) | sharded_alone()
    return found


if __name__ == "__main__":
    import two_processes  # next to this file, which is run as a script

    two_processes.main(work, Path(sys.argv[1]), int(sys.argv[2]), FSDP_VERSION="2")
