"""The training loop that every method shares: a module, its batches of an epoch, a batch's loss, and an evaluation.

accelerate places the module, applies mixed precision and manages the processes; the rest is here: AdamW, linear warm-up
and decay, clipped gradients, an evaluation after each epoch, the best weights kept, and a checkpoint of every epoch.

Several processes share the batches of each step. Under `accelerate launch --multi_gpu`, or torchrun, each has the whole
module, and gradients are summed here rather than by DistributedDataParallel, whose wrapper does not notice that a loss
calls a module several times per step. Under `--use_fsdp --fsdp_version 2` the module is sharded over them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, Protocol, TypeVar

from evenhand.core.progress import track
from evenhand.errors import DivergedError, EvenhandError, SettingsError
from evenhand.renaming import old_fields
from evenhand.training import accelerate_support
from evenhand.training.checkpoints import Checkpoints, Weights, put, state_of, weights_of
from evenhand.training.gradient_checkpointing import checkpointed
from evenhand.training.grouping import GroupBy
from evenhand.training.optimizer import adamw, constant_rate, linear_rate, set_learning_rate
from evenhand.training.processes import Processes

if TYPE_CHECKING:
    from torch import Tensor, nn

T = TypeVar("T")
LearningRateDecay = Literal["linear", "none"]


_FIRST_NAMES = {"warmup_ratio": "warm_up", "gradient_accumulation_steps": "accumulate", "max_grad_norm": "clip"}
"""Earlier names of settings, which checkpoints keep so that a training begun by an earlier version is resumed."""


class StepSettings(Protocol):
    """Settings shared by all methods that train in this loop."""

    @property
    def epochs(self) -> int:
        """Maximum number of passes over the data."""

    @property
    def warmup_ratio(self) -> float:
        """Fraction of all steps during which the learning rate rises."""

    @property
    def gradient_accumulation_steps(self) -> int:
        """Batches per optimizer step."""

    @property
    def weight_decay(self) -> float:
        """Weight decay of AdamW."""

    @property
    def max_grad_norm(self) -> float:
        """Maximum norm of the gradient of a step."""

    @property
    def patience(self) -> int:
        """Epochs without a better evaluation after which training ends."""

    @property
    def seed(self) -> int:
        """Seed of everything that is drawn."""


@old_fields(warm_up="warmup_ratio", accumulate="gradient_accumulation_steps", clip="max_grad_norm")
@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Length, learning rate and other settings of a training."""

    epochs: int
    learning_rate: float
    """Peak learning rate, reached after the warm-up; it falls to 0 at the end unless `learning_rate_decay` is none."""
    warmup_ratio: float = 0.1
    """Fraction of all steps during which the learning rate rises."""
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    """Maximum norm of a step's gradient; larger ones are scaled down to it. 0 turns this off."""
    gradient_accumulation_steps: int = 1
    """Batches per step over all processes, at least one for each of them; the last step of an epoch may have fewer."""
    patience: int = 3
    """Epochs without a better evaluation after which training ends; 0 never ends early."""
    seed: int = 0
    device: str | None = None
    """Device to train on; None uses the GPU if there is one."""
    precision: str = "auto"
    """Precision of matrix products: no, bf16, fp16, or auto, which is bf16 on GPUs that have it."""
    learning_rate_decay: LearningRateDecay = "linear"
    """Whether the learning rate falls to 0 after the warm-up, or stays."""
    gradient_checkpointing: bool = False
    """Whether activations are recomputed in the backward pass instead of being stored: less memory, about a third more
    time, and the same result."""
    group_by: GroupBy = "none"
    """Which examples a method puts into one batch (`evenhand.training.grouping`): any, in random order, or with
    "prefix" those whose texts begin alike. Shared prefixes are then fed less often; it changes the order of the
    examples, and with it the result."""

    def __post_init__(self) -> None:
        """Refuse values that no training can use."""
        counts = self.epochs, self.gradient_accumulation_steps
        if min(counts) < 1 or self.learning_rate <= 0 or not 0 <= self.warmup_ratio < 1:
            raise SettingsError(
                f"{self}: epochs and gradient_accumulation_steps must be >= 1, learning_rate > 0, warmup_ratio in "
                "[0, 1)"
            )

    @classmethod
    def of(cls, method: StepSettings, *, learning_rate: float, device: str | None, precision: str = "auto") -> Schedule:
        """Make a schedule from the settings of a method.

        Args:
            method: Has settings of the same names.
            learning_rate: Peak learning rate.
            device: See the field.
            precision: See the field.
        """
        return cls(
            epochs=method.epochs,
            learning_rate=learning_rate,
            warmup_ratio=method.warmup_ratio,
            gradient_accumulation_steps=method.gradient_accumulation_steps,
            weight_decay=method.weight_decay,
            max_grad_norm=method.max_grad_norm,
            patience=method.patience,
            seed=method.seed,
            device=device,
            precision=precision,
        )

    def for_checkpoints(self) -> dict[str, Any]:
        """Return the values that can change the result, by name, to recognise checkpoints of another training."""
        values = asdict(self)
        del values["gradient_checkpointing"]
        if self.learning_rate_decay == "linear":  # the only decay before this setting existed
            del values["learning_rate_decay"]
        if self.group_by == "none":
            del values["group_by"]
        return {_FIRST_NAMES.get(name, name): value for name, value in values.items()}

    def rate(self, progress: float) -> float:
        """Return the learning rate after a fraction of the training."""
        if self.learning_rate_decay == "none":
            return constant_rate(progress, self.learning_rate, self.warmup_ratio)
        return linear_rate(progress, self.learning_rate, self.warmup_ratio)


