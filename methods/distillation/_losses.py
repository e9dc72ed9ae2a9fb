"""Losses of a student: the divergence from its teacher under a rule, the text itself, and two regularisers.

The output embeddings see a few rows at a time, so that no table [batch, length, vocabulary] is ever made.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, log_softmax

from evenhand.inference.tree_forward import Finish
from evenhand.methods.distillation._batches import Rows
from evenhand.methods.distillation._states import States
from evenhand.methods.distillation._words import WordRule
from evenhand.training.divergences import kl
from evenhand.training.losses import CHUNK, chunked_sum, unchanged
from evenhand.training.packing import IGNORED


class Rule(Protocol):
    """Transforms a teacher's distributions."""

    inputs: int
    """Number of readings of the same text that belong together; their rows are neighbours."""
    tokens: Tensor
    """[t] ids of the tokens that the rule is about."""
    words: WordRule | None
    """Rule that acts instead where texts begin words of several tokens."""

    def read(self, ids: Tensor) -> Tensor:
        """Return the readings of a text's tokens [rows, length], [inputs, rows, length]."""

    def labels(self, labels: Tensor) -> Tensor:
        """Return what is to be predicted in each reading, [inputs, rows, length]."""

    def target(self, logprobs: Tensor, open: Tensor) -> Tensor:
        """Return the student's target in place of `logprobs`, [n, vocabulary]; [n] `open` is where a gate allows it."""

    def weight(self, logprobs: Tensor, open: Tensor) -> Tensor | None:
        """Return the weight of each position in the divergence from the target, [n]; None is 1."""

    def softened(self, labels: Tensor, open: Tensor) -> Tensor:
        """Return whether a label is not to be learned as it is, [n]."""

    def soft(self, labels: Tensor, logprobs: Tensor) -> Tensor:
        """Return probabilities in place of labels [m], [m, vocabulary]; `logprobs` are the teacher's own there."""


class Shares(NamedTuple):
    """Weights of the parts of the loss."""

    kl: float
    """Weight of the divergence from the target, times the temperature squared (Hinton et al. 2015, arXiv 1503.02531,
    section 2)."""
    hard: float
    """Weight of the cross-entropy of the text."""
    cosine: float = 0.0
    """Weight of 1 minus the cosine of the last hidden states."""
    locality: float = 0.0
    """Weight of the divergence from the teacher over the vocabulary without the rule's tokens, times the temperature
    squared."""
    temperature: float = 1.0


