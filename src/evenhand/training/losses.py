"""Losses of an output embedding's logits, with only a few rows of logits in memory at a time, forward and backward.

A row's gradient is computed with its loss, while its logits are in memory, so nothing is computed twice; the backward
pass only scales what the forward pass has stored: one gradient of the hidden states, and one of each weight.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import cross_entropy, log_softmax

from evenhand.errors import SettingsError
from evenhand.inference.tree_forward import Finish
from evenhand.training.divergences import kl

CHUNK = 256
"""Rows of logits in memory at once."""

LossOf = Callable[[Tensor, slice], Tensor]
"""Returns the loss of some rows as one number, given their logits [rows, vocabulary] and which rows they are."""
Reduction = Literal["mean", "sum"]
Direction = Literal["forward", "reverse"]


def unchanged(x: Tensor) -> Tensor:
    """Return the tensor as it is."""
    return x


def chunked_sum(
    hidden: Tensor, head: nn.Module, loss_of: LossOf, *, chunk: int = CHUNK, finish: Finish = unchanged
) -> Tensor:
    """Sum any loss of logits over chunks of rows; gradients reach the hidden states and the head.

    Gradients of weights in half precision are summed in float32. There are no second derivatives.

    Args:
        hidden: [N, H], the input of the output embedding.
        head: The output embedding; it may be frozen, tied or under an adapter.
        loss_of: The loss of a chunk of rows; its logits have gone through `finish`, and are float32 or float64.
        chunk: Maximum number of rows of logits in memory at once.
        finish: What the model does to its logits (`evenhand.training.finish_of`).

    Raises:
        SettingsError: `chunk` is below 1, or `hidden` does not have two dimensions.
    """
    if chunk < 1 or hidden.dim() != 2:
        raise SettingsError(f"chunk={chunk}, hidden {tuple(hidden.shape)}: give chunk >= 1 and hidden states [N, H]")
    weights = [p for p in head.parameters() if p.requires_grad]
    graded = torch.is_grad_enabled() and (hidden.requires_grad or bool(weights))

    def loss(rows: Tensor, which: slice) -> Tensor:
        return loss_of(_exact(finish(head(rows))), which)

    total: Tensor = _ChunkedSum.apply(loss, chunk, graded, hidden, *weights)  # type: ignore[no-untyped-call]
    return total


def chunked_cross_entropy(
    hidden: Tensor,
    head: nn.Module,
    targets: Tensor,
    *,
    ignore_index: int = -100,
    chunk: int = CHUNK,
    finish: Finish = unchanged,
    reduction: Reduction = "mean",
) -> Tensor:
    """Return the cross-entropy of rows of logits with their targets, in nats; ignored rows do not pass the head.

    Args:
        hidden: [N, H], the input of the output embedding.
        head: The output embedding.
        targets: [N] token ids.
        ignore_index: Target of rows that do not count.
        chunk: Maximum number of rows of logits in memory at once.
        finish: What the model does to its logits.
        reduction: "mean" over the rows that count (0 if none does), or "sum".
    """
    counted = torch.nonzero(targets != ignore_index).flatten()
    wanted = targets[counted]
    divisor = _divisor(len(counted), reduction)

    def loss_of(logits: Tensor, rows: slice) -> Tensor:
        return cross_entropy(logits, wanted[rows].to(logits.device), reduction="sum") / divisor

    return chunked_sum(hidden[counted.to(hidden.device)], head, loss_of, chunk=chunk, finish=finish)


def chunked_repeated_cross_entropy(
    hidden: Tensor,
    head: nn.Module,
    rows: Tensor,
    targets: Tensor,
    counts: Tensor,
    *,
    chunk: int = CHUNK,
    finish: Finish = unchanged,
    reduction: Reduction = "mean",
) -> Tensor:
    """Return the cross-entropy of rows that may have several targets, each any number of times.

    It is that of `chunked_cross_entropy` with each row repeated for its targets.

    Args:
        hidden: [N, H], the input of the output embedding; every row passes it once.
        head: The output embedding.
        rows: [M] the row that each target is predicted from, ascending.
        targets: [M] token ids.
        counts: [M] how often each target counts.
        chunk: Maximum number of rows of logits in memory at once.
        finish: What the model does to its logits.
        reduction: "mean" by counts (0 if none counts), or "sum".
    """
    divisor = _divisor(float(counts.sum()), reduction)

    def loss_of(logits: Tensor, which: slice) -> Tensor:
        own = torch.nonzero((rows >= which.start) & (rows < which.stop)).flatten()
        at, wanted = (rows[own] - which.start).to(logits.device), targets[own].to(logits.device)
        missed = torch.logsumexp(logits, dim=-1)[at] - logits[at, wanted]
        return (missed * counts[own].to(logits)).sum() / divisor

    return chunked_sum(hidden, head, loss_of, chunk=chunk, finish=finish)


def chunked_kl(
    hidden: Tensor,
    head: nn.Module,
    teacher: Tensor,
    teacher_head: nn.Module | None = None,
    *,
    temperature: float = 1.0,
    direction: Direction = "forward",
    weights: Tensor | None = None,
    target: Callable[[Tensor], Tensor] = unchanged,
    chunk: int = CHUNK,
    finish: Finish = unchanged,
    teacher_finish: Finish = unchanged,
    reduction: Reduction = "mean",
) -> Tensor:
    """Return the Kullback-Leibler divergence between a teacher's and a student's next-token distributions, in nats.

    Gradients reach the student only. The factor T^2 of Hinton et al. 2015 (arXiv 1503.02531, section 2) is left to
    the caller.

    Args:
        hidden: [N, H], the input of the student's output embedding.
        head: The student's output embedding.
        teacher: [N, H'], the input of the teacher's output embedding; without `teacher_head` its log-probabilities or
            logits [N, vocabulary].
        teacher_head: The teacher's output embedding.
        temperature: Divides the logits of both sides.
        direction: "forward" is KL(teacher || student), "reverse" KL(student || teacher), which is infinite where the
            student allows what the teacher excludes.
        weights: [N] weight of each row, or a mask; rows of weight 0 pass neither head. None is 1 for each.
        target: Changes the teacher's log-probabilities [rows, vocabulary] at that temperature, such as by a rule.
        chunk: Maximum number of rows of each side's logits in memory at once.
        finish: What the student does to its logits.
        teacher_finish: What the teacher does to its logits.
        reduction: "mean" by weight (0 if nothing counts), or the weighted "sum".

    Raises:
        SettingsError: The temperature is not positive, the direction unknown, or the vocabularies differ.
    """
    if temperature <= 0 or direction not in ("forward", "reverse"):
        raise SettingsError(f"temperature={temperature}, direction={direction!r}: give > 0, 'forward' or 'reverse'")
    share = torch.ones(len(hidden)) if weights is None else weights
    counted = torch.nonzero(share).flatten()
    share, divisor = share[counted], _divisor(float(share.sum()), reduction)
    places = counted.to(teacher.device)

    def loss_of(logits: Tensor, rows: slice) -> Tensor:
        ours = log_softmax(logits / temperature, dim=-1)
        with torch.no_grad():
            given = teacher[places[rows]]
            raw = _exact(given if teacher_head is None else teacher_finish(teacher_head(given))).to(ours.device)
            if raw.shape != ours.shape:
                raise SettingsError(
                    f"the teacher has {raw.shape[-1]} tokens and the student {ours.shape[-1]}: both need the same "
                    "vocabulary"
                )
            theirs = target(log_softmax(raw / temperature, dim=-1))
        divergence = kl(theirs, ours) if direction == "forward" else kl(ours, theirs)
        return (divergence * share[rows].to(ours)).sum() / divisor

    return chunked_sum(hidden[counted.to(hidden.device)], head, loss_of, chunk=chunk, finish=finish)


def _divisor(total: float, reduction: Reduction) -> float:
    """Return the number that the sum is divided by.

    Raises:
        SettingsError: The reduction is unknown.
    """
    if reduction not in ("mean", "sum"):
        raise SettingsError(f"reduction={reduction!r}: give 'mean' or 'sum'")
    return total if reduction == "mean" and total else 1.0


def _exact(logits: Tensor) -> Tensor:
    """Cast logits to the precision that softmax needs."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


class _ChunkedSum(torch.autograd.Function):
    """A sum of losses that computes each chunk's gradients together with its loss."""

    @staticmethod
    def forward(
        ctx: Any, loss: Callable[[Tensor, slice], Tensor], chunk: int, graded: bool, hidden: Tensor, *weights: Tensor
    ) -> Tensor:
        upwards = graded and hidden.requires_grad
        total, over_rows = _exact(hidden.new_zeros(())), torch.zeros_like(hidden) if upwards else None
        over_weights: list[Tensor | None] = [None] * len(weights)
        for start in range(0, len(hidden), chunk):
            which = slice(start, start + chunk)
            with torch.set_grad_enabled(graded):
                rows = hidden[which].detach().requires_grad_(upwards)
                value = loss(rows, which)
            total = total.to(value) + value.detach()
            if value.requires_grad:
                found = list(torch.autograd.grad(value, [rows, *weights] if upwards else weights, allow_unused=True))
                above = found.pop(0) if upwards else None
                if over_rows is not None and above is not None:
                    over_rows[which] = above
                over_weights = [_added(*pair) for pair in zip(over_weights, found, strict=True)]
        kept = [None if g is None else g.to(w) for g, w in zip(over_weights, weights, strict=True)]
        ctx.save_for_backward(over_rows, *kept)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        return (None, None, None, *(None if g is None else g * scale.to(g) for g in ctx.saved_tensors))


def _added(total: Tensor | None, more: Tensor | None) -> Tensor | None:
    """Add to a running sum of gradients, in float32 at least, as half precision would lose small ones."""
    if more is None:
        return total
    if total is None:  # a copy: two weights may share one gradient tensor
        return more.to(torch.promote_types(more.dtype, torch.float32), copy=True)
    return total.add_(more)
