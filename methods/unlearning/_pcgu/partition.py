"""Partition a model's parameters into vectors: rows or columns of every matrix, and each 1-D parameter whole.

A partition only states which dimensions of a parameter a vector spans; so dot products, masks and updates are
a sum or a broadcast each, whatever the layout, and nothing is indexed vector by vector.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Literal

from evenhand.errors import SettingsError, suggest

if TYPE_CHECKING:
    from torch import Tensor, nn

Axis = Literal["row", "column"]
AXES: tuple[Axis, ...] = ("row", "column")


@dataclass(frozen=True)
class Part:
    """One parameter of a partition."""

    name: str
    shape: tuple[int, ...]
    """Shape of the whole parameter, wherever its shards are."""
    over: tuple[int, ...]
    """Dimensions that a vector spans; the others count the vectors, in C order."""
    first: int
    """Global index of its first vector."""

    @property
    def kept(self) -> tuple[int, ...]:
        """Dimensions that count the vectors."""
        return tuple(d for d in range(len(self.shape)) if d not in self.over)

    @property
    def count(self) -> int:
        """Number of vectors."""
        return prod(self.shape[d] for d in self.kept)

    @property
    def across(self) -> bool:
        """Whether vectors span the first dimension, so that each shard contains a part of each."""
        return not self.shape or 0 in self.over

    def sums(self, values: Tensor) -> Tensor:
        """Sum over each vector, keeping the dimensions so that it broadcasts; a shard gives the sums of its part."""
        return values.sum(self.over, keepdim=True) if self.over else values

    def mask(self, chosen: Tensor, rows: tuple[int, int]) -> Tensor:
        """Return which vectors of a shard are chosen, in a shape that broadcasts over it.

        Args:
            chosen: [m] booleans for all vectors of the model.
            rows: First and last + 1 index of the shard in the first dimension; not used if vectors span it.
        """
        own = chosen[self.first : self.first + self.count]
        sizes = [1 if d in self.over else n for d, n in enumerate(self.shape)]
        if self.across or not self.shape:
            return own.reshape(sizes)
        return own.reshape(sizes)[rows[0] : rows[1]]


class Partition:
    """All vectors of a model, numbered from 0 in the order of its parameters."""

    def __init__(self, parts: Sequence[Part]) -> None:
        """Take consecutive parts."""
        self._parts = tuple(parts)
        self._firsts = [p.first for p in self._parts]

    @property
    def size(self) -> int:
        """Number of vectors, m."""
        return sum(p.count for p in self._parts)

    def of(self, index: int) -> Part:
        """Return the part that contains a vector."""
        return self._parts[bisect_right(self._firsts, index) - 1]

    def __len__(self) -> int:
        """Return the number of parameters."""
        return len(self._parts)

    def __iter__(self) -> Iterator[Part]:
        """Iterate over the parameters in order."""
        return iter(self._parts)


def partition(module: nn.Module, axis: Axis = "row", *, as_stored: bool = False, embeddings: bool = True) -> Partition:
    """Partition a module's trainable parameters into vectors; only names and shapes are read, even on a meta device.

    A row is what makes one output of a linear layer: `weight[i]` of `nn.Linear` (out, in), but `weight[:, i]` of the
    transposed `Conv1D` (in, out) of GPT-2. In embeddings a row is a token's vector, in convolutions an output channel.
    Stacked matrices (experts, [E, out, in]) are partitioned one by one. Tied parameters count once.

    Args:
        module: Any module, sharded or not.
        axis: "row" (Yu et al. 2023: "input aggregation") or "column" ("output aggregation").
        as_stored: Take `Conv1D` as it is stored, as the code released with the paper does: its rows then differ from
            those of other layers.
        embeddings: Whether the input and output embeddings are included.

    Raises:
        SettingsError: The axis is unknown, or nothing is left to partition.
    """
    if axis not in AXES:
        raise SettingsError(f"unknown axis {axis!r}. {suggest(axis, AXES)}")
    apart = set() if embeddings else _embeddings(module)
    turned, convolutions = _special(module)
    parts: list[Part] = []
    first = 0
    for name, p in module.named_parameters():
        if not p.requires_grad or id(p) in apart:
            continue
        across = (axis == "row") == (id(p) in turned and not as_stored)
        part = Part(name, tuple(p.shape), _over(p.dim(), across=across, channels=id(p) in convolutions), first)
        parts.append(part)
        first += part.count
    if not parts:
        raise SettingsError("the model has no parameters that could be edited")
    return Partition(parts)


def _over(dims: int, *, across: bool, channels: bool) -> tuple[int, ...]:
    """Return the dimensions of a vector: the first of the last two (a column) or the last (a row)."""
    if dims < 2:
        return tuple(range(dims))
    if channels:
        return tuple(d for d in range(dims) if d != (1 if across else 0))
    return (dims - 2,) if across else (dims - 1,)


def _special(module: nn.Module) -> tuple[set[int], set[int]]:
    """Return parameters that are stored (in, out), and those of convolutions."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    parts = list(module.modules())
    turned = {id(m.weight) for m in parts if isinstance(m, Conv1D)}
    return turned, {id(m.weight) for m in parts if isinstance(m, kinds)}


def _embeddings(module: nn.Module) -> set[int]:
    from torch import nn

    found = [m for m in module.modules() if isinstance(m, nn.Embedding)]
    for get in ("get_input_embeddings", "get_output_embeddings"):
        layer = getattr(module, get, lambda: None)()
        found += [layer] if layer is not None else []
    return {id(p) for m in found for p in m.parameters(recurse=False)}
