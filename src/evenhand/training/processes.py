"""What several processes that train one module together tell each other. One process alone tells nobody anything.

Each holds the whole module here; `evenhand.training.sharded_processes` spreads it over them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from evenhand.errors import SettingsError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

T = TypeVar("T")
BUCKET = 1 << 25
"""Numbers sent at once: enough that sending is not all waiting, few beside the gradients themselves."""
SHARDING = {"ACCELERATE_USE_DEEPSPEED": "DeepSpeed", "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM"}
"""Ways to spread a model over processes that trainings cannot use, by the variable that asks for them."""


def sharding_wanted() -> bool:
    """Whether `accelerate launch` was told to shard the model with FSDP2.

    accelerate itself ignores it on a CPU, where it takes DistributedDataParallel without a word.

    Raises:
        SettingsError: It was told to use FSDP1, DeepSpeed or Megatron-LM.
    """
    remedy = (
        "launch with --use_fsdp --fsdp_version 2, or with --multi_gpu where the model fits into each process (on CPUs "
        "with torchrun)"
    )
    for variable, name in SHARDING.items():
        if asked_for(variable):
            raise SettingsError(f"training cannot spread a model over processes with {name}: {remedy}")
    if not asked_for("ACCELERATE_USE_FSDP"):
        return False
    if os.environ.get("FSDP_VERSION", "1") != "2":
        raise SettingsError(f"training cannot spread a model over processes with FSDP1: {remedy}")
    return True


def launched_together() -> bool:
    """Whether several processes were launched together (accelerate launch, torchrun), or know each other already."""
    import torch.distributed as dist

    return dist.is_available() and (dist.is_initialized() or int(os.environ.get("WORLD_SIZE", "1")) > 1)


def introduced(cpu: Callable[[], bool]) -> int:
    """The number of processes that were launched together, which know each other from now on.

    Args:
        cpu: Whether they train on CPUs; asked where they do not know each other yet.
    """
    import torch.distributed as dist

    if not dist.is_initialized():
        from accelerate import PartialState

        PartialState(cpu=cpu())
    return dist.get_world_size()


def asked_for(variable: str) -> bool:
    """Whether a variable of `accelerate launch` is true in one of the ways that accelerate reads (`str_to_bool`)."""
    return os.environ.get(variable, "").lower() in ("y", "yes", "t", "true", "on", "1")


class Processes:
    """The processes of a training, each with the whole module."""

    keeps_weights = True
    """Whether this process keeps the best weights until the end."""

    def __init__(self, accelerator: Any) -> None:
        """Take what accelerate knows of them."""
        self._accelerator, self.device = accelerator, accelerator.device
        self.count, self.index = int(accelerator.num_processes), int(accelerator.process_index)
        self.main = bool(accelerator.is_main_process)

    def place(self, module: nn.Module) -> None:
        """Put a module where it belongs before the training."""
        module.to(self.device)

    def begin(self, parameters: Sequence[nn.Parameter], done: int, folder: Path | None) -> None:
        """Make sure that all begin alike: after as many epochs, with the first process's weights.

        Raises:
            SettingsError: They have found different checkpoints.
        """
        if self.count == 1:
            return
        import torch.distributed as dist

        every: list[Any] = [None] * self.count
        dist.all_gather_object(every, done)
        if len(set(every)) > 1:
            raise SettingsError(f"processes found different checkpoints in {folder}: all of them must see that folder")
        self.give(parameters)

    def give(self, parameters: Sequence[nn.Parameter]) -> None:
        """Give the first process's weights to all."""
        import torch
        import torch.distributed as dist

        with torch.no_grad():
            for p in parameters:
                sent = p.data.to(self.device)
                dist.broadcast(sent, src=0)
                p.copy_(sent)

    @contextmanager
    def prepared(self, module: nn.Module) -> Iterator[None]:
        """The module's products are cast inside the context."""
        self._accelerator.prepare_model(module, evaluation_mode=True)  # the casts, in place, and no wrapper
        try:
            yield
        finally:
            self._accelerator.unwrap_model(module, keep_fp32_wrapper=False)  # takes the casts off the forward

    def optimizer(self, adam: Optimizer) -> Any:
        """An optimizer that knows of scaled gradients."""
        return self._accelerator.prepare_optimizer(adam)

    def asked(self, function: Callable[[], T]) -> T:
        """What a function makes of the whole module without gradients; it must do alike on all processes."""
        return function()

    def learned(self, loss: Callable[[nn.Module, Any], Tensor], module: nn.Module, group: Sequence[Any]) -> float:
        """Gradients of the mean loss of a step's batches, as far as they are this process's, and the sum of its losses.

        Args:
            loss: Mean loss of a batch.
            module: Inside of `prepared`.
            group: The batches that all processes share.
        """
        own = 0.0
        for batch in group[self.index :: self.count]:
            value = loss(module, batch)
            number = float(value.detach())
            if math.isfinite(number):
                self._accelerator.backward(value / len(group))
            own += number
        return own

    def finish(self, module: nn.Module) -> None:
        """All have the best weights already."""

    def told(self, value: T) -> T:
        """What the first process has."""
        if self.count == 1:
            return value
        import torch.distributed as dist

        box: list[Any] = [value]
        dist.broadcast_object_list(box, src=0)
        told: T = box[0]
        return told

    def sum_of(self, value: float) -> float:
        """A number summed over processes."""
        if self.count == 1:
            return value
        import torch
        import torch.distributed as dist

        box = torch.tensor(value, dtype=torch.float32, device=self.device)
        dist.all_reduce(box)
        return float(box)

    def sum_gradients(self, module: nn.Module) -> None:
        """Give every process the sum of all gradients; a parameter that none has a gradient of has none afterwards."""
        if self.count == 1:
            return
        import torch
        import torch.distributed as dist

        every = [p for p in module.parameters() if p.requires_grad]
        has = torch.tensor([p.grad is not None for p in every], dtype=torch.int32, device=self.device)
        dist.all_reduce(has)
        used = [p for p, some in zip(every, has.tolist(), strict=True) if some]
        for bucket in _buckets(used):
            flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in bucket])
            dist.all_reduce(flat)
            for p, part in zip(bucket, torch.split(flat, [p.numel() for p in bucket]), strict=True):
                p.grad = part.view_as(p).clone()

    def clip(self, parameters: Iterable[nn.Parameter], norm: float) -> None:
        """Bound the norm of the gradients."""
        self._accelerator.clip_grad_norm_(parameters, norm)

    def wait(self) -> None:
        """Until all are here."""
        self._accelerator.wait_for_everyone()


def _buckets(parameters: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Neighbours of one type, about `BUCKET` numbers together."""
    bucket: list[nn.Parameter] = []
    for p in parameters:
        if bucket and (p.dtype != bucket[0].dtype or sum(q.numel() for q in bucket) + p.numel() > BUCKET):
            yield bucket
            bucket = []
        bucket.append(p)
    if bucket:
        yield bucket
