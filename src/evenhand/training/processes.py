"""What several processes that train one module together tell each other. One process alone tells nobody anything."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from evenhand.errors import SettingsError

if TYPE_CHECKING:
    from torch import Tensor, nn

T = TypeVar("T")
BUCKET = 1 << 25
"""Numbers sent at once: enough that sending is not all waiting, few beside the gradients themselves."""
SHARDING = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
}


def refuse_sharding() -> None:
    """Refuse what `accelerate launch` was told where it would take the module apart.

    accelerate itself ignores it on a CPU, where it takes DistributedDataParallel without a word.

    Raises:
        SettingsError: FSDP (1 or 2), DeepSpeed or Megatron-LM.
    """
    for variable, name in SHARDING.items():
        if os.environ.get(variable, "").lower() == "true":
            raise SettingsError(
                "training needs the whole model in every process, as losses use its weights outside of the forward "
                f"pass; {name} takes it apart: launch with --multi_gpu (on CPUs with torchrun) instead, and train an "
                "adapter where memory is short"
            )


class Processes:
    """The processes of a training."""

    def __init__(self, accelerator: Any) -> None:
        """Take what accelerate knows of them."""
        self._accelerator = accelerator
        self.count, self.index = int(accelerator.num_processes), int(accelerator.process_index)
        self.main = bool(accelerator.is_main_process)

    def begin(self, parameters: Sequence[nn.Parameter], done: int, folder: Path | None) -> None:
        """Make sure that all begin alike: after as many epochs, with the first process's weights.

        Raises:
            SettingsError: They have found different checkpoints.
        """
        if self.count == 1:
            return
        import torch
        import torch.distributed as dist

        every: list[Any] = [None] * self.count
        dist.all_gather_object(every, done)
        if len(set(every)) > 1:
            raise SettingsError(f"processes found different checkpoints in {folder}: all of them must see that folder")
        with torch.no_grad():
            for p in parameters:
                dist.broadcast(p.data, src=0)

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

        box = torch.tensor(value, dtype=torch.float32, device=self._accelerator.device)
        dist.all_reduce(box)
        return float(box)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Give every process the sum of all gradients; a parameter that none has a gradient of has none afterwards."""
        if self.count == 1:
            return
        import torch
        import torch.distributed as dist

        every = list(parameters)
        has = torch.tensor([p.grad is not None for p in every], dtype=torch.int32, device=self._accelerator.device)
        dist.all_reduce(has)
        used = [p for p, some in zip(every, has.tolist(), strict=True) if some]
        for bucket in _buckets(used):
            flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in bucket])
            dist.all_reduce(flat)
            for p, part in zip(bucket, torch.split(flat, [p.numel() for p in bucket]), strict=True):
                p.grad = part.view_as(p).clone()

    def backward(self, loss: Tensor) -> None:
        """Gradients of a loss, scaled where the precision needs that."""
        self._accelerator.backward(loss)

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
