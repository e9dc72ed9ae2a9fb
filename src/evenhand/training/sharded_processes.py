"""Processes that share one module, sharded by FSDP2, and the batches of each step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from evenhand.errors import SettingsError
from evenhand.training.loss_step import Calls
from evenhand.training.processes import Processes
from evenhand.training.sharding import Blocks, sharded

if TYPE_CHECKING:
    from torch.optim import Optimizer

T = TypeVar("T")


class ShardedProcesses(Processes):
    """The processes of a training whose module is sharded over them.

    A step has the same batches, and so the same result, as with the whole module in each process. A process without a
    batch of its own in the last step of an epoch takes another one's with weight 0.
    """

    def __init__(self, state: Any, precision: str) -> None:
        """Use the processes that were launched.

        Args:
            state: accelerate's `PartialState`.
            precision: no or bf16.

        Raises:
            SettingsError: The precision is fp16, whose gradients have to be scaled.
        """
        if precision == "fp16":
            raise SettingsError("precision=fp16 cannot be sharded by FSDP2: take precision=bf16 or no")
        super().__init__(state)
        self.keeps_weights = self.main  # and gives them to all at the end
        self._half = precision == "bf16"
        self._home = torch.device("cpu")
        self._root: Any = None
        self._calls: Calls | None = None
        self._watched: set[str] = set()
        self._used: set[str] = set()
        self._defer = False

    def place(self, module: nn.Module) -> None:
        """Move the whole module to main memory; only this process's shard goes to its device."""
        self._home = next(module.parameters()).device
        module.to("cpu")

    @contextmanager
    def prepared(self, module: nn.Module) -> Iterator[None]:
        """Shard the module inside the context; afterwards it is whole again."""
        from torch.distributed.device_mesh import init_device_mesh

        mesh = init_device_mesh(self.device.type, (self.count,))
        trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
        # gradients that wait to be summed are whole on every process: worth it if they are small, as for an adapter
        self._defer = trained * self.count <= sum(p.numel() for p in module.parameters())
        with sharded(module, mesh, half=self._half) as (self._root, blocks):
            if blocks is not None:
                self._watch_blocks(blocks)
                self._calls = Calls(blocks.stack, self._highest)
            try:
                yield
            finally:
                if self._calls is not None:
                    self._calls.remove()
                self._root = self._calls = None
        module.to("cpu")  # FSDP2 has moved the buffers

    def optimizer(self, adam: Optimizer) -> Any:
        """Return the optimizer unchanged."""
        return adam

    def asked(self, function: Callable[[], T]) -> T:
        """Call a function that uses the whole module without gradients; it must do the same on all processes."""
        with torch.no_grad():
            made: T = self._root(lambda _: function())
        self._root.reshard()
        return made

    def learned(self, loss: Callable[[nn.Module, Any], Tensor], module: nn.Module, group: Sequence[Any]) -> float:
        """Compute the gradients of a step's mean loss, and return the summed loss of this process's own batches."""
        own, rounds = 0.0, math.ceil(len(group) / self.count)
        for n in range(rounds):
            at = n * self.count + self.index
            batch, weight = group[at % len(group)], float(at < len(group))
            self._root.set_requires_gradient_sync(n == rounds - 1 or not self._defer)
            value = self._root(partial(self._aligned, partial(_of_batch, loss, batch)))
            own += float(value.detach()) if weight else 0.0
            (value * (weight * self.count / len(group))).backward()  # FSDP2 divides by the number of processes
        return own

    def sum_gradients(self, module: nn.Module) -> None:
        """Remove the gradients of parameters that no process has used; FSDP2 has summed the others already."""
        trained = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        flags = torch.tensor([name in self._used for name, _ in trained], dtype=torch.int32, device=self.device)
        dist.all_reduce(flags)
        for (_, p), used in zip(trained, flags.tolist(), strict=True):
            if not used:
                p.grad = None
        self._used.clear()

    def clip(self, parameters: Iterable[nn.Parameter], norm: float) -> None:
        """Clip the gradients to a maximum norm over all shards, in place."""
        torch.nn.utils.clip_grad_norm_(parameters, norm)

    def finish(self, module: nn.Module) -> None:
        """Copy the first process's weights to all, and move the whole module to where it was before the training."""
        self.give([p for p in module.parameters() if p.requires_grad])
        module.to(self._home)

    def _aligned(self, loss: Callable[[nn.Module], Tensor], module: nn.Module) -> Tensor:
        """Compute the loss of a batch, in the forward pass of the root."""
        self._watch("", module)
        return loss(module) if self._calls is None else self._calls.aligned(loss, module)

    def _highest(self, value: int) -> int:
        box = torch.tensor(value, dtype=torch.int32, device=self.device)
        dist.all_reduce(box, op=dist.ReduceOp.MAX)
        return int(box)

    def _watch_blocks(self, blocks: Blocks) -> None:
        """Note which parameters of each block get gradients, from its first call on."""
        for n, block in enumerate(blocks.list):
            prefix = f"{blocks.prefix}{n}."
            block.register_forward_pre_hook(lambda m, _, prefix=prefix: self._watch(prefix, m))

    def _watch(self, prefix: str, module: nn.Module) -> None:
        """Note which parameters get gradients, among those that are gathered now and not watched yet.

        In a call with the adapter switched off (`disable_adapter` of PEFT) none needs one; they are watched later.
        """
        if not torch.is_grad_enabled():
            return
        for name, p in module.named_parameters():
            if p.requires_grad and not isinstance(p, DTensor) and prefix + name not in self._watched:
                self._watched.add(prefix + name)
                note = partial(_note, self._used, prefix + name)
                p.register_post_accumulate_grad_hook(note)  # type: ignore[no-untyped-call]


def _of_batch(loss: Callable[[nn.Module, Any], Tensor], batch: Any, module: nn.Module) -> Tensor:
    return loss(module, batch)


def _note(used: set[str], name: str, _: Tensor) -> None:
    used.add(name)
