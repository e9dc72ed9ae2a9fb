"""What methods that train through TRL share: whether it is there, its seeds, rows in tokens, going on after a kill."""

from __future__ import annotations

import importlib
import importlib.util
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from evenhand.errors import EvenhandError


def unsupported_reason(method: str) -> str:
    """Why a method cannot train, or "" when TRL is there."""
    if importlib.util.find_spec("trl") is None:
        return f"{method} trains with TRL: pip install 'evenhand[trl]'"
    return ""


def library() -> Any:
    """TRL itself, which is typed in part only."""
    return importlib.import_module("trl")


@contextmanager
def own_generators() -> Iterator[None]:
    """Trainers seed the process's generators; what was drawn from before goes on as if they had not."""
    import numpy as np
    import torch

    python, arrays = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(arrays)


def for_tokens(trainer: Any) -> Any:
    """A class of trainers for rows that are in tokens already."""

    class Ready(trainer):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

    return Ready


def run(trainer: Any) -> None:
    """Train from the last checkpoint in the trainer's folder, if any; nothing is written to standard output.

    The weights are looked at, and not the losses: transformers' Trainer logs a loss that is not finite as the mean of
    those before it (`logging_nan_inf_filter`).

    Raises:
        EvenhandError: A trained weight is no longer finite.
    """
    from transformers import PrinterCallback
    from transformers.trainer_utils import get_last_checkpoint

    trainer.remove_callback(PrinterCallback)
    place = Path(trainer.args.output_dir)
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(place)) if place.is_dir() else None)
    trained = ((name, p) for name, p in trainer.model.named_parameters() if p.requires_grad)
    if broken := next((name for name, p in trained if not bool(p.isfinite().all())), ""):
        rate = trainer.args.learning_rate
        raise EvenhandError(f"training diverged: {broken} is no longer finite; take a learning_rate below {rate:g}")
