"""Gradients of a batch's target scores, one side at a time, and of the divergence from the unedited model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from evenhand.inference.padding import right_pad
from evenhand.inference.scoring import input_device, only_rows
from evenhand.methods.unlearning._pairs import Side
from evenhand.methods.unlearning._pcgu.fsdp import World, gradients
from evenhand.training.divergences import kl

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Measure = Literal["logprob", "logit", "probability"]
Reduction = Literal["mean", "sum", "pooled"]


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """How a text is scored."""

    causal: bool
    measure: Measure = "logprob"
    """Score of a target: logprob and logit are summed over its tokens, or averaged; probability is that of all of
    them."""
    per_token: bool = False
    """Whether a score is divided by the number of its tokens."""
    pad: int = 0
    half: bool = False
    """Whether products are computed in bfloat16."""


def scores(module: PreTrainedModel, sides: Sequence[Side], how: Scoring) -> Tensor:
    """Return [sides] float32 scores, with gradients if they are enabled."""
    logits, owner, tokens = _read(module, sides, how)
    if how.measure == "logit":
        values = logits.gather(1, tokens[:, None])[:, 0]
    else:
        values = log_softmax(logits, dim=-1).gather(1, tokens[:, None])[:, 0]
    out = torch.zeros(len(sides), device=values.device, dtype=values.dtype).index_add(0, owner, values)
    if how.per_token:
        out = out / torch.tensor([len(s.tokens) for s in sides], device=out.device)
    return out.exp() if how.measure == "probability" else out


def logprobs(module: PreTrainedModel, sides: Sequence[Side], how: Scoring) -> Tensor:
    """Return [places, vocabulary] log-probabilities at every position that is read."""
    return log_softmax(_read(module, sides, how)[0], dim=-1)


def _read(module: Any, sides: Sequence[Side], how: Scoring) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits [reads, vocabulary], the side that each belongs to, and its token."""
    device = input_device(module)
    ids, mask = right_pad([s.ids for s in sides], how.pad, device=device)
    length = ids.shape[1]
    flat = torch.tensor([n * length + place for n, s in enumerate(sides) for place in s.places])
    options = {"use_cache": False} if how.causal else {}
    with (
        torch.autocast(device.type, torch.bfloat16, enabled=how.half),
        only_rows(module.get_output_embeddings(), flat),
    ):
        logits = module(input_ids=ids, attention_mask=mask, **options).logits[0]
    owner = torch.tensor([n for n, s in enumerate(sides) for _ in s.places], device=device)
    tokens = torch.tensor([t for s in sides for t in s.tokens], device=device)
    return logits.to(torch.promote_types(logits.dtype, torch.float32)), owner, tokens


def of_scores(
    module: PreTrainedModel,
    sides: Sequence[Side],
    how: Scoring,
    world: World,
    *,
    micro: int,
    reduction: Reduction,
    pool: int = 1,
) -> tuple[dict[str, Tensor], float]:
    """Return the gradients of a batch's score, and the score.

    Every rank takes every n-th of the texts. Micro-batches are weighted by their texts, so that the last, smaller one
    counts no more than its share; ranks that have run out continue with texts of weight 0, as sharded layers need all.

    Args:
        module: Module sharded over `world`, or whole; gradients left on it are taken, too.
        sides: The batch, the same on every rank.
        how: How they are scored.
        world: The ranks.
        micro: Number of texts that go through the module at once.
        reduction: See `shares_of`.
        pool: See there.

    Returns:
        This rank's shards of the gradients by parameter, and the batch's score.
    """
    every = shares_of(sides, how, reduction, pool)
    total = 0.0
    for group, weights in spread(len(sides), world, micro):
        found = scores(module, [sides[n] for n in group], how)
        counted = [weight * every[n] for n, weight in zip(group, weights, strict=True)]
        share = torch.tensor(counted, device=found.device, dtype=found.dtype)
        value = (found * share).sum()
        (value * world.size).backward()  # type: ignore[no-untyped-call]  # ranks are averaged when gradients are summed
        total += float(value.detach())
    return gradients(module), world.sum_of(total)


def shares_of(sides: Sequence[Side], how: Scoring, reduction: Reduction, pool: int) -> list[float]:
    """Return the weight of each text's score in the score of its batch.

    Args:
        sides: The batch.
        how: How they are scored.
        reduction: "mean" over the texts, "sum" over them, or "pooled": the tokens of every `pool` texts are averaged
            together, so that a long text counts more, and these means are added. So does a training loop that adds up
            the gradients of mean losses, as that of Dige et al. 2024 (arXiv 2406.13551) does:
            VectorInstitute/bias-mitigation-unlearning, pcgu/src/general_similarity_retrain.py, `do_an_lm_backprop`
            and `accumulate_grad`.
        pool: Number of texts whose tokens are averaged together.
    """
    if reduction != "pooled":
        return [1 / len(sides) if reduction == "mean" else 1.0] * len(sides)
    out: list[float] = []
    for start in range(0, len(sides), pool):
        tokens = [len(side.tokens) for side in sides[start : start + pool]]
        out += [(count if how.per_token else 1) / sum(tokens) for count in tokens]
    return out


def of_divergence(
    module: PreTrainedModel,
    base: PreTrainedModel,
    sides: Sequence[Side],
    how: Scoring,
    world: World,
    *,
    micro: int,
    scale: float,
) -> tuple[dict[str, Tensor], float]:
    """Return gradients of `scale` times the mean KL(base || module) over the positions read, and the mean in nats.

    Args:
        module: As in `of_scores`.
        base: The unedited model, with the same layout.
        sides: Texts and positions.
        how: Causal or masked, and the precision.
        world: The ranks.
        micro: Number of texts at once.
        scale: Factor on the gradient.
    """
    total, every = 0.0, sum(len(s.places) for s in sides)
    for group, weights in spread(len(sides), world, micro):
        some = [sides[n] for n in group]
        ours = logprobs(module, some, how)
        with torch.no_grad():  # the base may be elsewhere, such as in main memory
            theirs = logprobs(base, some, how).to(ours.device)
        share = torch.tensor([w for w, s in zip(weights, some, strict=True) for _ in s.places], device=ours.device)
        value = (kl(theirs, ours) * share).sum() / every
        (value * scale * world.size).backward()  # type: ignore[no-untyped-call]
        total += float(value.detach())
    return gradients(module), world.sum_of(total)


def mean_scores(module: PreTrainedModel, sides: Sequence[Side], how: Scoring, world: World, *, micro: int) -> float:
    """Average the score over texts, without gradients; all ranks together."""
    total = 0.0
    with torch.no_grad():
        for group, weights in spread(len(sides), world, micro):
            found = scores(module, [sides[n] for n in group], how)
            total += float((found * torch.tensor(weights, device=found.device)).sum())
    return world.sum_of(total) / len(sides)


def spread(count: int, world: World, micro: int) -> list[tuple[list[int], list[float]]]:
    """Return this rank's micro-batches of a batch: texts and their weights; equally many on every rank."""
    mine = list(range(world.rank, count, world.size))
    longest = -(-count // world.size)  # maximum over ranks
    out = []
    for start in range(0, longest, micro):
        group = mine[start : start + micro]
        out.append((group, [1.0] * len(group)) if group else ([0], [0.0]))
    return out
