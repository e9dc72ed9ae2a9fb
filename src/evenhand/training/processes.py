"""Communication between processes that train one module together; a single process communicates nothing.

Each has the whole module here; `evenhand.training.sharded_processes` shards it over them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from evenhand.core.one_process import is_by_itself, launched
from evenhand.errors import SettingsError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from evenhand.inference.team import Team

T = TypeVar("T")
BUCKET = 1 << 25
"""Numbers sent at once: enough that latency is small, few compared with the gradients themselves."""
SHARDING = {"ACCELERATE_USE_DEEPSPEED": "DeepSpeed", "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM"}
"""Ways to shard a model that trainings do not support, by the variable that requests them."""


def sharding_wanted() -> bool:
    """Whether `accelerate launch` was asked to shard the model with FSDP2.

    accelerate itself ignores that on a CPU, where it uses DistributedDataParallel without a warning.

    Raises:
        SettingsError: It was asked to use FSDP1, DeepSpeed or Megatron-LM.
    """
    remedy = (
        "launch with --use_fsdp --fsdp_version 2, or with --multi_gpu if the model fits into each process (on CPUs "
        "with torchrun)"
    )
    for variable, name in SHARDING.items():
        if asked_for(variable):
            raise SettingsError(f"training cannot shard a model with {name}: {remedy}")
    if not asked_for("ACCELERATE_USE_FSDP"):
        return False
    if os.environ.get("FSDP_VERSION", "1") != "2":
        raise SettingsError(f"training cannot shard a model with FSDP1: {remedy}")
    return True


def launched_together() -> bool:
    """Whether several processes were launched together (accelerate launch, torchrun), or are connected already."""
    import torch.distributed as dist

    return dist.is_available() and (dist.is_initialized() or int(os.environ.get("WORLD_SIZE", "1")) > 1)


def introduced(cpu: Callable[[], bool]) -> int:
    """Connect the processes that were launched together, and return their number.

    Args:
        cpu: Whether they train on CPUs; called only if they are not connected yet.
    """
    import torch.distributed as dist

    if not dist.is_initialized():
        from accelerate import PartialState

        PartialState(cpu=cpu())
    return dist.get_world_size()


@contextmanager
def asking_together(device: str | None = None) -> Iterator[Team | None]:
    """Have the processes of a launch answer together for each model that is asked inside; all must enter the context.

    Nothing changes if one process was launched, or if they ask together already. Sharding concerns training alone: to
    answer, each process has the whole model.

    Args:
        device: Device of the models, such as "cpu"; None is the GPU if there is one.

    Raises:
        SettingsError: They were launched in a way that cannot be used.
        RunError: They do not do the same.
    """
    from evenhand.inference.process_store_support import several_processes  # inference imports torch
    from evenhand.inference.team import active, asking_as, new_team

    if active() is not None or is_by_itself() or not (several_processes() or launched()):
        yield active()
        return
    import torch

    sharding_wanted()  # raises if the launch cannot be used
    introduced(lambda: device == "cpu" or not torch.cuda.is_available())
    with asking_as(new_team()) as team:
        yield team


def asked_for(variable: str) -> bool:
    """Whether a variable of `accelerate launch` is true in one of the ways that accelerate reads (`str_to_bool`)."""
    return os.environ.get(variable, "").lower() in ("y", "yes", "t", "true", "on", "1")


class Processes:
    """The processes of a training, each with the whole module."""

    keeps_weights = True
    """Whether this process stores the best weights until the end."""

    def __init__(self, accelerator: Any) -> None:
        """Read device, number and rank of the processes from accelerate."""
        self._accelerator, self.device = accelerator, accelerator.device
        self.count, self.index = int(accelerator.num_processes), int(accelerator.process_index)
        self.main = bool(accelerator.is_main_process)

    def place(self, module: nn.Module) -> None:
        """Move a module to the training device."""
        module.to(self.device)

    def begin(self, parameters: Sequence[nn.Parameter], done: int, folder: Path | None) -> None:
        """Check that all start from the same epoch, and give them the first process's weights.

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
        """Copy the first process's weights to all."""
        import torch
        import torch.distributed as dist

        with torch.no_grad():
            for p in parameters:
                sent = p.data.to(self.device)
                dist.broadcast(sent, src=0)
                p.copy_(sent)

    @contextmanager
    def prepared(self, module: nn.Module) -> Iterator[None]:
        """Apply mixed precision to the module inside the context."""
        self._accelerator.prepare_model(module, evaluation_mode=True)  # adds the casts in place, without a wrapper
        try:
            yield
        finally:
            self._accelerator.unwrap_model(module, keep_fp32_wrapper=False)  # removes the casts

    def optimizer(self, adam: Optimizer) -> Any:
        """Return an optimizer that handles scaled gradients."""
        return self._accelerator.prepare_optimizer(adam)

    def asked(self, function: Callable[[], T]) -> T:
        """Call a function that uses the whole module without gradients; it must do the same on all processes."""
        return function()

    def learned(self, loss: Callable[[nn.Module, Any], Tensor], module: nn.Module, group: Sequence[Any]) -> float:
        """Compute this process's part of the gradients of a step's mean loss, and return the sum of its losses.

        Args:
            loss: Mean loss of a batch.
            module: The module, inside `prepared`.
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
        """Do nothing, as all have the best weights already."""

    def told(self, value: T) -> T:
        """Return what the first process has."""
        if self.count == 1:
            return value
        import torch.distributed as dist

        box: list[Any] = [value]
        dist.broadcast_object_list(box, src=0)
        told: T = box[0]
        return told

    def sum_of(self, value: float) -> float:
        """Sum a number over processes."""
        if self.count == 1:
            return value
        import torch
        import torch.distributed as dist

        box = torch.tensor(value, dtype=torch.float32, device=self.device)
        dist.all_reduce(box)
        return float(box)

    def sum_gradients(self, module: nn.Module) -> None:
        """Give every process the sum of all gradients; a parameter without a gradient on all of them stays without."""
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
        """Clip the gradients to a maximum norm, in place."""
        self._accelerator.clip_grad_norm_(parameters, norm)

    def wait(self) -> None:
        """Wait until all processes have arrived here."""
        self._accelerator.wait_for_everyone()


def _buckets(parameters: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Group neighbouring parameters of one data type, with at most `BUCKET` numbers unless one alone has more."""
    bucket: list[nn.Parameter] = []
    for p in parameters:
        if bucket and (p.dtype != bucket[0].dtype or sum(q.numel() for q in bucket) + p.numel() > BUCKET):
            yield bucket
            bucket = []
        bucket.append(p)
    if bucket:
        yield bucket