class Trained(NamedTuple):
    """Outcome of a training; the module has the weights of the epoch `best`."""

    curve: list[dict[str, float]]
    """A row per epoch: `epoch` (from 0), `train_loss` and the numbers of the evaluation."""
    best: int
    """The epoch whose weights were kept."""


@dataclass(kw_only=True)
class Training(Generic[T]):
    """A training: its module, batches, loss, evaluation, schedule and folder."""

    module: nn.Module
    """What is trained, in place; parameters that need no gradient stay as they are and are not stored."""
    batches: Callable[[int, Random], Sequence[T]]
    """Returns the batches of an epoch, given its number and a generator that is seeded for it."""
    loss: Callable[[nn.Module, T], Tensor]
    """Returns the mean loss of a batch; it has to move tensors to the module's device itself."""
    evaluate: Callable[[nn.Module], Mapping[str, float]] | None = None
    """Returns numbers by name after each epoch, with gradients and dropout off. None, for trainings that hold nothing
    out, evaluates nothing: all epochs are trained, and the weights of the last one are kept."""
    watched: str = ""
    """Name of the number that is smallest in the best epoch; "" keeps the last epoch."""
    keep_last: bool = False
    """Whether the weights of the last epoch are kept even if another was better; the training may still end early."""
    stop: Callable[[Sequence[Mapping[str, float]]], bool] | None = None
    """Asked before each epoch but the first, with the curve so far, whether the training has reached its goal. If it
    is resumed, it asks with the curve of its checkpoint. None trains until `epochs` or `patience` end it."""
    schedule: Schedule
    folder: Path | None = None
    """Folder of the checkpoints, from which a training that was killed resumes; None keeps none."""
    label: str = "training"

    def run(self) -> Trained:
        """Train, and leave the best weights in the module.

        Raises:
            DivergedError: The loss, the watched number or a trained weight is no longer finite; the message names the
                last good checkpoint.
            EvenhandError: An epoch has no batches.
            SettingsError: Several processes were launched in a way that cannot be used, or a checkpoint is of another
                training.
        """
        import torch

        ranks = accelerate_support.processes(self.schedule.device, self.schedule.precision)
        ranks.place(self.module)
        store = Checkpoints(self.folder, self.schedule.for_checkpoints())
        curve, best = store.resume(self.module)
        ranks.begin(self._parameters(), len(curve), self.folder)
        devices = range(torch.cuda.device_count())
        with torch.random.fork_rng(devices=devices), ranks.prepared(self.module):
            try:
                best = self._trained(ranks, store, curve, best)
            except DivergedError as error:
                raise DivergedError(f"{error}{store.last_good()}") from error
        put(self.module, best)
        ranks.finish(self.module)
        self.module.eval()
        return Trained(curve, self._kept(curve))

    def _trained(self, ranks: Processes, store: Checkpoints, curve: list[dict[str, float]], best: Weights) -> Weights:
        """Train the remaining epochs, append to the curve, and return the weights of the best epoch."""
        adam = adamw(self._parameters(), weight_decay=self.schedule.weight_decay)
        store.resume_optimizer(adam)
        optimizer = ranks.optimizer(adam)
        with track(self.schedule.epochs, self.label) as step:
            step(len(curve))
            while not self._finished(curve):
                curve.append(self._row(ranks, optimizer, len(curve)))
                better = self._kept(curve) == len(curve) - 1
                if better or self.folder is not None:
                    now = weights_of(self.module, keep=ranks.keeps_weights)
                    self._refuse_broken(ranks, now, len(curve) - 1)
                best = now if better else best
                if self.folder is not None:
                    state = state_of(adam, keep=ranks.main)
                    if ranks.main:
                        store.keep(curve, now, best, state)
                ranks.wait()
                step(1)
        return best

    def _row(self, ranks: Processes, optimizer: Any, epoch: int) -> dict[str, float]:
        """Train an epoch, evaluate, and return its row of the curve."""
        import torch

        # a resumed run draws the same numbers again, and each process its own
        torch.manual_seed(self.schedule.seed * 1_000_003 + epoch + (ranks.index << 40))
        train_loss = self._epoch(ranks, optimizer, epoch)
        row = {"epoch": float(epoch), "train_loss": train_loss, **ranks.asked(self._evaluated)}
        row = ranks.told(row)  # all must agree on which epoch is best
        if self.evaluate is not None and self.watched and not math.isfinite(row[self.watched]):
            raise DivergedError(f"{self.label}: {self.watched} of epoch {epoch} is {row[self.watched]}; {self._remedy}")
        return row

    def _epoch(self, ranks: Processes, optimizer: Any, epoch: int) -> float:
        plan, total, losses = self.schedule, self.schedule.epochs, 0.0
        batches = ranks.asked(lambda: list(self.batches(epoch, Random(f"{plan.seed}/{epoch}"))))
        if not batches:
            raise EvenhandError(f"{self.label}: epoch {epoch} has no batches")
        size = max(plan.gradient_accumulation_steps, ranks.count)
        self.module.train()
        name = f"batches of epoch {epoch + 1}"
        with checkpointed(self.module, plan.gradient_checkpointing), track(len(batches), name, lines_only=True) as step:
            for start in range(0, len(batches), size):
                group = batches[start : start + size]
                set_learning_rate(optimizer, plan.rate((epoch + (start + len(group) / 2) / len(batches)) / total))
                losses += self._summed(ranks, ranks.learned(self.loss, self.module, group), epoch)
                if plan.max_grad_norm:
                    ranks.clip(self._parameters(), plan.max_grad_norm)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                step(len(group))
        return losses / len(batches)

    def _parameters(self) -> list[nn.Parameter]:
        """Return the trained parameters in their present layout, whole or sharded."""
        return [p for p in self.module.parameters() if p.requires_grad]

    def _summed(self, ranks: Processes, own: float, epoch: int) -> float:
        """Sum the loss and the gradients of a step over processes; a loss that is not finite ends all of them."""
        value = ranks.sum_of(own)
        if not math.isfinite(value):
            raise DivergedError(f"{self.label}: the loss became {value} in epoch {epoch}; {self._remedy}")
        ranks.sum_gradients(self.module)
        return value

    def _refuse_broken(self, ranks: Processes, now: Weights, epoch: int) -> None:
        """Refuse weights that are not finite before they are kept; the last step has changed them after its loss."""
        broken = sum(not bool(tensor.isfinite().all()) for tensor in now.values())
        if ranks.sum_of(float(broken)):
            raise DivergedError(f"{self.label}: weights are not finite after epoch {epoch}; {self._remedy}")

    @property
    def _remedy(self) -> str:
        lower = f"take a lower learning_rate than {self.schedule.learning_rate:g}"
        return lower if self.schedule.precision == "no" else f"{lower}, or precision=no, which computes in float32"

    def _evaluated(self) -> Mapping[str, float]:
        import torch

        self.module.eval()
        if self.evaluate is None:
            return {}
        with torch.no_grad():
            return self.evaluate(self.module)

    def _kept(self, curve: Sequence[Mapping[str, float]]) -> int:
        """Return the epoch whose weights are kept."""
        return len(curve) - 1 if self.keep_last else self._best(curve)

    def _best(self, curve: Sequence[Mapping[str, float]]) -> int:
        if self.evaluate is None or not self.watched:
            return len(curve) - 1
        return min(range(len(curve)), key=lambda n: curve[n][self.watched])

    def _finished(self, curve: Sequence[Mapping[str, float]]) -> bool:
        if len(curve) >= self.schedule.epochs or (curve and self.stop is not None and self.stop(curve)):
            return True
        patience = self.schedule.patience
        return bool(curve) and 0 < patience <= len(curve) - 1 - self._best(curve)
