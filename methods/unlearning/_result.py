"""Models whose weights were edited: local models with a record of the edit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evenhand.interfaces import Model, TrainingRecord
from evenhand.models import saved
from evenhand.models.asking import asked_alike
from evenhand.models.local import LocalModel
from evenhand.training.finite import probes, refuse_broken


def edited(module: Any, model: Model, name: str, record: TrainingRecord | None, *, remedy: str) -> LocalModel:
    """Return a model with an edited copy of another model's module, asked in the same way.

    Args:
        module: Module on the model's device.
        model: The model that was edited.
        name: Label for tables.
        record: How it was edited; None if the model is only tried.
        remedy: Remedy against logits that are not finite, such as "set a smaller strength".

    Raises:
        DivergedError: The module gives no scores: its logits are not finite, although the model's are.
    """
    before, tokenizer = model.weights
    refuse_broken(module, before, probes(tokenizer, model.context_length), remedy)
    made = LocalModel(module, tokenizer, name=name, **asked_alike(model))
    made.training = record
    return made


def open_edited(folder: Path, model: Model, name: str, *, remedy: str) -> LocalModel:
    """Open an adapter and its training record, from a folder that may be deleted later, on the base that it names.

    Raises:
        DivergedError: As `edited`.
    """
    from evenhand.models import hugging_face

    record = saved.training_of(folder)
    module = model.weights.module
    dtype = str(module.dtype).removeprefix("torch.")
    opened, _ = hugging_face.open_model(saved.base_of_adapter(folder), folder, device=str(module.device), dtype=dtype)
    return edited(opened, model, name, record, remedy=remedy)
