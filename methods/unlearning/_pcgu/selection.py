"""Select the vectors to edit: the cosine of two gradients per vector, and the k lowest of all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor

from evenhand.errors import DivergedError, SettingsError
from evenhand.methods.unlearning._pcgu.partition import Part, Partition

if TYPE_CHECKING:
    from evenhand.methods.unlearning._pcgu.fsdp import World

BINS = 20
"""Number of bins in the histogram of cosines, from -1 to 1."""
NO_GRADIENT = 2.0
"""Stands for a missing cosine."""
ZeroRows = Literal["masked", "kept"]


class Similarities(NamedTuple):
    """Similarities of all vectors of a partition; the same on every rank."""

    cosine: Tensor
    """[m] float32; 0 where a gradient is 0."""
    live: Tensor
    """[m] whether neither gradient is 0."""


def products(part: Part, one: Tensor, other: Tensor) -> Tensor:
    """Return [3, vectors] of a shard: g1.g2, |g1|^2 and |g2|^2 of each vector, or of its local part."""
    one, other = (g.to(torch.promote_types(g.dtype, torch.float32)) for g in (one, other))
    return torch.stack([part.sums(v).flatten() for v in (one * other, one * one, other * other)])


def cosines(statistics: Tensor, eps: float = 0.0) -> Similarities:
    """Compute cosines from [3, n] products; a vector whose gradient is 0 on either side has cosine 0, as in torch.

    Args:
        statistics: Result of `products`.
        eps: Shorter gradients are divided by this instead of by their norm (`torch.nn.functional.cosine_similarity`).
    """
    dot, *squares = statistics
    norms = [s.sqrt() for s in squares]
    live = (norms[0] > 0) & (norms[1] > 0)
    norms = [norm.clamp_min(eps) for norm in norms]
    cosine = torch.where(live, dot / norms[0] / norms[1], 0.0)  # the product of two small norms is 0
    return Similarities(cosine.clamp(-1.0, 1.0).float(), live)


def similarities(
    parts: Partition, one: Mapping[str, Tensor], other: Mapping[str, Tensor], world: World, eps: float = 0.0
) -> Similarities:
    """Compute the cosines of two gradients, by vector.

    Args:
        parts: The partition.
        one: Gradients by parameter, whole or this rank's shards; parameters without gradient are absent.
        other: The same for the other side.
        world: The ranks of the shards.
        eps: See `cosines`.

    Raises:
        DivergedError: A gradient is not finite.
    """
    found = [_products(p, one.get(p.name), other.get(p.name), world) for p in parts]
    summed = world.total([s for p, s in zip(parts, found, strict=True) if p.across])
    ready = iter(summed)
    here = [_packed(next(ready) if p.across else s, eps) for p, s in zip(parts, found, strict=True)]
    packed = world.joined(parts, here)
    if bool(packed.isnan().any()):
        broken = parts.of(int(torch.nonzero(packed.isnan())[0]))
        raise DivergedError(f"the gradient of {broken.name} is no longer finite")
    live = packed != NO_GRADIENT
    return Similarities(packed.masked_fill(~live, 0.0), live)


def _packed(statistics: Tensor, eps: float) -> Tensor:
    """Return [n] float32, one number to send per vector: the cosine, `NO_GRADIENT`, or nan."""
    found = cosines(statistics, eps)
    packed = found.cosine.masked_fill(~found.live, NO_GRADIENT)
    return packed.masked_fill(~torch.isfinite(statistics).all(dim=0), torch.nan)


def _products(part: Part, one: Tensor | None, other: Tensor | None, world: World) -> Tensor:
    if one is not None and other is not None and one.numel():
        return products(part, one, other)
    rows = world.rows(part)
    count = part.count if part.across else part.count // part.shape[0] * (rows[1] - rows[0])
    return torch.zeros(3, count, device=world.device)


def lowest(found: Similarities, count: int, *, zero_rows: ZeroRows = "masked") -> Tensor:
    """Return [m] booleans: the `count` vectors of lowest cosine; for equal ones those of lower index.

    Args:
        found: Similarities of all vectors.
        count: Number of vectors, 0 to m.
        zero_rows: "masked" leaves out vectors without gradient, so that fewer than `count` may be chosen; "kept" lets
            them in with cosine 0, below every positive one, though there is nothing to learn from them.

    Raises:
        SettingsError: `count` is out of range.
    """
    if not 0 <= count <= len(found.cosine):
        raise SettingsError(f"{count} vectors of {len(found.cosine)} cannot be chosen")
    value = found.cosine if zero_rows == "kept" else found.cosine.masked_fill(~found.live, torch.inf)
    order = torch.sort(value, stable=True).indices[:count]
    chosen = torch.zeros_like(found.live)
    chosen[order] = True
    return chosen & found.live if zero_rows == "masked" else chosen


def drawn(found: Similarities, count: int, seed: str) -> Tensor:
    """Return [m] booleans: equally many vectors with a gradient, drawn at random; a control for `lowest`."""
    generator = torch.Generator().manual_seed(Random(seed).getrandbits(62))
    order = torch.randperm(len(found.live), generator=generator).to(found.live.device)
    order = order[found.live[order]][:count]
    chosen = torch.zeros_like(found.live)
    chosen[order] = True
    return chosen


def wanted(found: Similarities, share: float, k: int | None, zero_rows: ZeroRows) -> int:
    """Return how many vectors a step edits: k, or a share of all (of those with a gradient if others are masked)."""
    every = len(found.live)
    if k is not None:
        return min(k, every)
    return round(share * (int(found.live.sum()) if zero_rows == "masked" else every))


class Diagnosis:
    """Summary of the chosen vectors over steps."""

    def __init__(self, parts: Partition) -> None:
        """Start with empty counts."""
        self.parts, self.steps = parts, 0
        self._chosen = [0] * len(parts)
        self._live = [0] * len(parts)
        self._dead_chosen = 0
        self._cosines = torch.zeros(2, BINS)

    def add(self, found: Similarities, chosen: Tensor) -> None:
        """Count one step."""
        self.steps += 1
        for n, p in enumerate(self.parts):
            self._chosen[n] += int(chosen[p.first : p.first + p.count].sum())
            self._live[n] += int(found.live[p.first : p.first + p.count].sum())
        self._dead_chosen += int((chosen & ~found.live).sum())
        for n, which in enumerate((found.live, found.live & chosen)):
            self._cosines[n] += torch.histc(found.cosine[which].cpu(), BINS, -1, 1)

    def state(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "steps": self.steps,
            "chosen": self._chosen,
            "live": self._live,
            "dead_chosen": self._dead_chosen,
            "cosines": self._cosines.tolist(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state`."""
        self.steps, self._dead_chosen = state["steps"], state["dead_chosen"]
        self._chosen, self._live = list(state["chosen"]), list(state["live"])
        self._cosines = torch.tensor(state["cosines"])

    def facts(self) -> dict[str, object]:
        """Return facts for reports: shares of the vectors, over all steps. JSON values only."""
        every = self.parts.size * max(1, self.steps)
        chosen, live = sum(self._chosen), sum(self._live)
        edges = [round(-1 + 2 * n / BINS, 2) for n in range(BINS + 1)]
        return {
            "steps": self.steps,
            "vectors": self.parts.size,
            "chosen_share": chosen / every,
            "zero_share": 1 - live / every,
            "zero_share_of_chosen": self._dead_chosen / chosen if chosen else 0.0,
            "cosine_edges": edges,
            "cosines": self._cosines[0].int().tolist(),
            "cosines_of_chosen": self._cosines[1].int().tolist(),
            "by_layer": _by_layer(self.parts, self._chosen, self._live),
        }


def _by_layer(parts: Partition, chosen: Sequence[int], live: Sequence[int]) -> dict[str, dict[str, int]]:
    """Count chosen vectors and those with a gradient by layer, in the order of the model."""
    out: dict[str, dict[str, int]] = {}
    for p, taken, alive in zip(parts, chosen, live, strict=True):
        row = out.setdefault(layer_of(p.name), {"chosen": 0, "live": 0})
        row["chosen"] += taken
        row["live"] += alive
    return out


def layer_of(name: str) -> str:
    """Return the layer of a parameter: its name up to the first number, or that of its module."""
    words = name.split(".")
    at = next((n for n, word in enumerate(words) if word.isdigit()), None)
    return ".".join(words[:-1] if at is None else words[: at + 1]) or name
