"""What tests of activation edits share: edits of every kind, and a plain forward with a plain hook."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from evenhand.inference import Request
from evenhand.inference.activation_edits import ActivationEdit, LayerEdit, Mode, Scope, TokenGate
from evenhand.inference.decoder_layers import decoder_layers

HIDDEN = 32
LAYER = 0
SCOPES: tuple[Scope, ...] = ("all", "answer", "after")


def vector(seed: int, length: float = 4.0) -> Tensor:
    drawn = torch.randn(HIDDEN, generator=torch.Generator().manual_seed(seed))
    return drawn / drawn.norm() * length


def layer_edit(mode: Mode, *, gated: bool = False, strength: float = 1.0) -> LayerEdit:
    gate = TokenGate(vector(9, 1.0), 0.0, 0.5) if gated else None
    if mode == "ablate":
        return LayerEdit(mode, torch.stack([vector(1), vector(2)]), strength, gate=gate)
    if mode == "project":
        return LayerEdit(mode, vector(1), strength, offset=vector(3), target=2.5, gate=gate)
    return LayerEdit(mode, vector(1), strength, gate=gate)


def edit_of(mode: Mode, scope: Scope, *, gated: bool = False, skip_first: bool = True) -> ActivationEdit:
    return ActivationEdit({LAYER: (layer_edit(mode, gated=gated),)}, scope, skip_first)


def by_hand(one: LayerEdit, row: Tensor) -> Tensor:
    """The formulas of the specification for a single row, in float64."""
    h = row.double()
    if one.gate is not None:
        probability = torch.sigmoid(one.gate.weight.double() @ h + one.gate.bias)
        if probability >= one.gate.threshold:
            return h
    if one.mode == "add":
        return h + one.strength * one.directions[0].double()
    if one.mode == "project":
        u = one.directions[0].double() / one.directions[0].double().norm()
        o = torch.zeros_like(h) if one.offset is None else one.offset.double()
        return h - one.strength * ((h - o) @ u) * u + one.target * u
    left: list[Tensor] = []
    for direction in one.directions.double():  # Gram-Schmidt
        for q in left:
            direction = direction - (direction @ q) * q
        left.append(direction / direction.norm())
    return h - one.strength * sum((h @ q) * q for q in left)


@contextmanager
def hooked(module: Any, layer: int, change: Callable[[int, Tensor], Tensor]) -> Iterator[None]:
    """A plain hook on one layer: `change` gets the position and the row of every token of a forward of one sequence."""

    def hook(_: Any, __: Any, output: Any) -> Any:
        rows = output[0] if isinstance(output, tuple) else output
        made = torch.stack([torch.stack([change(n, row) for n, row in enumerate(text)]) for text in rows])
        made = made.to(rows.dtype)
        return (made, *output[1:]) if isinstance(output, tuple) else made

    handle = decoder_layers(module)[layer].register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def start_of(edit: ActivationEdit, first_read: int) -> int:
    """Where a sequence's edited tokens begin, by the words of the documentation."""
    start = 0 if edit.scope == "all" else first_read if edit.scope == "answer" else first_read + 1
    return max(1, start) if edit.skip_first else start


def edited_logits(module: Any, ids: tuple[int, ...], edit: ActivationEdit, first_read: int) -> Tensor:
    """Logits of one sequence, one by one, with a plain hook, [tokens, vocabulary]."""
    start, edits = start_of(edit, first_read), edit.layers[LAYER]

    def change(position: int, row: Tensor) -> Tensor:
        for one in edits:
            row = by_hand(one, row) if position >= start else row.double()
        return row

    with torch.no_grad(), hooked(module, LAYER, change):
        logits: Tensor = module(torch.tensor([ids])).logits[0].double()
    return logits


def branching(vocabulary: int) -> list[Request]:
    """Requests one of which ends inside another, with other reads of the same ids, and one apart."""
    rng = random.Random(0)
    long = tuple(rng.randrange(7, vocabulary) for _ in range(12))
    fork = (*long[:6], *(rng.randrange(7, vocabulary) for _ in range(5)))
    last = len(long) - 1
    return [
        Request(long, ((last, 8),)),
        Request(long, ((4, 9), (7, 10), (last, 11))),
        Request(long[:7], ((6, 12), (6, 13))),
        Request(long[:5], ((4, 14),)),
        Request(fork, ((5, 9), (len(fork) - 1, 15))),
        Request(fork[:8], ((7, 9),)),
        Request((9, 8, 7), ((0, 8), (2, 9))),
        Request((9,), ((0, 10),)),
    ]
