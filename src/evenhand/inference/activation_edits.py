"""Define activation edits: changes of the hidden states at the output of decoder layers.

A hidden state is a row h of the residual stream at the output of a decoder layer, before the final norm. With
u = v / |v| for a direction v and the strength a, a `LayerEdit` replaces h by

- add: h + a v
- project: h - a ((h - o).u) u + c u, with an offset o and a target c
- ablate: h - a P h, where P projects onto the span of all directions

`evenhand.inference.edited_rows` computes this, `evenhand.inference.edit_hooks` applies it in a model, and
`evenhand.inference.edited_tokens` determines which tokens of a sequence are edited.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from evenhand.core.hashing import bytes_hash, digest
from evenhand.errors import SettingsError, suggest

Mode = Literal["add", "project", "ablate"]
Scope = Literal["all", "answer", "after"]

RULE_VERSION = 1
"""Version of the computation of edits; raised when equal settings give different numbers than before."""


@dataclass(frozen=True, eq=False)
class TokenGate:
    """A linear probe that decides for every row whether it is edited: if sigmoid(weight.h + bias) < threshold.

    The probe reads the row that its edit would change, at the same layer, after the edits that come before it.
    FairSteer (arXiv 2504.14492) edits if a probe of unbiased answers gives less than 0.5.
    """

    weight: Tensor
    """Weight of the probe, [hidden], float32 on the CPU."""
    bias: float
    threshold: float = 0.5
    """Probability below which a row is edited, from 0 to 1."""

    def __post_init__(self) -> None:
        """Check the probe.

        Raises:
            SettingsError: The weight is not a finite vector, or the threshold not a probability.
        """
        object.__setattr__(self, "weight", _checked(self.weight, "the gate's weight", dimensions=1))
        if not 0 <= self.threshold <= 1:
            raise SettingsError(f"threshold {self.threshold!r} of a token gate: give a probability from 0 to 1")

    def key(self) -> list[object]:
        """Return what the gate's decisions depend on, as JSON values."""
        return [_bytes(self.weight), float(self.bias), float(self.threshold)]


@dataclass(frozen=True, eq=False)
class LayerEdit:
    """An edit of the rows of a layer; see the module's docstring for the formulas."""

    mode: Mode
    directions: Tensor
    """Directions of the edit, [K, hidden], float32 on the CPU; K = 1 unless directions are ablated."""
    strength: float = 1.0
    offset: Tensor | None = None
    """The o of `project`, [hidden]; None is 0."""
    target: float = 0.0
    """The c of `project`: the value of (h - o).u after an edit of strength 1."""
    gate: TokenGate | None = None
    """Decides for each row whether it is edited; None edits all rows in scope."""

    def __post_init__(self) -> None:
        """Check the edit.

        Raises:
            SettingsError: A mode, shape or number is wrong, or a direction to be removed has length 0.
        """
        if self.mode not in get_args(Mode):
            raise SettingsError(f"mode {self.mode!r} of an edit is not known. {suggest(self.mode, get_args(Mode))}")
        directions = self.directions[None] if self.directions.dim() == 1 else self.directions
        object.__setattr__(self, "directions", _checked(directions, "directions", dimensions=2))
        if len(self.directions) == 0 or (len(self.directions) > 1 and self.mode != "ablate"):
            raise SettingsError(
                f"{self.mode} takes one direction, and ablate one or more; {len(self.directions)} were given"
            )
        if self.mode != "add" and not bool(self.directions.any(1).all()):
            raise SettingsError(f"{self.mode}: a direction has length 0, so there is nothing to remove")
        if self.mode != "project" and (self.offset is not None or self.target):
            raise SettingsError(f"{self.mode} takes neither an offset nor a target; they belong to project")
        if self.offset is not None:
            object.__setattr__(self, "offset", _checked(self.offset, "the offset", dimensions=1))
        probe = None if self.gate is None else self.gate.weight
        sizes = {t.shape[-1] for t in (self.directions, self.offset, probe) if t is not None}
        if len(sizes) > 1:
            raise SettingsError(f"an edit's tensors have different hidden sizes: {sorted(sizes)}")
        if not all(map(_is_finite, (self.strength, self.target))):
            raise SettingsError(f"strength {self.strength!r} and target {self.target!r} of an edit must be finite")

    @property
    def hidden_size(self) -> int:
        """Number of coordinates of a row."""
        return int(self.directions.shape[1])

    @property
    def is_identity(self) -> bool:
        """Whether the edit changes no row."""
        nothing_added = self.mode == "add" and not bool(self.directions.any())
        return nothing_added or (self.strength == 0 and self.target == 0)

    def key(self) -> list[object]:
        """Return what the edited rows depend on, as JSON values."""
        return [
            self.mode,
            _bytes(self.directions),
            float(self.strength),
            None if self.offset is None else _bytes(self.offset),
            float(self.target),
            None if self.gate is None else self.gate.key(),
        ]


