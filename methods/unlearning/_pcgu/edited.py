"""The result of an edit: a model of the same kind with the edited weights, saved as the base and the edit."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from evenhand.core import training_record
from evenhand.interfaces import Method, Model, TrainingRecord
from evenhand.methods.unlearning._pcgu.delta import Delta
from evenhand.models import saved
from evenhand.models.asking import asked_alike
from evenhand.models.first_process import write_in_first
from evenhand.models.local import LocalModel
from evenhand.models.masked import MaskedModel
from evenhand.models.mitigated import Mitigated
from evenhand.training.finite import probes, refuse_broken

DELTA = "delta.safetensors"
"""Name of the edit's file, in the folder of what a method has learned."""


class _Edited:
    """What both kinds of edited models share."""

    base: Model
    method: Method
    delta: Delta

    def save(self, folder: str | Path) -> Path:
        """Write the edit, and the base: by reference if it is stored unedited, otherwise in full."""
        return _stored(self).save(folder)


class EditedLocal(_Edited, LocalModel):
    """A causal model with edited weights."""


class EditedMasked(_Edited, MaskedModel):
    """A masked model with edited weights."""


def edited(
    base: Model, method: Method, delta: Delta, record: TrainingRecord | None = None
) -> EditedLocal | EditedMasked:
    """Return a copy of a model with an edit in its weights, asked in the same way.

    Args:
        base: The model; it is not changed.
        method: Method that made the edit.
        delta: The edit.
        record: How it was made; None if unknown.

    Raises:
        SettingsError: The edit is for another model.
        DivergedError: The copy gives no scores: its logits are not finite.
    """
    before, tokenizer = base.weights
    module, name = copy.deepcopy(before), f"{base.name}+{method.spec}"
    delta.apply(module)
    texts = probes(tokenizer, base.context_length)
    refuse_broken(module, before, texts, f"{name} cannot be used; set a lower learning_rate")
    made: EditedLocal | EditedMasked
    if isinstance(base, MaskedModel):
        made = EditedMasked(module, tokenizer, name=name, too_long=base.too_long)
    else:
        made = EditedLocal(module, tokenizer, name=name, **asked_alike(base))
    made.base, made.method, made.delta, made.training = base, method, delta, record
    return made


def _stored(model: Any) -> Mitigated:
    """Return the form on disk, which loading supports: the base, the method's settings, and what was learned."""
    return Mitigated(
        model.base, model.method, keep=lambda folder: model.delta.save(folder / DELTA), training=model.training
    )


def export(model: Model, folder: Path) -> Path:
    """Write an edited model's weights and tokenizer as a plain transformers folder.

    Args:
        model: Result of `edited`; in several processes the same in each, and the first one writes.
        folder: Target folder; created if it does not exist.
    """
    from evenhand.models.hugging_face import save_module, save_tokenizer

    module, tokenizer = model.weights

    def write_all() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        save_module(module, folder)
        save_tokenizer(tokenizer, folder)

    write_in_first(folder, write_all)
    return folder


def write(delta: Delta, record: TrainingRecord, folder: Path) -> None:
    """Store an edit and, last, its record in a folder."""
    delta.save(folder / DELTA)
    saved.write_learned(folder, record)


def read(folder: Path) -> tuple[Delta, TrainingRecord | None]:
    """Read an edit and its record, which earlier versions wrote into the edit's own file.

    Raises:
        EvenhandError: The files are missing, or not as evenhand writes them.
    """
    delta = Delta.load(folder / DELTA)
    record = saved.learned_of(folder, "pcgu")
    if record is None and delta.facts:
        record = training_record.of_facts(delta.facts, folder / DELTA, method="pcgu")
    return delta, record
