"""Rows of a prefix trie: a prefix that sequences share is fed once, and its gradients add up by themselves.

The attention mask lets each token of a row attend to its ancestors in the trie. The model and its attention are not
changed, so gradient checkpointing, adapters and sharded weights work as usual. Tokens that nothing is predicted from,
such as the last one of each sequence, are not fed.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt
from typing import NamedTuple

import torch
from torch import Tensor

from evenhand.inference.prefix_trie import Pack, sorted_with_shared
from evenhand.training.trie_attention import parts_of
from evenhand.training.trie_mask import TrieMask

TOKEN_CELLS = 2048
"""Attention cells that cost about as much as feeding a token: 6 times the width of a Llama, 3,456 in SmolLM-135M."""

Ids = Sequence[int]


class Needed(NamedTuple):
    """The tokens that the losses of some sequences need."""

    ids: list[Ids]
    """Tokens of each sequence to feed: up to the one that its last label is predicted from."""
    which: list[int]
    """Index of each sequence; those without labels are left out."""


def needed(sequences: Sequence[Ids], labels: Sequence[Ids], ignored: int, which: Sequence[int]) -> Needed:
    """Cut sequences after the token that the last label is predicted from.

    Args:
        sequences: Token ids.
        labels: A label for every token.
        ignored: Label of tokens that are not predicted.
        which: Indices of the sequences to look at.
    """
    ends = {n: max((at for at, label in enumerate(labels[n]) if at and label != ignored), default=0) for n in which}
    kept = [n for n in which if ends[n]]
    return Needed([sequences[n][: ends[n]] for n in kept], kept)


def tries(sequences: Sequence[Ids], room: int) -> list[Pack]:
    """Group sequences by shared prefixes, if that saves more than the longer row costs in attention.

    Args:
        sequences: Token ids, at least one each.
        room: Maximum number of nodes in a trie; a longer sequence is a trie of its own.

    Returns:
        Tries whose rows are indices of the sequences, each in one of them.
    """
    found: list[Pack] = []
    for row, shared in sorted_with_shared(sequences):
        ids = sequences[row]
        if not found or not _joins(len(found[-1].tokens), len(ids), shared, room):
            found.append(Pack())
            shared = 0
        found[-1].add(row, list(ids), shared)
    return found


def longest_trie(length: int, tokens: int, eager: bool) -> int:
    """Return the maximum number of nodes in a trie, so that a batch needs no more memory than rows of `length` tokens.

    Args:
        length: Tokens in a row of several sequences.
        tokens: Tokens in a batch.
        eager: Whether the attention stores its weights, one number per cell of a row.
    """
    return min(tokens, max(length, isqrt(length * tokens))) if eager else tokens


def _joins(nodes: int, size: int, shared: int, room: int) -> bool:
    more = size - shared
    if not more:
        return True
    cells = (nodes + more) ** 2 - nodes**2 - size**2
    return nodes + more <= room and cells <= TOKEN_CELLS * shared


class Fed(NamedTuple):
    """Rows of tries as tensors."""

    ids: Tensor
    """[rows, length], 0 at padding."""
    positions: Tensor
    """[rows, length] position of each token in its sequences."""
    mask: Tensor
    """[rows, 1, length, length] to be added to the attention: 0 for a token itself and its ancestors."""
    paths: dict[int, Tensor]
    """Nodes of each sequence, by its index, as places in the flattened rows."""


def fed(rows: Sequence[Sequence[Pack]], dtype: torch.dtype) -> Fed:
    """Lay tries out as tensors.

    Args:
        rows: The tries of each row.
        dtype: Data type of the mask.
    """
    longest = max(sum(len(trie.tokens) for trie in row) for row in rows)
    ids, positions = (torch.zeros((len(rows), longest), dtype=torch.long) for _ in range(2))
    seen = torch.eye(longest, dtype=torch.bool).repeat(len(rows), 1, 1)
    paths: dict[int, Tensor] = {}
    for r, row in enumerate(rows):
        start = 0
        for trie in row:
            end = start + len(trie.tokens)
            ids[r, start:end], positions[r, start:end] = torch.tensor(trie.tokens), torch.tensor(trie.positions)
            _see(seen[r, start:end, start:end], trie)
            places = r * longest + start
            paths |= {n: torch.from_numpy(path) + places for n, path in zip(trie.rows, trie.paths, strict=True)}
            start = end
    mask = torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, torch.finfo(dtype).min)
    return Fed(ids, positions, TrieMask.of(mask[:, None], parts_of(rows, longest)), paths)


def _see(seen: Tensor, trie: Pack) -> None:
    """Let each node of a trie attend to its path."""
    for run in trie.runs:
        first, last = int(run.own[0]), int(run.own[-1]) + 1
        seen[first:last, torch.from_numpy(run.path[: run.depth])] = True
        seen[first:last, first:last] = torch.ones(last - first, last - first, dtype=torch.bool).tril()


def read_places(labels: Ids, ignored: int) -> list[int]:
    """Return the positions that have a label, and those of the tokens that these are predicted from, ascending."""
    counted = [at for at, label in enumerate(labels) if at and label != ignored]
    return sorted({place for at in counted for place in (at - 1, at)})


def drops_out(module: torch.nn.Module) -> bool:
    """Whether a model drops activations at random while it trains: by a layer, an adapter, or within its attention."""
    return any(_rate(part) > 0 for part in module.modules())


def _rate(part: torch.nn.Module) -> float:
    """Return the highest dropout rate of a part, as a layer or in an attribute of its own, such as an attention's."""
    if isinstance(part, torch.nn.modules.dropout._DropoutNd):
        return float(part.p)
    rates = (value for name, value in vars(part).items() if "drop" in name and isinstance(value, float))
    return max(rates, default=0.0)
