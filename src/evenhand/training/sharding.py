"""Sharding of a module's weights, gradients and optimizer states over processes by FSDP2, for a training.

The decoder blocks are sharded one by one, all else (embeddings, final norm, output embedding) together with the step of
the loss (`evenhand.training.loss_step`). Copies of the blocks are sharded in their place, since FSDP2 cannot undo it:
afterwards the module has its own blocks and parameters again, as they were before.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from evenhand.training.loss_step import LossStep

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


class Blocks(NamedTuple):
    """The blocks of a module, and where they are."""

    stack: nn.Module
    """The module that runs all of them."""
    prefix: str
    """Prefix of the names of the list's parameters, such as "model.layers."."""
    list: nn.ModuleList


class Sharded(NamedTuple):
    """A sharded module."""

    step: Any
    """The root: a `LossStep` with the methods of `torch.distributed.fsdp.FSDPModule`."""
    blocks: Blocks | None
    """Blocks that are sharded one by one; None if the module has no list of blocks."""


def blocks_of(module: nn.Module) -> Blocks | None:
    """Return the list of modules with the most parameters: the decoder blocks, or the layers of an encoder."""
    lists = {name: m for name, m in module.named_modules() if isinstance(m, nn.ModuleList)}
    if not lists:
        return None
    path = max(lists, key=lambda name: sum(p.numel() for p in lists[name].parameters()))
    stack = module.get_submodule(path.rpartition(".")[0])
    return Blocks(stack, f"{path}.", lists[path])


@contextmanager
def sharded(module: nn.Module, mesh: DeviceMesh, *, half: bool = False) -> Iterator[Sharded]:
    """Shard a module inside the context.

    Args:
        module: The same on every process; its own parameters keep their values and their device.
        mesh: Processes in one dimension.
        half: Whether products are computed in bfloat16; gradients are summed in float32.
    """
    # FSDP2 moves its parameters to the device, so it gets others that share their values with the module's own
    given = {id(p): nn.Parameter(p.detach(), requires_grad=p.requires_grad) for p in module.parameters()}
    blocks = blocks_of(module)
    own = list(blocks.list) if blocks else []
    inside = {m for block in own for m in block.modules()}
    places = [
        (owner, name, p)
        for owner in module.modules()
        if owner not in inside
        for name, p in owner.named_parameters(recurse=False)
    ]
    memo: dict[int, Any] = {**_shared(own), **given}
    twins = [copy.deepcopy(block, memo) for block in own]
    try:
        _fill(blocks, twins)
        for owner, name, p in places:
            setattr(owner, name, given[id(p)])
        del given, memo  # what FSDP2 moves to the device is freed when it is sharded, one block at a time
        yield Sharded(_sharded_by_torch(module, twins, mesh, half), blocks)
    finally:
        _fill(blocks, own)
        for owner, name, p in places:
            setattr(owner, name, p)


def _shared(blocks: Sequence[nn.Module]) -> dict[int, Any]:
    """Return what copies share with their blocks, by `id`: buffers, and configurations, which may change later."""
    from transformers import PreTrainedConfig

    modules = [m for block in blocks for m in block.modules()]
    common: list[Any] = [b for m in modules for b in m.buffers(recurse=False)]
    common += [value for m in modules for value in vars(m).values() if isinstance(value, PreTrainedConfig)]
    return {id(value): value for value in common}


def _fill(blocks: Blocks | None, modules: Sequence[nn.Module]) -> None:
    if blocks is not None:
        for n, module in enumerate(modules):
            blocks.list[n] = module


def _sharded_by_torch(module: nn.Module, blocks: Sequence[nn.Module], mesh: DeviceMesh, half: bool) -> Any:
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

    casts: dict[str, Any] = {"param_dtype": torch.bfloat16, "reduce_dtype": torch.float32} if half else {}
    for block in dict.fromkeys(blocks):  # some models use one block several times
        fully_shard(block, mesh=mesh, mp_policy=MixedPrecisionPolicy(**casts))
    policy = MixedPrecisionPolicy(**casts, cast_forward_inputs=False)  # a loss computes in float32
    step: Any = fully_shard(LossStep(module), mesh=mesh, mp_policy=policy, reshard_after_forward=False)
    if "set_reduce_scatter_unused_params" in vars(FSDPModule):  # without it all batches must use the same parameters
        step.set_reduce_scatter_unused_params(True)
    return step
