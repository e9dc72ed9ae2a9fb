"""An edit of a model as the vectors that it changed: saved beside the model, put on, added to others and taken off."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from evenhand.errors import EvenhandError, SettingsError
from evenhand.methods.unlearning._pcgu.partition import Part, Partition

KEYS = ("index", "before", "change")


@dataclass(frozen=True)
class Vectors:
    """The changed vectors of one parameter."""

    over: tuple[int, ...]
    """Dimensions that a vector runs over; the others count them."""
    index: Tensor
    """[n] which vectors, counted in C order."""
    before: Tensor
    """[n, length] as they were, in the model's own precision: what makes taking off exact."""
    change: Tensor
    """[n, length] float32, to be added."""


@dataclass(frozen=True)
class Delta:
    """A sparse edit. `before` + `change`, summed in float32, is what the edited model has there."""

    vectors: Mapping[str, Vectors]
    """By parameter; those that are not changed are not there."""
    facts: dict[str, Any] = field(default_factory=dict)
    """How it was made. JSON values only."""

    @property
    def size(self) -> int:
        """Number of changed vectors."""
        return sum(len(v.index) for v in self.vectors.values())

    def apply(self, module: nn.Module, scale: float = 1.0) -> None:
        """Write the edit into a module that has the weights that it was made from.

        Args:
            module: The untouched base, in any precision; it is changed in place.
            scale: Times the change.

        Raises:
            SettingsError: The module is another one, or has been edited already; then it is not touched.
        """
        self._put(module, lambda v: v.before, lambda v: _sum(v, scale), "is not as it was when the edit was made")

    def remove(self, module: nn.Module, scale: float = 1.0) -> None:
        """Take the edit off, bit for bit.

        Args:
            module: A module on which `apply` was the last to write.
            scale: As it was applied.

        Raises:
            SettingsError: The module does not have the edit, or has been edited since; then it is not touched.
        """
        self._put(module, lambda v: _sum(v, scale), lambda v: v.before, "does not have this edit, or another on top")

    def save(self, file: Path) -> None:
        """Write one safetensors file."""
        from safetensors.torch import save_file

        tensors = {f"{key}/{name}": getattr(v, key).contiguous() for name, v in self.vectors.items() for key in KEYS}
        over = {name: v.over for name, v in self.vectors.items()}
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, file, {"over": json.dumps(over), "facts": json.dumps(self.facts)})

    @staticmethod
    def load(file: Path) -> Delta:
        """Read what `save` wrote.

        Raises:
            EvenhandError: The file is not there, or is none.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(file, "pt") as content:
                about = content.metadata()
                over = json.loads(about["over"])
                vectors = {
                    name: Vectors(tuple(dims), *(content.get_tensor(f"{key}/{name}") for key in KEYS))
                    for name, dims in over.items()
                }
                return Delta(vectors, dict(json.loads(about["facts"])))
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise EvenhandError(f"cannot read the edit {file}: {error}") from error

    def _put(
        self, module: nn.Module, expected: Callable[[Vectors], Tensor], fresh: Callable[[Vectors], Tensor], wrong: str
    ) -> None:
        parameters = dict(module.named_parameters())
        for name, v in self.vectors.items():
            p = parameters.get(name)
            if p is None or not torch.equal(_taken(p.detach(), v), expected(v).to(p.device, p.dtype)):
                raise SettingsError(f"{name} {wrong}; load the model that the edit is for")
        with torch.no_grad():
            for name, v in self.vectors.items():
                _place(parameters[name], v, fresh(v))


def write(tensor: Tensor, vectors: Vectors) -> None:
    """Put the edited vectors into a whole tensor of the base; summed in float32, rounded to the tensor's precision."""
    _place(tensor, vectors, vectors.before.to(torch.float32) + vectors.change)


def combined(deltas: Sequence[Delta], weights: Sequence[float] | None = None) -> Delta:
    """One edit that is the weighted sum of several of one and the same base.

    Raises:
        SettingsError: They are of different bases, or part a parameter differently.
    """
    weights = [1.0] * len(deltas) if weights is None else list(weights)
    names = dict.fromkeys(name for d in deltas for name in d.vectors)
    out = {}
    for name in names:
        some = [(d.vectors[name], w) for d, w in zip(deltas, weights, strict=True) if name in d.vectors]
        out[name] = _added(name, some)
    return Delta(out, {"of": [{"weight": w, **d.facts} for d, w in zip(deltas, weights, strict=True)]})


def between(parts: Partition, base: Iterable[Tensor], edited: Iterable[Tensor], facts: dict[str, Any]) -> Delta:
    """The edit that leads from one state of a model to another.

    Args:
        parts: The partition by which it was edited.
        base: Whole parameters in its order, on the CPU, in the model's own precision.
        edited: The same in float32; None where this rank is not the one that keeps the edit.
        facts: How it was made.
    """
    found = {}
    for part, old, new in zip(parts, base, edited, strict=True):
        if vectors := _changed(part, old, new):
            found[part.name] = vectors
    return Delta(found, facts)


def _changed(part: Part, old: Tensor, new: Tensor) -> Vectors | None:
    change = new.to(torch.float32) - old.to(torch.float32)
    flat = _by_vector(change, part.over)
    index = torch.nonzero((flat != 0).any(dim=1)).flatten()
    if not len(index):
        return None
    return Vectors(part.over, index, _by_vector(old, part.over)[index].clone(), flat[index].clone())


def _by_vector(tensor: Tensor, over: tuple[int, ...]) -> Tensor:
    """[vectors, length] of a whole parameter."""
    kept = [d for d in range(tensor.dim()) if d not in over]
    count = 1
    for d in kept:
        count *= tensor.shape[d]
    return tensor.permute((*kept, *over)).reshape(count, -1)


def _taken(p: Tensor, v: Vectors) -> Tensor:
    return _by_vector(p, v.over)[v.index.to(p.device)]


def _place(p: Tensor, v: Vectors, values: Tensor) -> None:
    """Write vectors into a parameter."""
    kept = [d for d in range(p.dim()) if d not in v.over]
    view = p.data.permute((*kept, *v.over))
    fresh = values.to(p.device, p.dtype)
    if not kept:
        view.copy_(fresh.reshape(view.shape))
        return
    at = torch.unravel_index(v.index.to(p.device), [p.shape[d] for d in kept])
    view[at] = fresh.reshape(len(v.index), *[p.shape[d] for d in v.over])


def _sum(v: Vectors, scale: float) -> Tensor:
    """[n, length] edited vectors in the precision of the base."""
    return (v.before.to(torch.float32) + scale * v.change).to(v.before.dtype)


def _added(name: str, some: Sequence[tuple[Vectors, float]]) -> Vectors:
    over = some[0][0].over
    if any(v.over != over for v, _ in some):
        raise SettingsError(f"{name} is edited by rows in one of them and by columns in another; these do not add up")
    index = torch.unique(torch.cat([v.index for v, _ in some]))
    before = torch.zeros(len(index), some[0][0].before.shape[1], dtype=some[0][0].before.dtype)
    change = torch.zeros(before.shape)
    known = torch.zeros(len(index), dtype=torch.bool)
    for v, weight in some:
        at = torch.searchsorted(index, v.index)
        both = known[at]
        if not torch.equal(before[at][both], v.before[both]):
            raise SettingsError(f"{name}: the edits were made from different weights; they do not add up")
        before[at], known[at] = v.before, True
        change[at] += weight * v.change
    return Vectors(over, index, before, change)
