"""Additions to transformers' Trainer: it ends when a loss is not finite, and its checkpoints have checksums.

The Trainer replaces a loss that is not finite by the mean of those before it (`logging_nan_inf_filter`) and trains to
the end. It writes a checkpoint file by file under its final name, so that one of a killed process may be incomplete.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from evenhand.core.artifacts import kept_nowhere
from evenhand.core.checksums import LIST
from evenhand.core.progress import Step, track
from evenhand.errors import DivergedError, RunError, reason
from evenhand.training.checkpoint_folders import CheckpointFolders, seal, set_aside

STATE = "trainer_state.json"
"""The file that the Trainer writes last."""


@contextmanager
def watched(trainer: Any) -> Iterator[None]:
    """Have a trainer end when its loss or weights are not finite, seal its checkpoints and report progress.

    Raises:
        DivergedError: Raised by the trainer inside the context; the message names the last good checkpoint.
        RunError: Likewise, if the disk is full.
    """
    step: Callable[..., Any] = trainer.training_step

    def checked(*arguments: Any, **named: Any) -> Any:
        loss = step(*arguments, **named)
        if not math.isfinite(value := float(loss)):
            raise DivergedError(
                f"the loss became {value} in step {trainer.state.global_step}; {_remedy(trainer)}{_last_good(trainer)}"
            )
        return loss

    trainer.training_step = checked
    with ExitStack() as shown:
        trainer.add_callback(_callback(trainer, shown))
        yield


def last_checkpoint(folder: Path) -> Path | None:
    """Return the last complete checkpoint; later ones are moved aside."""
    folders = CheckpointFolders(folder)
    while (last := folders.last()) is not None:
        if (last / LIST).is_file() or (last / STATE).is_file():  # earlier versions wrote no checksums
            return last
        set_aside(last, f"{STATE} is missing")
    return None


def refuse_broken_weights(trainer: Any) -> None:
    """Refuse a trained weight that is not finite.

    Raises:
        DivergedError: There is one.
    """
    trained = ((name, p) for name, p in trainer.model.named_parameters() if p.requires_grad)
    if broken := next((name for name, p in trained if not bool(p.isfinite().all())), ""):
        raise DivergedError(f"training diverged: {broken} is no longer finite; {_remedy(trainer)}{_last_good(trainer)}")


def _remedy(trainer: Any) -> str:
    return f"take a learning_rate below {trainer.args.learning_rate:g}"


def _last_good(trainer: Any) -> str:
    folder = Path(trainer.args.output_dir)
    last = None if kept_nowhere(folder) else last_checkpoint(folder)
    return "" if last is None else f". The last good checkpoint is {last}"


def _callback(trainer: Any, shown: ExitStack) -> Any:
    from transformers import TrainerCallback

    class Watching(TrainerCallback):
        """Checks the weights before each checkpoint, and seals it afterwards."""

        def __init__(self) -> None:
            self.step: Step = lambda done: None

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.step = shown.enter_context(track(state.max_steps, "steps of training", lines_only=True))
            self.step(state.global_step)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.step(1)

        def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            refuse_broken_weights(trainer)

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            place = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            try:
                seal(place)
            except OSError as error:
                raise RunError(f"cannot write the checkpoint {place} ({reason(error)}); free some space") from error

    return Watching()
