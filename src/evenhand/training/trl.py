"""Training of a LoRA adapter with TRL, supervised or by preferences, on rows that are already tokenised.

Sources: TRL's SFTTrainer and DPOTrainer; direct preference optimisation is by Rafailov et al. 2023 (arXiv 2305.18290).
A training that was killed resumes from the last checkpoint in its folder.
"""

from __future__ import annotations

import copy
import importlib.util
import math
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from evenhand.errors import DivergedError, SettingsError
from evenhand.training import trl_support, trl_watching
from evenhand.training.trl_support import Rows

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of a training with TRL."""

    objective: Literal["sft", "dpo"]
    """sft learns the answers; dpo learns to prefer the chosen ones to the rejected ones."""
    epochs: int
    steps: int | None = None
    """Number of steps, which then replaces `epochs`; None trains for `epochs`."""
    learning_rate: float
    """Peak learning rate of AdamW."""
    decay: Literal["linear", "cosine"] = "linear"
    """How the learning rate falls after the warm-up."""
    warmup: float
    """Number of steps in which the learning rate rises; below 1, the fraction of all steps."""
    batch_size: int
    """Rows computed at once."""
    gradient_accumulation_steps: int = 1
    """Batches per optimizer step."""
    weight_decay: float = 0.0
    """Weight decay of AdamW."""
    max_grad_norm: float = 1.0
    """Maximum norm of the gradient of a step."""
    beta: float = 0.1
    """How much it costs to move away from the model without the adapter; only for dpo."""
    precision: str = "no"
    """Precision of matrix products: no, bf16 or fp16."""
    gradient_checkpointing: bool = False
    """Whether activations are recomputed in the backward pass instead of being stored."""
    max_length: int | None = None
    """Maximum number of tokens of a row; longer rows are cut. None cuts nothing."""
    seed: int = 0
    cpu: bool = False
    """Whether to train on the CPU even if there is a GPU."""


class Outcome(NamedTuple):
    """Outcome of a training."""

    module: Any
    """The module with its adapter, in evaluation mode."""
    history: list[Mapping[str, float]]
    """What the trainer logged: per epoch a row with the training loss, and one with the evaluation."""
    steps: int
    seconds: float


def unsupported_reason(method: str) -> str:
    """Say why a method cannot train; "" if TRL is installed."""
    if importlib.util.find_spec("trl") is None:
        return f"{method} trains with TRL: pip install 'evenhand[trl]'"
    return ""


def train(
    module: Any,
    tokenizer: PreTrainedTokenizerBase,
    rows: Rows,
    recipe: Recipe,
    folder: Path,
    *,
    held: Rows = (),
    adapter: LoraConfig | None = None,
) -> Outcome:
    """Train the adapter of a module; the global random generators are not changed.

    Args:
        module: Has an adapter, or gets a fresh one. Without its adapter it is the reference of dpo.
        tokenizer: The model's own, which is not changed.
        rows: `prompt_ids`, `chosen_ids` and `rejected_ids` (dpo), or `input_ids` and `completion_mask` (sft).
        recipe: Settings of the training.
        folder: For checkpoints.
        held: Rows that are evaluated after each epoch (dpo).
        adapter: Configuration of the fresh adapter; None if the module has one.

    Raises:
        SettingsError: TRL is not installed.
        DivergedError: The loss or a trained weight is no longer finite.
    """
    if reason := unsupported_reason(recipe.objective):
        raise SettingsError(reason)
    began = time.monotonic()
    with own_generators(), _without_bars():
        trainer = _trainer(module, copy.deepcopy(tokenizer), rows, recipe, folder, held, adapter)
        with trl_watching.watched(trainer):
            run(trainer)
    history: list[Mapping[str, float]] = trainer.state.log_history
    losses = [row["loss"] for row in history if "loss" in row]
    if not all(map(math.isfinite, losses)):
        raise DivergedError(f"the loss became {losses[-1]}; take a learning_rate below {recipe.learning_rate:g}")
    tuned = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    return Outcome(tuned.eval(), history, int(trainer.state.global_step), round(time.monotonic() - began, 1))


def _trainer(
    module: Any,
    tokenizer: Any,
    rows: Rows,
    recipe: Recipe,
    folder: Path,
    held: Rows,
    adapter: LoraConfig | None,
) -> Any:
    import torch

    torch.manual_seed(recipe.seed)
    library = trl_support.library()
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    given = {"model": module, "processing_class": tokenizer, "peft_config": adapter}
    arguments = _arguments(recipe, folder, evaluated=bool(held))
    if recipe.objective == "dpo":
        return trl_support.dpo_trainer(rows, held, args=library.DPOConfig(beta=recipe.beta, **arguments), **given)
    from datasets import Dataset

    sft = library.SFTConfig(completion_only_loss=True, packing=False, **arguments)
    return library.SFTTrainer(args=sft, train_dataset=Dataset.from_list([dict(row) for row in rows]), **given)


def _arguments(recipe: Recipe, folder: Path, *, evaluated: bool) -> dict[str, Any]:
    """Return the arguments that the configurations of both trainers share."""
    return {
        "output_dir": str(folder),
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": recipe.decay,
        "warmup_steps": recipe.warmup,
        "num_train_epochs": recipe.epochs,
        "max_steps": recipe.steps or -1,
        "per_device_train_batch_size": recipe.batch_size,
        "per_device_eval_batch_size": recipe.batch_size,
        "gradient_accumulation_steps": recipe.gradient_accumulation_steps,
        "weight_decay": recipe.weight_decay,
        "max_grad_norm": recipe.max_grad_norm,
        "gradient_checkpointing": recipe.gradient_checkpointing,
        "max_length": recipe.max_length,
        "bf16": recipe.precision == "bf16",
        "fp16": recipe.precision == "fp16",
        "seed": recipe.seed,
        "data_seed": recipe.seed,
        "use_cpu": recipe.cpu,
        "dataloader_pin_memory": not recipe.cpu,
        "eval_strategy": "epoch" if evaluated else "no",
        "save_strategy": "epoch",
        "save_total_limit": 1,
        "logging_strategy": "epoch",
        "report_to": "none",
        "push_to_hub": False,
        "disable_tqdm": True,
    }


@contextmanager
def own_generators() -> Iterator[None]:
    """Restore the process's random generators afterwards, as trainers seed them."""
    import numpy as np
    import torch

    python, arrays = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(arrays)


@contextmanager
def _without_bars() -> Iterator[None]:
    """Hide the progress bars of datasets, which would appear between ours."""
    import datasets

    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


def run(trainer: Any) -> None:
    """Train from the last checkpoint in the trainer's folder, if any; nothing is written to standard output.

    The weights are checked, not only the losses: transformers' Trainer logs a loss that is not finite as the
    mean of those before it (`logging_nan_inf_filter`).

    Raises:
        DivergedError: A trained weight is no longer finite.
    """
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    last = trl_watching.last_checkpoint(Path(trainer.args.output_dir))
    trainer.train(resume_from_checkpoint=None if last is None else str(last))
    trl_watching.refuse_broken_weights(trainer)
