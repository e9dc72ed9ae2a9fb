"""The training loop that every method shares: a module, its batches of an epoch, a batch's loss, and an evaluation.

accelerate places the module, casts, and knows the processes; the rest is here: AdamW, linear warm-up and decay, clipped
gradients, an evaluation after each epoch, the best weights kept, and a checkpoint of every epoch.

Several processes (`accelerate launch --multi_gpu`, or torchrun) share the batches of each step, and every one holds the
whole module. Gradients are summed here and not by DistributedDataParallel, since losses call a module several times a
step and use its weights (the output embedding's) outside of its forward pass, which a wrapper does not see.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from evenhand.core.artifacts import resolved_precision
from evenhand.core.progress import track
from evenhand.errors import EvenhandError, SettingsError
from evenhand.training.checkpoints import Checkpoints, put, weights_of
from evenhand.training.processes import Processes, refuse_sharding

if TYPE_CHECKING:
    from torch import Tensor, nn

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long and how fast."""

    epochs: int
    learning_rate: float
    """The highest; reached after the warm-up, zero at the end."""
    warm_up: float = 0.1
    """Share of all steps in which the rate rises."""
    weight_decay: float = 0.01
    clip: float = 1.0
    """Largest norm of a step's gradient."""
    accumulate: int = 1
    """Batches a step, of all processes together and at least one each; the last step of an epoch may have fewer."""
    patience: int = 3
    """Epochs without a better evaluation after which training ends; 0 never ends early."""
    seed: int = 0
    device: str | None = None
    """None takes the GPU where there is one."""
    precision: str = "auto"
    """Of the products: no, bf16, fp16, or auto: bf16 on GPUs that have it."""

    def __post_init__(self) -> None:
        """Refuse what no training can follow."""
        if min(self.epochs, self.accumulate) < 1 or self.learning_rate <= 0 or not 0 <= self.warm_up < 1:
            raise SettingsError(f"{self}: epochs and accumulate must be >= 1, learning_rate > 0, warm_up in [0, 1)")

    def rate(self, progress: float) -> float:
        """The learning rate when that share of the training is done."""
        rising = progress / self.warm_up if self.warm_up else 1.0
        return self.learning_rate * min(rising, (1 - progress) / (1 - self.warm_up))


class Trained(NamedTuple):
    """How a training went. The module holds the weights of the best epoch."""

    curve: list[dict[str, float]]
    """Per epoch `epoch` (from 0), `train_loss` and what the evaluation gave."""
    best: int
    """The epoch whose weights were kept."""


