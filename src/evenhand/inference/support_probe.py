"""The support probe: a model can be run on a tree of tokens if that gives the same as plain forwards."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from math import inf, isnan
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from evenhand.errors import EvenhandError
from evenhand.inference.attention import attending
from evenhand.inference.edit_hooks import edit_here, editing_rows
from evenhand.inference.edited_tokens import first_edited, flags, symbols, token_ids
from evenhand.inference.kv_slots import Slots
from evenhand.inference.prefix_trie import packs
from evenhand.inference.requests import NOT_FINITE
from evenhand.inference.scoring import input_device
from evenhand.inference.tree_forward import Finish, caught, hidden_states

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PROBE = ((3, 5, 7, 4, 6, 9, 8, 5), (3, 5, 7, 4, 6, 2, 9), (3, 5, 7, 8, 8, 2), (3, 5, 7, 8, 8, 4, 1), (4, 3, 9))
"""Sequences of the support probe: nested branches, one sequence that continues another, and a separate one."""
REFUSALS = (RuntimeError, TypeError, ValueError, KeyError, AttributeError, NotImplementedError)
"""Errors of models that cannot be run on a tree."""


class Tried(NamedTuple):
    """Result of the support probe."""

    finish: Finish | None
    """The model's step from raw to final logits; None if the tree cannot be used."""
    reason: str
    """Why the tree cannot be used; "" if it can."""
    continues: bool = False
    """Whether rows can be continued token by token from what the tree has read."""
    finite: bool = True
    """Whether the model gives finite numbers for the sequences of the probe."""


def try_out(module: PreTrainedModel) -> Tried:
    """Probe whether a model gives the same on a tree as sequence by sequence, under the installed activation edit."""
    if "position_ids" not in inspect.signature(inner(module).forward).parameters:
        return Tried(None, "it takes no position ids")
    words = int(module.config.get_text_config().vocab_size)
    asked = [symbols([t % words for t in ids], first_edited(edit_here(), len(ids) // 2)) for ids in PROBE]
    plain = [plain_forward(module, ids) for ids in asked]
    if not all(bool(hidden.isfinite().all()) and bool(logits.isfinite().any()) for hidden, logits in plain):
        return Tried(None, f"its {NOT_FINITE}", finite=False)
    pack = next(packs(asked, 10**6))
    try:
        tree, _ = hidden_states(module, pack, range(1, len(pack.tokens)))  # the first is left out, as most are later
    except (*REFUSALS, EvenhandError) as error:
        return Tried(None, f"it does not run on a tree: {error}")
    for row, path in zip(pack.rows, pack.paths, strict=True):
        read = path > 0
        if not near(tree[torch.from_numpy(path[read] - 1).to(tree.device)], plain[row][0][torch.from_numpy(read)]):
            return Tried(None, "its attention is not that of a plain causal model")
    finish = finish_of(module, *plain[-1])
    if finish is None:
        return Tried(None, "it changes its logits in an unknown way")
    return Tried(finish, "", _continues(module, asked, [hidden[-1:] for hidden, _ in plain]))


def _continues(module: PreTrainedModel, asked: Sequence[Sequence[int]], last: Sequence[Tensor]) -> bool:
    """Return whether the last tokens, fed one per row after a tree of the others, give the right hidden states."""
    pack = next(packs([ids[:-1] for ids in asked], 10**6))
    slots = Slots(len(asked), max(map(len, asked)))
    try:
        _, tree = hidden_states(module, pack, [0], keep=True)
        slots.admit(tree.made, pack.paths)
        last_ones = [asked[row][-1:] for row in pack.rows]
        tokens = torch.tensor([token_ids(one) for one in last_ones], device=input_device(module))
        edited = editing_rows([flags(one) for one in last_ones])
        positions = torch.tensor(slots.positions(), device=tokens.device)[:, None]
        with attending(module, slots), edited, caught(module.get_output_embeddings()) as seen:
            module(input_ids=tokens, position_ids=positions, use_cache=False)
    except (*REFUSALS, EvenhandError):
        return False
    return all(near(made[None], last[row]) for made, row in zip(seen[0], pack.rows, strict=True))


def exact_up_to(module: PreTrainedModel) -> int:
    """Return the maximum length of sequences in a tree: within attention windows and one scale of rotary positions."""
    config = module.config.get_text_config()
    rope = getattr(config, "rope_parameters", None) or {}
    limits = [getattr(config, "sliding_window", None), getattr(config, "attention_chunk_size", None)]
    if rope.get("rope_type") in ("dynamic", "longrope"):  # the frequencies depend on the longest sequence of a batch
        original = rope.get("original_max_position_embeddings")
        limits.append(original or getattr(config, "original_max_position_embeddings", config.max_position_embeddings))
    return min([int(limit) for limit in limits if limit], default=10**9)


def plain_forward(module: PreTrainedModel, ids: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return hidden states before the output embedding, and the last logits, of one sequence of ids or symbols."""
    with caught(module.get_output_embeddings()) as seen, editing_rows([flags(ids)]):
        out = module(input_ids=torch.tensor([token_ids(ids)], device=input_device(module)), use_cache=False)
    return seen[0], out.logits[0, -1]


def near(one: Tensor, other: Tensor) -> bool:
    """Return whether tensors are equal up to rounding; a wrong mask or position makes a far larger difference."""
    return _distance(one, other) < (1e-3 if one.dtype == torch.float32 else 0.1)  # never true for nan


def _distance(one: Tensor, other: Tensor) -> float:
    return float((one.float() - other.float()).norm() / other.float().norm().clamp_min(1e-30))


def finish_of(module: PreTrainedModel, hidden: Tensor, logits: Tensor) -> Finish | None:
    """Determine how a model's logits follow from its output embedding, by comparing all known ways."""
    head: Any = module.get_output_embeddings()
    raw = head(hidden[-1:])[0]
    config = module.config.get_text_config()
    cap = getattr(config, "final_logit_softcapping", None)
    factors = [getattr(config, "logit_scale", None), _inverse(getattr(config, "logits_scaling", None))]
    ways: list[Finish] = [lambda x: x]
    if cap:
        ways.append(lambda x: torch.tanh(x / cap) * cap)
    ways += [lambda x, f=factor: x * f for factor in factors if factor]  # type: ignore[misc]
    known = logits.isfinite()  # tokens that a model forbids have -inf and cannot be compared
    if not known.any():
        return None

    def distance(way: Finish) -> float:
        found = _distance(way(raw)[known], logits[known])
        return inf if isnan(found) else found

    best = min(ways, key=distance)  # small logits are also near under a wrong cap
    return best if near(best(raw)[known], logits[known]) else None


def _inverse(value: float | None) -> float | None:
    return 1 / value if value else None


def inner(module: Any) -> Any:
    """Return the transformers model inside an adapter's wrapper."""
    return module.get_base_model() if hasattr(module, "get_base_model") else module
