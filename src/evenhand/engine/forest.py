"""Scoring over a tree of tokens: the same log-probabilities as one forward per sequence, from far fewer tokens.

A model runs on one row of tree nodes with explicit positions; only its attention needs to know the tree. Whether a
model can be run like that is found out by trying: its hidden states on a small tree must be those of plain forwards.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from evenhand.engine.requests import Request
from evenhand.engine.scoring import input_device
from evenhand.engine.tree_attention import Plan, tree_attention
from evenhand.engine.trie import Pack, packs

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CHUNK = 256
"""Rows of logits that are held at once."""
PROBE = ((3, 5, 7, 4, 6, 9, 8, 5), (3, 5, 7, 4, 6, 2, 9), (3, 5, 7, 8, 8, 2), (3, 5, 7, 8, 8, 4, 1), (4, 3, 9))
"""Sequences on which a model is tried out: branches within branches, one that continues another, and one apart."""

Finish = Callable[[Tensor], Tensor]
"""What a model does to its logits after the output embedding: soft caps, scales."""


class Tried(NamedTuple):
    """What trying a model out has shown."""

    finish: Finish | None
    """How its logits are finished; None where the tree cannot be used."""
    reason: str
    """Why not."""


def try_out(module: PreTrainedModel) -> Tried:
    """Whether a model gives the same on a tree as sequence by sequence."""
    if "position_ids" not in inspect.signature(_inner(module).forward).parameters:
        return Tried(None, "it takes no position ids")
    words = int(module.config.get_text_config().vocab_size)
    asked = [tuple(token % words for token in ids) for ids in PROBE]
    pack = next(packs(asked, 10**6))
    try:
        tree, _ = _hidden(module, pack)
    except (RuntimeError, TypeError, ValueError, KeyError, AttributeError, NotImplementedError) as error:
        return Tried(None, f"it does not run on a tree: {error}")
    for row, path in zip(pack.rows, pack.paths, strict=True):
        plain, logits = _plain(module, asked[row])
        if not _near(tree[torch.from_numpy(path).to(tree.device)], plain):
            return Tried(None, "its attention is not that of a plain causal model")
    finish = _finish_of(module, plain, logits)
    return Tried(finish, "" if finish else "it changes its logits in a way that is not known")


def exact_up_to(module: PreTrainedModel) -> int:
    """The longest sequence that may stand beside others: within attention windows and one scale of rotary positions."""
    config = module.config.get_text_config()
    rope = getattr(config, "rope_parameters", None) or {}
    limits = [getattr(config, "sliding_window", None), getattr(config, "attention_chunk_size", None)]
    if rope.get("rope_type") in ("dynamic", "longrope"):  # whose frequencies depend on the longest of a batch
        original = rope.get("original_max_position_embeddings")
        limits.append(original or getattr(config, "original_max_position_embeddings", config.max_position_embeddings))
    return min([int(limit) for limit in limits if limit], default=10**9)


def score_pack(module: PreTrainedModel, pack: Pack, requests: Sequence[Request], finish: Finish) -> list[list[float]]:
    """Reads of the pack's requests, in the pack's order.

    Args:
        module: The model; `try_out` must have succeeded.
        pack: Made of the requests' ids.
        requests: What the pack's rows number.
        finish: From `try_out`.
    """
    wanted: dict[int, int] = {}
    slots, tokens = [], []
    for row, path in zip(pack.rows, pack.paths, strict=True):
        for position, token in requests[row].reads:
            slots.append(wanted.setdefault(int(path[position]), len(wanted)))
            tokens.append(token)
    hidden, head = _hidden(module, pack, torch.tensor(list(wanted)))
    values = iter(_read(hidden, head, finish, torch.tensor(slots), torch.tensor(tokens)))
    return [[next(values) for _ in requests[row].reads] for row in pack.rows]


def _read(hidden: Tensor, head: torch.nn.Module, finish: Finish, slots: Tensor, tokens: Tensor) -> list[float]:
    """Log-probabilities of tokens after rows of hidden states, in chunks of rows."""
    out = torch.empty(len(slots))
    for start in range(0, len(hidden), CHUNK):
        logits = finish(head(hidden[start : start + CHUNK])).float()
        mine = torch.nonzero((slots >= start) & (slots < start + CHUNK)).flatten()
        at, token = (slots[mine] - start).to(logits.device), tokens[mine].to(logits.device)
        out[mine] = (logits[at, token] - torch.logsumexp(logits, dim=-1)[at]).cpu()
    found: list[float] = out.tolist()
    return found


def _hidden(module: PreTrainedModel, pack: Pack, rows: Tensor | None = None) -> tuple[Tensor, torch.nn.Module]:
    """What the output embedding is given at some nodes (all where None), and the output embedding."""
    head: torch.nn.Module = module.get_output_embeddings()
    device = input_device(module)
    ids = torch.tensor([pack.tokens], device=device)
    with tree_attention(module, Plan(pack)), _caught(head) as caught:
        module(input_ids=ids, position_ids=torch.tensor([pack.positions], device=device), use_cache=False)
    return (caught[0] if rows is None else caught[0][rows.to(caught[0].device)]), head


def _plain(module: PreTrainedModel, ids: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Hidden states before the output embedding, and the last position's logits, of one sequence."""
    head: torch.nn.Module = module.get_output_embeddings()
    with _caught(head) as caught:
        out = module(input_ids=torch.tensor([ids], device=input_device(module)), use_cache=False)
    return caught[0], out.logits[0, -1]


@contextmanager
def _caught(head: torch.nn.Module) -> Iterator[list[Tensor]]:
    """Keep the hidden states that the output embedding is given, and give it only the last of them."""
    caught: list[Tensor] = []

    def keep(_: torch.nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        caught.append(inputs[0].flatten(0, 1))
        return (inputs[0][:, -1:], *inputs[1:])

    handle = head.register_forward_pre_hook(keep)
    try:
        yield caught
    finally:
        handle.remove()


def _near(one: Tensor, other: Tensor) -> bool:
    """Equal but for rounding; a wrong mask or position shows in whole parts, not in per mille."""
    return _distance(one, other) < (1e-3 if one.dtype == torch.float32 else 0.1)


def _distance(one: Tensor, other: Tensor) -> float:
    return float((one.float() - other.float()).norm() / other.float().norm().clamp_min(1e-30))


def _finish_of(module: PreTrainedModel, hidden: Tensor, logits: Tensor) -> Finish | None:
    """How a model's logits come from its output embedding: found among the known ways by trying each."""
    head: Any = module.get_output_embeddings()
    raw = head(hidden[-1:])[0]
    config = module.config.get_text_config()
    cap = getattr(config, "final_logit_softcapping", None)
    factors = [getattr(config, "logit_scale", None), _inverse(getattr(config, "logits_scaling", None))]
    ways: list[Finish] = [lambda x: x]
    if cap:
        ways.append(lambda x: torch.tanh(x / cap) * cap)
    ways += [lambda x, f=factor: x * f for factor in factors if factor]  # type: ignore[misc]
    best = min(ways, key=lambda way: _distance(way(raw), logits))  # small logits are near under a wrong cap, too
    return best if _near(best(raw), logits) else None


def _inverse(value: float | None) -> float | None:
    return 1 / value if value else None


def _inner(module: Any) -> Any:
    """The transformers model inside an adapter's wrapper."""
    return module.get_base_model() if hasattr(module, "get_base_model") else module
