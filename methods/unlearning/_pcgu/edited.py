"""What results from an edit: a model of the same kind with the edited weights, saved as the base and the edit."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from evenhand.interfaces import Method, Model
from evenhand.methods.unlearning._finite import probes, refuse_broken
from evenhand.methods.unlearning._pcgu.delta import Delta
from evenhand.models.asking import asked_alike
from evenhand.models.local import LocalModel
from evenhand.models.masked import MaskedModel
from evenhand.models.mitigated import Mitigated

DELTA = "delta.safetensors"
"""The edit's file, in the folder of what a method has learned."""


class _Edited:
    """What both kinds have beside their model."""

    base: Model
    method: Method
    delta: Delta

    def save(self, folder: str | Path) -> Path:
        """Write the edit, and the base: by reference where it lies untouched, else in full."""
        return _stored(self).save(folder)

    def facts(self) -> dict[str, Any]:
        """Those of the model, and how the edit was made."""
        return {**super().facts(), **self.delta.facts}  # type: ignore[misc]


class EditedLocal(_Edited, LocalModel):
    """A causal model with edited weights."""


class EditedMasked(_Edited, MaskedModel):
    """A masked model with edited weights."""


def edited(base: Model, method: Method, delta: Delta) -> EditedLocal | EditedMasked:
    """A copy of a model with an edit in its weights; asked as the model is.

    Raises:
        SettingsError: The edit is of another model.
        DivergedError: The copy gives no scores: its logits are not finite.
    """
    before, tokenizer = base.weights
    module, name = copy.deepcopy(before), f"{base.name}+{method.spec}"
    delta.apply(module)
    texts = probes(tokenizer, base.context_length)
    refuse_broken(module, before, texts, f"{name} cannot be used; take a lower learning_rate")
    made: EditedLocal | EditedMasked
    if isinstance(base, MaskedModel):
        made = EditedMasked(module, tokenizer, name=name, too_long=base.too_long)
    else:
        made = EditedLocal(module, tokenizer, name=name, **asked_alike(base))
    made.base, made.method, made.delta = base, method, delta
    return made


def _stored(model: Any) -> Mitigated:
    """The form on disk, which loading knows: the base, the method's settings, and what was learned."""
    return Mitigated(model.base, model.method, keep=lambda folder: model.delta.save(folder / DELTA))
