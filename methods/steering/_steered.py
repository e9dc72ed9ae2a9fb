"""Models whose hidden states are edited by a method, and what other steering finds below them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evenhand.core.hashing import digest
from evenhand.interfaces import Combine, Method, Model, TrainingRecord
from evenhand.methods.steering._fit import Fit
from evenhand.models import Mitigated
from evenhand.models.fingerprint import content_of
from evenhand.models.local import LocalModel

if TYPE_CHECKING:
    from evenhand.inference.activation_edits import ActivationEdit
    from evenhand.inference.prompt_gates import PromptGate


class Steered(Mitigated):
    """A local model with edited hidden states and all its verbs; the weights are the base's.

    In nested steering the edits of the inner one come first, also if both are at one layer.
    """

    def __init__(
        self,
        base: Model,
        method: Method,
        edit: ActivationEdit,
        fit: Fit,
        record: TrainingRecord,
        gate: PromptGate | None = None,
    ) -> None:
        """Put an edit into a model.

        Args:
            base: A local model, or a steered one.
            method: Method that made the edit.
            edit: The edit.
            fit: The fit from which it is made; saved with the model.
            record: How it was fitted.
            gate: Gate that decides about whole prompts; None if there is none.
        """
        from evenhand.models.steered import steered

        self.edit, self.fit, self.gate = edit, fit, gate
        self.inner = steered(innermost(base), edit, prompt_gate=gate)
        super().__init__(
            base,
            method,
            choose=self.inner.choose,
            generate=self.inner.generate,
            score=self.inner.score,
            abilities=base.abilities - {"weights"},  # weights alone would answer without the edit
            depends_on=[edit.digest(), *([] if gate is None else [digest(gate.key())])],
            keep=self._keep_fit,
            training=record,
        )

    @property
    def supports_prefixes(self) -> bool:
        """Whether `behind` works, which it does not with a gate that decides about whole prompts."""
        return self.gate is None and self.inner.supports_prefixes

    def behind(self, prefixes: Sequence[str], combine: Combine, settings: object) -> Model:  # type: ignore[override]
        """Return the steered model, guided by what it would say after other texts."""
        return self.inner.behind(prefixes, combine, settings)

    def _keep_fit(self, folder: Path) -> None:
        self.fit.save(folder, base=identity(self.base))


def steerable(model: Model) -> bool:
    """Whether a model's hidden states can be edited here."""
    return isinstance(model, LocalModel | Steered)


def identity(model: Model) -> str:
    """Hash a model's weights and edits; unlike its fingerprint, it is the same in memory and in a folder."""
    if isinstance(model, Steered):
        return digest(identity(model.base), model.edit.digest(), None if model.gate is None else model.gate.key())
    return digest(content_of(model.weights.module))


def innermost(model: Model) -> Model:
    """Return the model with all edits and no method around it, which reads states."""
    return model.inner if isinstance(model, Steered) else model
