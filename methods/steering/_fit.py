"""The fit of a steering method, and its file: steering.safetensors."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from evenhand.errors import EvenhandError

FILE = "steering.safetensors"
MOST_DIRECTIONS = 64
"""Maximum number of directions per layer."""
SHAPES: Mapping[str, int] = {
    "direction": 2,
    "offset": 1,
    "gate.weight": 1,
    "gate.bias": 0,
    "condition": 1,
    "condition.threshold": 0,
}
"""Names of tensors before ".LAYER", and their number of dimensions."""


@dataclass(frozen=True)
class Fit:
    """Tensors by decoder layer, counted from 0, all float32 on the CPU."""

    directions: Mapping[int, Tensor]
    """[K, hidden] for each layer, from biased to unbiased."""
    offsets: Mapping[int, Tensor] = field(default_factory=dict)
    """[hidden] for each layer: the mean of neutral states, or halfway between both sides."""
    gates: Mapping[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """Weight [hidden] and bias [] of a probe of unbiased answers."""
    conditions: Mapping[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """Direction [hidden] of length 1 and threshold [] of a condition on the prompt."""

    def only(self, layers: Collection[int]) -> Fit:
        """Return the part for some layers."""

        def cut(found: Mapping[int, Any]) -> dict[int, Any]:
            return {layer: value for layer, value in found.items() if layer in layers}

        return replace(
            self,
            directions=cut(self.directions),
            offsets=cut(self.offsets),
            gates=cut(self.gates),
            conditions=cut(self.conditions),
        )

    def save(self, folder: Path, *, base: str = "") -> None:
        """Write the file.

        Args:
            folder: Target folder.
            base: Hash of the model that it is for, by which that model is recognised (`base_of`).
        """
        from safetensors.torch import save_file

        tensors: dict[str, Tensor] = {}
        for layer, direction in self.directions.items():
            tensors[f"direction.{layer}"] = direction
        for layer, offset in self.offsets.items():
            tensors[f"offset.{layer}"] = offset
        for layer, (weight, bias) in self.gates.items():
            tensors[f"gate.weight.{layer}"], tensors[f"gate.bias.{layer}"] = weight, bias
        for layer, (direction, threshold) in self.conditions.items():
            tensors[f"condition.{layer}"], tensors[f"condition.threshold.{layer}"] = direction, threshold
        folder.mkdir(parents=True, exist_ok=True)
        own = {name: t.detach().float().cpu().contiguous().clone() for name, t in tensors.items()}
        save_file(own, folder / FILE, {"base": base})

    @classmethod
    def load(cls, folder: Path, *, hidden: int, layers: int) -> Fit:
        """Read the file from an untrusted folder.

        Args:
            folder: Folder of the file.
            hidden: Hidden size of the model that it is for.
            layers: Number of decoder layers of that model.

        Raises:
            EvenhandError: It cannot be read, or contains what `save` does not write for such a model. Names, types and
                sizes are checked before a tensor is read.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(folder / FILE, "pt") as opened:
                names = list(opened.keys())
                for name in names:
                    part = opened.get_slice(name)
                    _check(folder, name, part.get_dtype(), part.get_shape(), hidden, layers)
                found = {name: opened.get_tensor(name) for name in names}
        except (OSError, SafetensorError) as error:
            raise EvenhandError(f"cannot read {folder / FILE}: {error}") from error
        return cls._of(found, folder)

    @classmethod
    def _of(cls, found: Mapping[str, Tensor], folder: Path) -> Fit:
        for name, tensor in found.items():
            if not bool(torch.isfinite(tensor).all()):
                raise malformed(folder, f"{name} is not finite")

        def of(kind: str) -> dict[int, Tensor]:
            return {layer: found[name] for name in found for own, layer in [_parted(name)] if own == kind}

        directions, weights, biases = of("direction"), of("gate.weight"), of("gate.bias")
        conditions, thresholds = of("condition"), of("condition.threshold")
        if not directions:
            raise malformed(folder, "it has no direction")
        if weights.keys() != biases.keys() or conditions.keys() != thresholds.keys():
            raise malformed(folder, "a gate or condition is not complete")
        gates = {layer: (weights[layer], biases[layer]) for layer in weights}
        return cls(directions, of("offset"), gates, {n: (conditions[n], thresholds[n]) for n in conditions})


def base_of(folder: Path) -> str:
    """Return the hash of the model that a folder's fit is for; "" if the file does not contain it.

    Raises:
        EvenhandError: The file cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / FILE, "pt") as opened:
            return str((opened.metadata() or {}).get("base", ""))
    except (OSError, SafetensorError) as error:
        raise EvenhandError(f"cannot read {folder / FILE}: {error}") from error


def malformed(folder: Path, why: str) -> EvenhandError:
    """Return the error for a file that evenhand has not written."""
    return EvenhandError(f"{folder / FILE} is not as evenhand writes it: {why}; save the model again")


def _parted(name: str) -> tuple[str, int]:
    kind, _, layer = name.rpartition(".")
    return kind, int(layer) if layer.isascii() and layer.isdigit() and len(layer) < 6 else -1


def _check(folder: Path, name: str, dtype: str, shape: list[int], hidden: int, layers: int) -> None:
    """Refuse a tensor before it is read."""
    kind, layer = _parted(name)

    def wrong(why: str) -> EvenhandError:
        return malformed(folder, f"{name} {why}")

    if kind not in SHAPES or layer < 0:
        raise wrong("is not known")
    if layer >= layers:
        raise wrong(f"is of layer {layer}, but the model has {layers}")
    if dtype != "F32":
        raise wrong(f"is {dtype}, not F32")
    if len(shape) != SHAPES[kind] or (shape and shape[-1] != hidden):
        raise wrong(f"has the shape {tuple(shape)}, but the model's hidden size is {hidden}")
    if len(shape) == 2 and not 0 < shape[0] <= MOST_DIRECTIONS:
        raise wrong(f"has {shape[0]} directions")