@dataclass(kw_only=True)
class Loss:
    """The loss of a student on a batch."""

    shares: Shares
    rule: Rule
    finish: Finish = unchanged
    """What the student does to its logits after the output embedding."""
    teacher_finish: Finish = unchanged
    chunk: int = CHUNK
    parts: dict[str, float] | None = field(default=None)
    """Collects the unweighted sums of the parts, in nats; None collects nothing."""

    def of(
        self,
        student: States,
        head: nn.Module,
        teacher: States,
        teacher_head: nn.Module,
        labels: Tensor,
        open: Tensor,
        spots: Tensor | None = None,
    ) -> Tensor:
        """Compute the weighted loss, in which each part is a mean over its rows.

        Args:
            student: States at n rows, where the readings of one position are neighbours.
            head: Output embedding of the student.
            teacher: States at the same rows, without gradient.
            teacher_head: Output embedding of the teacher.
            labels: [n] the tokens to predict, or `IGNORED`.
            open: [n] whether the rule acts.
            spots: [n] where the rule's `words` act instead, -1 elsewhere; None is nowhere.
        """
        share, device = self.shares, student.before_head.device
        labels, open = labels.to(device), open.to(device)
        spots = torch.full_like(labels, -1) if spots is None or self.rule.words is None else spots.to(device)
        rows, marked = max(1, len(labels)), max(1, int((labels != IGNORED).sum()))
        scale = share.temperature**2

        def loss_of(logits: Tensor, which: slice) -> Tensor:
            raw = self._teacher(teacher.before_head[which], teacher_head).to(device)
            parts = self._chunk(logits, raw, labels[which], open[which], spots[which])
            self._note({**parts, "rows": len(logits), "marked": int((labels[which] != IGNORED).sum())})
            held = share.kl * parts["kl"] + share.locality * parts["locality"]
            return scale * held / rows + share.hard * parts["hard"] / marked

        chunk = max(1, self.chunk // self.rule.inputs) * self.rule.inputs
        total = chunked_sum(student.before_head, head, loss_of, chunk=chunk, finish=self.finish)
        if share.cosine:
            away = (1 - cosine_similarity(student.last, teacher.last.to(student.last), dim=-1)).sum()
            self._note({"cosine": away})
            total = total + share.cosine * away / rows
        return total

    def _teacher(self, before_head: Tensor, head: nn.Module) -> Tensor:
        with torch.no_grad():
            logits = self.teacher_finish(head(before_head))
            return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def _chunk(self, logits: Tensor, raw: Tensor, labels: Tensor, open: Tensor, spots: Tensor) -> dict[str, Tensor]:
        """Sum over the rows of a chunk; a part without weight is 0."""
        share = self.shares
        none = logits.new_zeros(())
        ours = log_softmax(logits / share.temperature, dim=-1)
        with torch.no_grad():
            theirs = log_softmax(raw / share.temperature, dim=-1)
            target, weight = self.rule.target(theirs, open), self.rule.weight(theirs, open)
            target, weight = self._of_words(target, weight, raw, spots)
        return {
            "kl": divergence(target, ours, weight) if share.kl else none,
            "locality": self._locality(ours, theirs) if share.locality else none,
            "hard": self._hard(logits, raw, labels, open, spots) if share.hard else none,
        }

    def _of_words(
        self, target: Tensor, weight: Tensor | None, raw: Tensor, spots: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Replace targets and weights at the positions of words of several tokens."""
        at = torch.nonzero(spots >= 0).flatten()
        words = self.rule.words
        if words is None or not len(at):
            return target, weight
        made = words.target(log_softmax(raw[at], dim=-1), spots[at])
        target = target.index_copy(0, at, log_softmax(made / self.shares.temperature, dim=-1))
        if weight is not None:
            weight = weight.index_copy(0, at, words.weight(spots[at]).to(weight))
        return target, weight

    def _locality(self, ours: Tensor, theirs: Tensor) -> Tensor:
        other = torch.ones(ours.shape[-1], dtype=torch.bool, device=ours.device)
        other[self.rule.tokens.to(ours.device)] = False
        return divergence(log_softmax(theirs[:, other], dim=-1), log_softmax(ours[:, other], dim=-1))

    def _hard(self, logits: Tensor, raw: Tensor, labels: Tensor, open: Tensor, spots: Tensor) -> Tensor:
        rows = torch.nonzero(labels != IGNORED).flatten()
        if not len(rows):
            return logits.new_zeros(())
        labels, open, spots, ours = labels[rows], open[rows], spots[rows], log_softmax(logits[rows], dim=-1)
        words = self.rule.words
        walked = (spots >= 0) & (words is not None and words.soften)
        soft = self.rule.softened(labels, open & (spots < 0)) | walked
        loss = -ours[~soft].gather(1, labels[~soft, None]).sum()
        if soft.any():
            with torch.no_grad():
                theirs = log_softmax(raw[rows[soft]], dim=-1)
                wanted = self.rule.soft(labels[soft], theirs)
                at = torch.nonzero(walked[soft]).flatten()
                if words is not None and len(at):
                    given = words.soft(labels[soft][at], theirs[at], spots[soft][at])
                    wanted = wanted.index_copy(0, at, given)
            loss = loss - (wanted * torch.where(wanted > 0, ours[soft], 0.0)).sum()
        return loss

    def _note(self, sums: dict[str, Any]) -> None:
        if self.parts is not None:
            for name, value in sums.items():
                number = float(value.detach() if isinstance(value, Tensor) else value)
                self.parts[name] = self.parts.get(name, 0.0) + number


def divergence(p: Tensor, q: Tensor, weight: Tensor | None = None) -> Tensor:
    """Compute KL(p || q) from log-probabilities, summed over rows by weight."""
    rows = kl(p, q)
    return (rows if weight is None else rows * weight).sum()


def means(parts: dict[str, float], shares: Shares) -> dict[str, float]:
    """Compute means of collected sums by name, and `loss`, their weighted sum, in nats.

    Args:
        parts: Sums of any number of batches.
        shares: The weights.
    """
    noted = defaultdict(float, parts)
    rows, marked = max(1.0, noted["rows"]), max(1.0, noted["marked"])
    out = {"kl": noted["kl"] / rows, "hard": noted["hard"] / marked}
    out |= {"locality": noted["locality"] / rows, "cosine": noted["cosine"] / rows}
    scale = shares.temperature**2
    weights = {"kl": scale * shares.kl, "hard": shares.hard, "locality": scale * shares.locality}
    weights["cosine"] = shares.cosine
    out = {name: value for name, value in out.items() if weights[name]}
    return {"loss": math.fsum(weights[name] * value for name, value in out.items()), **out}


def readings(rows: Rows, rule: Rule) -> tuple[dict[str, Any], Tensor, Tensor, Tensor]:
    """Return a batch in all readings of a rule.

    Returns:
        Inputs of [inputs * rows, length]; [n] positions in their flattened table, where the readings of one position
        are neighbours; and [n] the labels and whether the rule acts there.
    """
    many, ids = rule.inputs, rows.inputs["input_ids"]
    size = ids.numel()
    inputs = {**rows.inputs, "input_ids": rule.read(ids).flatten(0, 1)}
    for name, value in rows.inputs.items():
        if name != "input_ids" and isinstance(value, Tensor) and many > 1:
            inputs[name] = value.repeat(many, *[1] * (value.dim() - 1))
    once = torch.nonzero(rows.read.flatten()).flatten()
    places = (once[:, None] + size * torch.arange(many)).flatten()
    labels = rule.labels(rows.labels).flatten()[places]
    return inputs, places, labels, rows.open.flatten()[once].repeat_interleave(many)
