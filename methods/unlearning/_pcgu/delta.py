"""An edit of a model as the vectors that it changed: it can be saved, applied, added to others and removed."""

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
    """Dimensions that a vector spans; the others count the vectors."""
    index: Tensor
    """[n] indices of the vectors, in C order."""
    before: Tensor
    """[n, length] original values in the model's own precision, which make removal exact."""
    change: Tensor
    """[n, length] float32 values to add."""


@dataclass(frozen=True)
class Delta:
    """A sparse edit: the edited model contains `before` + `change`, summed in float32, at these vectors."""

    vectors: Mapping[str, Vectors]
    """Changed vectors by parameter; unchanged parameters are absent."""
    facts: dict[str, Any] = field(default_factory=dict)
    """How the edit was made. JSON values only."""

    @property
    def size(self) -> int:
        """Number of changed vectors."""
        return sum(len(v.index) for v in self.vectors.values())

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors, which a file of it has about."""
        return sum(t.nbytes for v in self.vectors.values() for t in (v.index, v.before, v.change))

    def apply(self, module: nn.Module, scale: float = 1.0) -> None:
        """Write the edit into a module that has the weights from which it was made.

        Args:
            module: The unedited base, in any precision; it is changed in place.
            scale: Factor on the change.

        Raises:
            SettingsError: The module is another one, or is already edited; then it is not changed.
        """
        self._put(module, lambda v: v.before, lambda v: _sum(v, scale), "is not as it was when the edit was made")

    def remove(self, module: nn.Module, scale: float = 1.0) -> None:
        """Remove the edit, bit for bit.

        Args:
            module: A module that was last changed by `apply`.
            scale: The scale with which it was applied.

        Raises:
            SettingsError: The module does not have the edit, or has been edited since; then it is not changed.
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
            EvenhandError: The file is missing, or is not an edit.
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
    """Write the edited vectors into a whole tensor of the base; summed in float32, rounded to its precision."""
    _place(tensor, vectors, vectors.before.to(torch.float32) + vectors.change)


def combined(deltas: Sequence[Delta], weights: Sequence[float] | None = None) -> Delta:
    """Return the weighted sum of several edits of the same base as one edit.

    Raises:
        SettingsError: They have different bases, or partition a parameter differently.
    """
    weights = [1.0] * len(deltas) if weights is None else list(weights)
    names = dict.fromkeys(name for d in deltas for name in d.vectors)
    out = {}
    for name in names:
        some = [(d.vectors[name], w) for d, w in zip(deltas, weights, strict=True) if name in d.vectors]
        out[name] = _added(name, some)
    return Delta(out, {"of": [{"weight": w, **d.facts} for d, w in zip(deltas, weights, strict=True)]})


def between(parts: Partition, base: Iterable[Tensor], edited: Iterable[Tensor], facts: dict[str, Any]) -> Delta:
    """Return the edit that leads from one state of a model to another.

    Args:
        parts: The partition by which it was edited.
        base: Whole parameters in its order, on the CPU, in the model's own precision.
        edited: The same in float32; None if this rank does not keep the edit.
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
    """Reshape a whole parameter to [vectors, length]."""
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
    """Return [n, length] edited vectors in the precision of the base."""
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
