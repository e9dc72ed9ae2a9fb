"""Hidden states of many sequences: means by group, on which directions are fitted, or all states.

A mean is accumulated batch by batch in float64 and needs memory only for groups x layers x hidden numbers. All states
need sequences x layers x hidden numbers in float32: for 30,000 sequences, one layer and 4,096 coordinates, 0.5 GB.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from evenhand.errors import SettingsError
from evenhand.inference.decoder_layers import hidden_size
from evenhand.inference.encoder import EncoderEngine
from evenhand.inference.engine import Engine
from evenhand.inference.layer_reading import Asked, read_layers

Group = TypeVar("Group", bound=Hashable)

MAX_BYTES = 2_000_000_000
"""Default limit of the memory for the result of `states`, in bytes."""


@dataclass(frozen=True, eq=False)
class GroupMean:
    """The mean state of a group of sequences."""

    count: int
    """Number of sequences in the group."""
    weight: float
    """Sum of their weights; `count` without weights."""
    mean: Tensor
    """Mean, [layers, hidden], float64 on the CPU, with layers in the requested order."""


def mean_states(
    engine: Engine | EncoderEngine,
    sequences: Sequence[Sequence[int]],
    positions: Sequence[Sequence[int]],
    layers: Sequence[int],
    groups: Sequence[Group],
    weights: Sequence[float] | None = None,
    prompt_lengths: Sequence[int] | None = None,
) -> dict[Group, GroupMean]:
    """Compute mean hidden states at the outputs of layers, by group, accumulated in float64.

    Args:
        engine: Engine of the model; if it edits activations, the states are those after the edits.
        sequences: Token ids, at least one each; common beginnings are fed once.
        positions: For each sequence, the positions whose states represent it; several are averaged first, so that each
            sequence counts once.
        layers: Layers, counted from 0, without repetition.
        groups: Group of each sequence.
        weights: Weight of each sequence in the mean; None gives all the same.
        prompt_lengths: Number of prompt tokens of each sequence, which sets where edits of scope `answer` and `after`
            begin; None ends each prompt at the first position that is read.

    Raises:
        SettingsError: Positions or layers do not exist, or the weights of a group sum to 0.
        EvenhandError: States are not finite.
    """
    if len(groups) != len(sequences) or (weights is not None and len(weights) != len(sequences)):
        raise SettingsError(
            f"{len(sequences)} sequences need as many groups and weights; {len(groups)} groups were given"
        )
    names = list(dict.fromkeys(groups))
    number = {name: n for n, name in enumerate(names)}
    each = torch.ones(len(sequences), dtype=torch.float64) if weights is None else torch.tensor(weights).double()
    share = torch.zeros(len(names), len(sequences), dtype=torch.float64)
    owners = torch.tensor([number[group] for group in groups], dtype=torch.long)
    totals = torch.zeros(len(names), dtype=torch.float64).index_add_(0, owners, each)
    if empty := [name for name, total in zip(names, totals.tolist(), strict=True) if total == 0]:
        raise SettingsError(f"the weights of group {empty[0]!r} sum to 0, so it has no mean")
    share[owners, torch.arange(len(sequences))] = each / totals[owners]
    sums = _Sums(share)
    if sequences:
        read_layers(Asked(engine, sequences, positions, layers, prompt_lengths), sums)
    counts = torch.bincount(owners, minlength=len(names)).tolist()
    return {
        name: GroupMean(counts[n], float(totals[n]), torch.stack([sums.total[layer][n] for layer in layers]))
        for n, name in enumerate(names)
    }


def states(
    engine: Engine | EncoderEngine,
    sequences: Sequence[Sequence[int]],
    positions: Sequence[Sequence[int]],
    layers: Sequence[int],
    *,
    max_bytes: int = MAX_BYTES,
    prompt_lengths: Sequence[int] | None = None,
) -> Tensor:
    """Return hidden states at layer outputs, [sequences, layers, hidden], float32 on the CPU, in the given order.

    Args:
        engine: See `mean_states`.
        sequences: See `mean_states`.
        positions: See `mean_states`; several positions of a sequence are averaged.
        layers: See `mean_states`.
        max_bytes: Limit of the memory for the result, in bytes; a larger result is refused.
        prompt_lengths: See `mean_states`.

    Raises:
        SettingsError: Positions or layers do not exist, or the result exceeds `max_bytes`.
        EvenhandError: States are not finite.
    """
    asked, size = Asked(engine, sequences, positions, layers, prompt_lengths), hidden_size(engine.module)
    needed = 4 * len(sequences) * len(layers) * size
    if needed > max_bytes:
        raise SettingsError(
            f"the states of {len(sequences)} sequences at {len(layers)} layers take {needed / 1e9:.1f} GB, more than "
            f"max_bytes={max_bytes}: read fewer layers at a time, or use the means (mean_states)"
        )
    rows = _Rows(torch.zeros(len(sequences), len(layers), size), list(layers))
    if sequences:
        read_layers(asked, rows)
    return rows.out


class _Sums:
    """A sink for weighted sums by group."""

    def __init__(self, share: Tensor) -> None:
        """Set each sequence's share in the mean of each group, [groups, sequences], float64."""
        self._share = share
        self._rows: list[int] = []
        self._batch: dict[int, Tensor] = {}
        self.total: dict[int, Tensor] = {}
        """Sums, [groups, hidden], by layer."""

    def begin(self, rows: Sequence[int]) -> None:
        self._rows, self._batch = list(rows), {}

    def take(self, layer: int, states: Tensor) -> None:
        self._batch[layer] = self._share[:, self._rows] @ states.double()

    def end(self) -> None:
        for layer, sums in self._batch.items():
            self.total[layer] = self.total[layer] + sums if layer in self.total else sums


class _Rows:
    """A sink that stores all states, each in its place."""

    def __init__(self, out: Tensor, layers: list[int]) -> None:
        """Set the table to fill, [sequences, layers, hidden]."""
        self.out, self._layers = out, layers
        self._rows: list[int] = []

    def begin(self, rows: Sequence[int]) -> None:
        self._rows = list(rows)

    def take(self, layer: int, states: Tensor) -> None:
        for at, known in enumerate(self._layers):
            if known == layer:
                self.out[self._rows, at] = states.float()

    def end(self) -> None:
        pass
