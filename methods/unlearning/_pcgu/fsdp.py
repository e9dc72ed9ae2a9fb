"""Where a model's parameters are: all here, or their first dimension spread over ranks by FSDP2 (`fully_shard`).

Sharding the first dimension leaves every row whole on one rank. So products of rows are computed locally, only
vectors that span ranks are summed, and for the others one number each is sent.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from evenhand.errors import SettingsError
from evenhand.methods.unlearning._pcgu.partition import Part, Partition
from evenhand.training.dtensor_support import Rows, rows_here
from evenhand.training.processes import asked_for, introduced, launched_together

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


class World:
    """The ranks that share a model; without a mesh, only this process."""

    def __init__(self, module: nn.Module, mesh: DeviceMesh | None = None) -> None:
        """Find out where the parameters are.

        Args:
            module: Module sharded over the mesh, or whole.
            mesh: One dimension of ranks.

        Raises:
            SettingsError: Vectors would be spread over ranks in an unknown way.
        """
        refuse_layout(module)
        self.mesh = mesh
        self.size = mesh.size() if mesh is not None else 1
        self.rank = mesh.get_local_rank() if mesh is not None else 0
        self.device = next(module.parameters()).device
        self._rows = {name: rows_here(p) for name, p in module.named_parameters()}
        self._everywhere: list[dict[str, Rows]] = [self._rows]
        if mesh is not None:
            import torch.distributed as dist

            gathered: list[Any] = [None] * self.size
            dist.all_gather_object(gathered, self._rows, group=mesh.get_group())
            self._everywhere = gathered

    @property
    def main(self) -> bool:
        """Whether this rank writes what all have computed."""
        return self.rank == 0

    def rows(self, part: Part) -> Rows:
        """Return which rows of a parameter are here."""
        return self._rows[part.name]

    def total(self, statistics: Sequence[Tensor]) -> list[Tensor]:
        """Sum [3, n] tensors over ranks, in one message for all."""
        if self.mesh is None or not statistics:
            return list(statistics)
        import torch.distributed as dist

        flat = torch.cat([s.flatten() for s in statistics])
        dist.all_reduce(flat, group=self.mesh.get_group())
        return [s.view(3, -1) for s in torch.split(flat, [s.numel() for s in statistics])]

    def joined(self, parts: Partition, here: Sequence[Tensor]) -> Tensor:
        """Return [m] numbers of all vectors, in order, from those known here.

        Args:
            parts: The partition.
            here: For each part [n]: all of its vectors if they span ranks, else those of this rank's rows.
        """
        if self.mesh is None:
            return torch.cat(list(here))
        import torch.distributed as dist

        counts = [sum(self._count(p, rank) for p in parts if not p.across) for rank in range(self.size)]
        own = [s for p, s in zip(parts, here, strict=True) if not p.across]
        padded = torch.zeros(max(counts), device=self.device)  # ranks have different numbers of rows
        if own:
            padded[: counts[self.rank]] = torch.cat(own)
        gathered = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(gathered, padded, group=self.mesh.get_group())
        out = torch.empty(parts.size, device=self.device)
        taken = [0] * self.size
        for p, s in zip(parts, here, strict=True):
            if p.across:
                out[p.first : p.first + p.count] = s
                continue
            for rank in range(self.size):
                n, start = self._count(p, rank), p.first + self._everywhere[rank][p.name][0] * _per_row(p)
                out[start : start + n] = gathered[rank][taken[rank] : taken[rank] + n]
                taken[rank] += n
        return out

    def sum_of(self, value: float) -> float:
        """Sum a number over ranks."""
        if self.mesh is None:
            return value
        import torch.distributed as dist

        box = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.all_reduce(box, group=self.mesh.get_group())
        return float(box)

    def wait(self) -> None:
        """Wait until all ranks are here."""
        if self.mesh is not None:
            import torch.distributed as dist

            dist.barrier(group=self.mesh.get_group())

    def _count(self, part: Part, rank: int) -> int:
        first, last = self._everywhere[rank][part.name]
        return (last - first) * _per_row(part)


def _per_row(part: Part) -> int:
    """Return the number of vectors per index of the first dimension: 1, or more in stacked matrices."""
    return part.count // part.shape[0]


def local(tensor: Tensor) -> Tensor:
    """Return the local shard, or the tensor itself if it is whole; a view that may be written to."""
    from torch.distributed.tensor import DTensor

    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """Return the whole tensor on the CPU; all ranks have to call this together."""
    from torch.distributed.tensor import DTensor

    tensor = tensor.detach()
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).cpu()


# ------------------------------------------------------------------------------------------------- layouts


def refuse_layout(module: nn.Module) -> None:
    """Refuse a module whose rows are cut into pieces that cannot be reassembled by row.

    Raises:
        SettingsError: FSDP1 or DeepSpeed ZeRO-3 flat buffers, a wrapper, a dimension other than the first, or a
            quantised weight; the message says what to do.
    """
    from torch.distributed.fsdp import FullyShardedDataParallel
    from torch.distributed.tensor import DTensor, Shard
    from torch.nn.parallel import DistributedDataParallel

    remedy = "shard it with FSDP2 (`fully_shard`, accelerate's fsdp_version: 2), which keeps every row on one rank"
    if any(isinstance(m, FullyShardedDataParallel) for m in module.modules()):
        raise SettingsError(f"the model is sharded by FSDP1, whose flat buffers cut rows between ranks; {remedy}")
    for name, p in module.named_parameters():
        if hasattr(p, "ds_id"):
            raise SettingsError(f"the model is sharded by DeepSpeed ZeRO-3, whose flat buffers cut rows; {remedy}")
        if not (p.is_floating_point() or p.is_complex()):
            raise SettingsError(f"{name} is quantised ({p.dtype}); load the model without quantisation")
        if isinstance(p, DTensor) and list(p.placements) != [Shard(0)]:
            raise SettingsError(f"{name} is laid out as {p.placements}, not by its first dimension alone; {remedy}")
    if isinstance(module, DistributedDataParallel):
        raise SettingsError("pass the module inside DistributedDataParallel; it is sharded here")


def refuse_launch() -> None:
    """Refuse `accelerate launch` options that would cut rows.

    Raises:
        SettingsError: The launch uses DeepSpeed, or FSDP of version 1.
    """
    if asked_for("ACCELERATE_USE_DEEPSPEED"):
        raise SettingsError(
            "pcgu cannot run under DeepSpeed (flat buffers cut rows); launch with --use_fsdp "
            "--fsdp_version 2, or --multi_gpu"
        )
    if asked_for("ACCELERATE_USE_FSDP") and os.environ.get("FSDP_VERSION", "1") != "2":
        raise SettingsError("pcgu cannot run under FSDP1 (flat buffers cut rows); launch with --fsdp_version 2")


def launched() -> DeviceMesh | None:
    """Return the mesh of all processes if several were launched (accelerate launch, torchrun), else None.

    Raises:
        SettingsError: They were launched for a layout that cuts rows.
    """
    import torch.distributed as dist

    if not launched_together():
        return None
    refuse_launch()
    if introduced(lambda: not torch.cuda.is_available()) < 2:
        return None
    from torch.distributed.device_mesh import init_device_mesh

    kind = "cuda" if "nccl" in str(dist.get_backend()) else "cpu"
    return init_device_mesh(kind, (dist.get_world_size(),))


def shard(module: nn.Module, mesh: DeviceMesh, *, half: bool = False) -> None:
    """Shard a module in place: every layer of its longest list of layers, and the rest (tied weights) as one.

    Args:
        module: Module, whole and equal on every rank; its parameters become the masters in float32.
        mesh: One dimension of ranks.
        half: Whether products are computed in bfloat16; gradients are summed in float32.
    """
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    module.float()
    policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if half else None, reduce_dtype=torch.float32 if half else None
    )
    for layer in _layers(module):
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(module, mesh=mesh, mp_policy=policy)


def _layers(module: nn.Module) -> list[nn.Module]:
    lists = [m for m in module.modules() if isinstance(m, nn.ModuleList)]
    return list(max(lists, key=lambda m: len(list(m)))) if lists else []


def gradients(module: nn.Module) -> dict[str, Tensor]:
    """Take this rank's shards of the gradients by name off the parameters, which have none afterwards."""
    taken = {}
    for name, p in module.named_parameters():
        if p.grad is not None:
            taken[name] = local(p.grad)
            p.grad = None
    return taken