@dataclass(frozen=True, eq=False)
class ActivationEdit:
    """Edits of several layers, and the tokens whose rows are edited.

    Scopes: `all` edits every token that is fed; `answer` the last token of the prompt and every token after it; `after`
    the tokens after the prompt only. In a text that is scored, the prompt ends at the first position that is read. A
    text without a prompt is thus edited as a whole in scope `answer`, in scope `after` from its second token on: its
    first token is what all others are conditioned on.
    """

    layers: Mapping[int, Sequence[LayerEdit]]
    """Decoder layers, counted from 0; several edits of one layer are applied in order."""
    scope: Scope = "all"
    skip_first: bool = True
    """Whether the token at position 0 is never edited, whatever the scope. First tokens are often attention sinks whose
    rows are up to 100 times as long as others; projecting or ablating them changes attention everywhere."""

    def __post_init__(self) -> None:
        """Check scope and layers.

        Raises:
            SettingsError: The scope is unknown, a layer is below 0, or hidden sizes differ.
        """
        if self.scope not in get_args(Scope):
            raise SettingsError(f"scope {self.scope!r} of an edit is not known. {suggest(self.scope, get_args(Scope))}")
        layers = {int(layer): tuple(edits) for layer, edits in sorted(self.layers.items())}
        object.__setattr__(self, "layers", layers)
        if any(layer < 0 for layer in layers):
            raise SettingsError(f"layer {min(layers)} of an edit: layers are counted from 0")
        sizes = {edit.hidden_size for edits in layers.values() for edit in edits}
        if len(sizes) > 1:
            raise SettingsError(f"an edit's layers have different hidden sizes: {sorted(sizes)}")

    @property
    def hidden_size(self) -> int:
        """Number of coordinates of the edited rows; 0 if no layer is edited."""
        return next((edit.hidden_size for edits in self.layers.values() for edit in edits), 0)

    @property
    def acting(self) -> dict[int, tuple[LayerEdit, ...]]:
        """Edits that change anything, by layer."""
        found = {layer: tuple(e for e in edits if not e.is_identity) for layer, edits in self.layers.items()}
        return {layer: edits for layer, edits in found.items() if edits}

    @property
    def is_identity(self) -> bool:
        """Whether the edit leaves a model unchanged."""
        return not self.acting

    def digest(self) -> str:
        """Hash everything that determines the edited rows: tensors, layers, settings and the version of the rule."""
        layers = [[layer, [edit.key() for edit in edits]] for layer, edits in self.acting.items()]
        return digest("activation edit", RULE_VERSION, layers, self.scope, self.skip_first)

    def then(self, other: ActivationEdit) -> ActivationEdit:
        """Return this edit followed by another one, whose edits of a layer come after this one's.

        Raises:
            SettingsError: The edits differ in scope or `skip_first`.
        """
        if self.is_identity or other.is_identity:
            return other if self.is_identity else self
        if (self.scope, self.skip_first) != (other.scope, other.skip_first):
            raise SettingsError(
                f"edits of scope {self.scope!r} (skip_first={self.skip_first}) and {other.scope!r} "
                f"(skip_first={other.skip_first}) cannot be combined: give both the same scope and skip_first"
            )
        layers = {
            layer: (*self.layers.get(layer, ()), *other.layers.get(layer, ()))
            for layer in sorted({*self.layers, *other.layers})
        }
        return ActivationEdit(layers, self.scope, self.skip_first)


def _checked(tensor: Tensor, what: str, *, dimensions: int) -> Tensor:
    """Return a copy of a finite tensor, in float32 on the CPU."""
    if tensor.dim() != dimensions or not bool(torch.isfinite(tensor).all()):
        raise SettingsError(f"{what} of an edit: {tuple(tensor.shape)} must be {dimensions}-dimensional and finite")
    return tensor.detach().to("cpu", torch.float32, copy=True).contiguous()


def _is_finite(value: float) -> bool:
    return float("-inf") < value < float("inf")


def _bytes(tensor: Tensor) -> str:
    return bytes_hash(tensor.view(torch.uint8).numpy().data) + str(tuple(tensor.shape))
