"""Models whose weights were edited: local models that know how."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from evenhand.interfaces import Model
from evenhand.methods.unlearning._finite import probes, refuse_broken
from evenhand.models.asking import asked_alike
from evenhand.models.files import SAVED
from evenhand.models.local import LocalModel

FACTS = "unlearning.json"
"""Beside the weights: what was done to them."""


class Edited(LocalModel):
    """A local model that knows how it was edited."""

    learned: dict[str, Any]

    def facts(self) -> dict[str, Any]:
        """Those of the model, and what was done to it."""
        return {**super().facts(), **self.learned}

    def save(self, folder: str | Path) -> Path:
        """Write what `evenhand.load` opens, and what was done."""
        folder = super().save(folder)
        (folder / FACTS).write_text(json.dumps(self.learned, indent=1))
        (folder / SAVED).unlink(missing_ok=True)  # of another model that lay here
        return folder


def edited(module: Any, model: Model, name: str, facts: dict[str, Any], *, remedy: str) -> Edited:
    """A model of an edited copy of another one's module; it is asked alike.

    Args:
        module: On the device of the model's.
        model: The model that was edited.
        name: Label for tables.
        facts: JSON values for reports.
        remedy: Against logits that are not finite, such as "take a smaller strength".

    Raises:
        DivergedError: The module gives no scores: its logits are not finite, and the model's are.
    """
    before, tokenizer = model.weights
    refuse_broken(module, before, probes(tokenizer, model.context_length), remedy)
    made = Edited(module, tokenizer, name=name, **asked_alike(model))
    made.learned = facts
    return made


def open_edited(folder: Path, model: Model, name: str, *, remedy: str) -> Edited:
    """An adapter and the facts of its training, from a folder that may be gone later, on the base that it names.

    Raises:
        DivergedError: As `edited`.
    """
    from evenhand.models import hugging_face
    from evenhand.training.lora import base_of, forget_name

    module = model.weights.module
    base, beside = base_of(folder)
    dtype = str(module.dtype).removeprefix("torch.")
    opened, _ = hugging_face.open_model(base, folder, device=str(module.device), dtype=dtype)
    if beside:
        forget_name(opened)
    return edited(opened, model, name, json.loads((folder / FACTS).read_text()), remedy=remedy)
