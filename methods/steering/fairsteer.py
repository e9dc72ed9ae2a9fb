"""`fairsteer`: move hidden states only where a probe predicts that an answer is about to be biased.

Source: Li et al. 2025, "FairSteer" (Findings of ACL 2025, arXiv 2504.14492; LiYichen99/FairSteer). `paper`, value by
value:

- `gate=token`, `threshold=0.5`, `strength=1`, `scope=answer`: at each forward, at the last position only, the vector is
  added if the probe of unbiased answers gives less than .5.
- `split=row`: 20 % of the rows are held out, whatever their templates are; the probe is tested on templates that it
  has seen. `validation_fraction=0.2` is theirs as well.
- `balance_letters=False`: every row in one order, so that the vector may contain a preference for a letter.
- `penalty=1`: L2 with C = 1, no scaling, at most 10,000 iterations.
- `layer=0.375`: the script's default, 15 of the 40 layers of Llama-2-13B. The paper chooses by the accuracy on 2,200
  generated questions, whose file is not released.
- `skip_first=False`.

The vector is the mean difference between states at the letter of the right answer (it cannot be known) and at the
letter of the biased one. The probe is trained on states at the last token of the prompt, of questions that the model
answers right (1) or with the stereotyped answer (0); others are left out. Ours: questions of one template are on one
side of the split, options are shown in all cyclic orders, and a gate that decides once per prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from evenhand.errors import SettingsError
from evenhand.interfaces import Array, Model, settings
from evenhand.methods.steering import _condition as conditions
from evenhand.methods.steering import _directions as directions
from evenhand.methods.steering import _logistic as logistic
from evenhand.methods.steering import _statistics as statistics
from evenhand.methods.steering._activation_method import AFTERWARDS, ActivationMethod, sizes
from evenhand.methods.steering._contrasts import Contrast
from evenhand.methods.steering._fit import Fit
from evenhand.methods.steering._lesson import Split
from evenhand.methods.steering._rows import BIASED, SIDES, UNBIASED, Row, answer_rows, continuation_rows
from evenhand.methods.steering._states import by_layers, means

if TYPE_CHECKING:
    from evenhand.inference.activation_edits import ActivationEdit
    from evenhand.inference.prompt_gates import PromptGate
    from evenhand.models.tokenization import Encoder

_CODE = "LiYichen99/FairSteer 0545cdb"
LEAST_ROWS = 8
"""Minimum number of answers of each kind for training a probe."""


@settings
class FairSteer(ActivationMethod):
    """Add a direction to unbiased answers where a probe predicts a biased answer."""

    not_in_key: ClassVar[frozenset[str]] = AFTERWARDS | {"gate", "threshold"}
    name: ClassVar[str] = "fairsteer"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {
            "gate": "token",
            "threshold": 0.5,
            "strength": 1.0,
            "scope": "answer",
            "fit_at": "continuation",
            "penalty": 1.0,
            "split": "row",
            "validation_fraction": 0.2,
            "balance_letters": False,
            "layer": 0.375,
            "skip_first": False,
        },
    }
    preset_sources: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "paper": {
            "": _CODE,
            "gate": f"{_CODE}: at each forward, by the state of the last position",
            "threshold": f"{_CODE}: less than .5",
            "scope": f"{_CODE}: the last position of each forward",
            "fit_at": f"{_CODE}: at the letter of either answer",
            "penalty": f"{_CODE}: L2 with C = 1",
            "split": f"{_CODE}: by row",
            "validation_fraction": f"{_CODE}: 80 and 20 % of the rows",
            "balance_letters": f"{_CODE}: every row in one order",
            "layer": f"{_CODE}: the script's default, 15 of the 40 layers of Llama-2-13B",
        }
    }

    gate: Literal["token", "prompt", "none"] = "token"
    """What decides whether to steer. token: the probe, for every token in scope. prompt: a condition on the state at
    the last token of the prompt, once for the whole reply; ours. none: everything in scope is steered."""
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.5
    """With gate=token, probability of an unbiased answer below which a token is steered."""
    split: Split = "template"
    """What stays together when contrasts are held out: questions of one template, or only each row."""
    penalty: Annotated[float, Field(gt=0)] = 1.0
    """Parameter C of the probe's L2 penalty; smaller values regularise more."""
    fit_at: Literal["continuation", "answer"] = "continuation"
    """States from which the vector is estimated. continuation: those at the letters of the right and the biased answer,
    which the model is given. answer: those at the last token of the prompt, of questions that the model answers right
    or biased."""

    @property
    def splitting(self) -> Split:
        """The setting `split`."""
        return self.split

    def fitted_layers(self, count: int) -> tuple[int, ...]:
        """Layers that are fitted: the edited ones, since a probe takes time; all if one is to be chosen."""
        return self.layers_of(count) or super().fitted_layers(count)

    def edit(self, fit: Fit) -> ActivationEdit:
        """Return the vector, gated by the probe with gate=token."""
        from evenhand.inference.activation_edits import ActivationEdit, LayerEdit, TokenGate

        edits = {}
        for layer, found in fit.directions.items():
            used = directions.random_like(found, self.seed, layer) if self.control == "random" else found
            gate = None
            if self.gate == "token":
                weight, bias = fit.gates[layer]
                gate = TokenGate(weight, float(bias), self.threshold)
            edits[layer] = (LayerEdit("add", used, self.signed_strength, gate=gate),)
        return ActivationEdit(edits, self.scope, self.skip_first)

    def prompt_gate(self, fit: Fit) -> PromptGate | None:
        """Return the condition of the lowest edited layer."""
        if self.gate != "prompt":
            return None
        from evenhand.inference.prompt_gates import PromptGate

        layer = min(fit.conditions)
        direction, threshold = fit.conditions[layer]
        # a probability of at least one half is a projection of at least the threshold
        return PromptGate(layer, direction, -float(threshold), edit_where="above")

    def incomplete(self, fit: Fit, layers: Sequence[int] | None) -> str:
        """Also require a gate for every direction, if one is set."""
        known = {"token": fit.gates, "prompt": fit.conditions, "none": fit.directions}[self.gate]
        if lacking := sorted({*fit.directions} - {*known}):
            return f"it has no gate of layer {lacking[0]}, but gate={self.gate} is set"
        return super().incomplete(fit, layers)

    # ------------------------------------------------------------------------------------------- fitting

    def learned(
        self, model: Model, encoder: Encoder, train: Sequence[Contrast], held: Sequence[Contrast]
    ) -> tuple[Fit, dict[str, Any]]:
        """Fit vector, probe and condition of layers, and the probe's accuracy on held-out questions."""
        count, hidden = sizes(model)
        layers = self.fitted_layers(count)
        answered = self._answered(model, encoder, train)
        _require(self.name, model, answered)
        read = answered if self.fit_at == "answer" else continuation_rows(encoder, train, "right")
        found = means(model, read, layers)
        one, other = (directions.side_mean(found, side, SIDES, balanced=self.balance_letters) for side in SIDES)
        vectors = {layer: (one - other)[n : n + 1].float() for n, layer in enumerate(layers)}
        fit, of_conditions = self._gates(model, answered, vectors, hidden)
        results: dict[str, Any] = {
            "answered": {side: sum(row.side == side for row in answered) for side in SIDES},
            "norms": statistics.norms(vectors),
            **statistics.letter_effects(found, vectors),
            "condition_f1": of_conditions,
        }
        return fit, {**results, **self._accuracy(model, self._answered(model, encoder, held), fit, hidden)}

    @staticmethod
    def _answered(model: Model, encoder: Encoder, contrasts: Sequence[Contrast]) -> list[Row]:
        """Return rows at the last token of the prompt, for questions answered right or biased."""
        rows = [row for row, _ in answer_rows(model, encoder, contrasts, "right", 0.0)]
        return [row for row in rows if row.side in SIDES]

    def _gates(
        self, model: Model, rows: Sequence[Row], vectors: dict[int, Tensor], hidden: int
    ) -> tuple[Fit, dict[str, float]]:
        """Add a probe and a condition for each layer, and the conditions' F1 on the prompts of the fit."""
        labels = np.array([row.side == UNBIASED for row in rows])
        gates, found, f1 = {}, {}, {}
        for some, states in by_layers(model, rows, list(vectors), hidden):
            for n, layer in enumerate(some):
                own = states[:, n].double()
                probe = logistic.fitted(own.numpy(), labels, self.penalty)
                gates[layer] = (torch.from_numpy(probe.weight).float(), torch.tensor(probe.bias).float())
                condition = conditions.fitted(own[torch.from_numpy(~labels)], own[torch.from_numpy(labels)])
                found[layer] = (condition.direction.float(), torch.tensor(condition.threshold).float())
                f1[str(layer)] = round(condition.f1, 6)
        return Fit(vectors, gates=gates, conditions=found), f1

    @staticmethod
    def _accuracy(model: Model, rows: Sequence[Row], fit: Fit, hidden: int) -> dict[str, Any]:
        """Return the probes' accuracy by layer on held-out questions, weighting both kinds of answers equally."""
        labels = np.array([row.side == UNBIASED for row in rows], dtype=bool)
        if not labels.any() or labels.all():
            return {}
        out: dict[str, float] = {}
        for some, states in by_layers(model, rows, list(fit.gates), hidden):
            for n, layer in enumerate(some):
                weight, bias = fit.gates[layer]
                probe = logistic.Probe(weight.double().numpy(), float(bias), 0)
                right: Array = (logistic.probability(probe, states[:, n].numpy()) >= 0.5) == labels
                out[str(layer)] = round(float((right[labels].mean() + right[~labels].mean()) / 2), 6)
        return {"held_out_accuracy": out, "held_out_states": len(rows)}


def _require(name: str, model: Model, rows: Sequence[Row]) -> None:
    """Refuse to train a probe on answers of one kind only.

    Raises:
        SettingsError: There are too few right or biased answers.
    """
    for side, what in ((UNBIASED, "right"), (BIASED, "biased")):
        if (count := sum(row.side == side for row in rows)) < LEAST_ROWS:
            raise SettingsError(
                f"{name}: {model.name} gives {count} {what} answers to the training questions, but a probe needs at "
                f"least {LEAST_ROWS}. Add training questions, or use the method steering, which needs no probe"
            )