@dataclass(kw_only=True)
class Training(Generic[T]):
    """Everything that a training is made of."""

    module: nn.Module
    """Trained in place; parameters that need no gradient stay as they are and are not stored."""
    batches: Callable[[int, Random], Sequence[T]]
    """The batches of an epoch, from its number and a generator seeded with it."""
    loss: Callable[[nn.Module, T], Tensor]
    """Mean loss of a batch; tensors are the loss's to move to the module's device."""
    evaluate: Callable[[nn.Module], Mapping[str, float]]
    """Numbers by name, after each epoch, gradients and dropout off."""
    watched: str
    """The number whose smallest value says which epoch was best."""
    schedule: Schedule
    folder: Path | None = None
    """Where checkpoints go, and where a training that was killed goes on from; None keeps none."""
    label: str = "training"

    def run(self) -> Trained:
        """Train, and leave the best weights in the module.

        Raises:
            EvenhandError: The loss or the watched number is no longer finite, or an epoch has no batches.
            SettingsError: Several processes were launched in a way that cannot be used, or a checkpoint is of another
                training.
        """
        import torch

        accelerator = _accelerator(self.schedule)
        processes = Processes(accelerator)
        wanted = [p for p in self.module.parameters() if p.requires_grad]
        adam = torch.optim.AdamW(wanted, lr=0.0, weight_decay=self.schedule.weight_decay)
        self.module.to(accelerator.device)
        store = Checkpoints(self.folder, asdict(self.schedule))
        curve, best = store.resume(self.module, adam)
        processes.begin(wanted, len(curve), self.folder)
        module = accelerator.prepare_model(self.module, evaluation_mode=True)  # the casts, and no wrapper
        optimizer = accelerator.prepare_optimizer(adam)
        devices = range(torch.cuda.device_count())
        with torch.random.fork_rng(devices=devices), track(self.schedule.epochs, self.label) as step:
            step(len(curve))
            while not self._finished(curve):
                epoch = len(curve)
                # so that a resumed run draws alike, and processes differ
                torch.manual_seed(self.schedule.seed * 1_000_003 + epoch + (processes.index << 40))
                train_loss = self._epoch(processes, module, optimizer, epoch)
                row = {"epoch": float(epoch), "train_loss": train_loss, **self._evaluated()}
                row = processes.told(row)  # all must agree on which epoch is best
                if not math.isfinite(row[self.watched]):
                    raise EvenhandError(f"{self.label}: {self.watched} of epoch {epoch} is {row[self.watched]}")
                curve.append(row)
                if self._best(curve) == epoch:
                    best = weights_of(self.module)
                if processes.main:
                    store.keep(curve, self.module, best, adam)
                processes.wait()
                step(1)
        accelerator.unwrap_model(module, keep_fp32_wrapper=False)  # takes the casts off the module's forward
        put(self.module, best)
        self.module.eval()
        return Trained(curve, self._best(curve))

    def _epoch(self, processes: Processes, module: Any, optimizer: Any, epoch: int) -> float:
        plan, total, losses = self.schedule, self.schedule.epochs, 0.0
        batches = list(self.batches(epoch, Random(f"{plan.seed}/{epoch}")))
        if not batches:
            raise EvenhandError(f"{self.label}: epoch {epoch} has no batches")
        size = max(plan.accumulate, processes.count)
        module.train()
        for start in range(0, len(batches), size):
            group = batches[start : start + size]
            for parameters in optimizer.param_groups:
                parameters["lr"] = plan.rate((epoch + (start + len(group) / 2) / len(batches)) / total)
            own = 0.0
            for batch in group[processes.index :: processes.count]:
                own += self._backward(processes, module, batch, len(group))
            losses += self._summed(processes, own, epoch)
            processes.clip(module.parameters(), plan.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return losses / len(batches)

    def _backward(self, processes: Processes, module: Any, batch: T, parts: int) -> float:
        loss = self.loss(module, batch)
        value = float(loss.detach())
        if math.isfinite(value):
            processes.backward(loss / parts)
        return value

    def _summed(self, processes: Processes, own: float, epoch: int) -> float:
        """The summed loss of a step, whose gradients are summed too; one that is no number ends all processes."""
        value = processes.sum_of(own)
        if not math.isfinite(value):
            raise EvenhandError(f"{self.label}: the loss became {value} in epoch {epoch}; take a lower learning_rate")
        processes.sum_gradients(p for p in self.module.parameters() if p.requires_grad)
        return value

    def _evaluated(self) -> Mapping[str, float]:
        import torch

        self.module.eval()
        with torch.no_grad():
            return self.evaluate(self.module)

    def _best(self, curve: Sequence[Mapping[str, float]]) -> int:
        return min(range(len(curve)), key=lambda n: curve[n][self.watched])

    def _finished(self, curve: Sequence[Mapping[str, float]]) -> bool:
        if len(curve) >= self.schedule.epochs:
            return True
        patience = self.schedule.patience
        return bool(curve) and 0 < patience <= len(curve) - 1 - self._best(curve)


def _accelerator(schedule: Schedule) -> Any:
    """One for the schedule's device and precision."""
    import torch
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    refuse_sharding()
    device = schedule.device or ("cuda" if torch.cuda.is_available() else "")
    precision = resolved_precision(schedule.precision, device)
    if device.startswith("cuda:"):
        torch.cuda.set_device(device)
    try:
        accelerator = Accelerator(cpu=device == "cpu", mixed_precision=precision)
        fits = accelerator.device.type == device.partition(":")[0] or not device
    except ValueError:
        fits = False
    if not fits:
        # accelerate keeps what a process asked for first; another device or precision needs another state
        AcceleratorState._reset_state(reset_partial_state=True)
        accelerator = Accelerator(cpu=device == "cpu", mixed_precision=precision)
    if accelerator.num_processes > 1 and device.startswith("cuda:") and str(accelerator.device) != device:
        raise SettingsError(
            f"process {accelerator.process_index} of {accelerator.num_processes} has its model on {device}: every "
            f"process needs a GPU of its own, so load it there with device={accelerator.device}"
        )
    return accelerator
