"""The weighted sum of losses over one part of an optimizer step.

A step may be computed in several parts. Each part's sums are divided by the counts of the whole step, so that the parts
together give the step's loss however it is divided. Means over pairs and rows are means of rows; means of
cross-entropies are over tokens. The released form of BiasUnlearn's NPO is the exception (`losses.npo_of_batch_mean`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from torch import Tensor, cat

from evenhand.methods.unlearning._pairwise import losses
from evenhand.methods.unlearning._pairwise.terms import PAIR_TERMS

NpoForm = Literal["rows", "batch_mean"]
KlForm = Literal["kl", "cross_entropy"]


@dataclass(frozen=True, kw_only=True)
class Objective:
    """Weights of the losses; a loss without a weight, or with weight 0, is never computed."""

    weights: Mapping[str, float] = field(default_factory=dict)
    """Weights by name: those of `evenhand.methods.unlearning._pairwise.terms`, and `reward`."""
    beta: float = 0.1
    """Beta of dpo and npo."""
    simnpo_beta: float = 4.5
    simnpo_delta: float = 0.0
    margin: float = 0.0
    npo_form: NpoForm = "rows"
    retain_kl_form: KlForm = "kl"
    reward_beta: float = 0.04

    def of(self, *names: str) -> dict[str, float]:
        """Return the weights among these losses that are not 0."""
        return {name: self.weights[name] for name in names if self.weights.get(name, 0.0) != 0}


class Totals(NamedTuple):
    """Counts over all parts of an optimizer step."""

    pairs: int = 0
    forgotten: int = 0
    """Number of rows to forget: the rejected sides, and the chosen sides of adversarial pairs."""
    chosen_tokens: int = 0
    rejected_tokens: int = 0
    text_tokens: int = 0
    questions: int = 0


class PairNll(NamedTuple):
    """Negative log-likelihoods of pairs: [pairs] sums in nats, numbers of tokens, and sums under the reference."""

    chosen: Tensor
    rejected: Tensor
    chosen_lengths: Tensor
    rejected_lengths: Tensor
    ref_chosen: Tensor
    ref_rejected: Tensor
    adversarial: Tensor
    """[pairs] bool: whether the chosen side is forgotten as well."""


class Forgotten(NamedTuple):
    """The rows to forget, from either side."""

    nll: Tensor
    lengths: Tensor
    reference: Tensor


def forgotten(nll: PairNll) -> Forgotten:
    """Return all rejected sides, and the chosen sides of adversarial pairs."""
    also = nll.adversarial
    return Forgotten(
        cat([nll.rejected, nll.chosen[also]]),
        cat([nll.rejected_lengths, nll.chosen_lengths[also]]),
        cat([nll.ref_rejected, nll.ref_chosen[also]]),
    )


def pair_losses(nll: PairNll, objective: Objective, totals: Totals, parts: int) -> dict[str, Tensor]:
    """Compute each loss on pairs that has a weight, weighted: the share of one part, times the number of parts.

    Args:
        nll: Negative log-likelihoods of the part's pairs.
        objective: Weights and their settings.
        totals: Counts of the whole step.
        parts: Number of parts that are averaged.
    """
    weights = objective.of(*PAIR_TERMS)
    return {name: weight * _pair_loss(name, nll, objective, totals, parts) for name, weight in weights.items()}


def _pair_loss(name: str, nll: PairNll, objective: Objective, totals: Totals, parts: int) -> Tensor:
    if name in ("npo", "simnpo", "ga"):
        return _forget_loss(name, forgotten(nll), objective, totals, parts)
    if name == "lm":
        return nll.chosen.sum() * (parts / totals.chosen_tokens)
    if name == "swapped_lm":
        return nll.rejected.sum() * (parts / totals.rejected_tokens)
    return _paired(name, nll, objective).sum() * (parts / totals.pairs)


def _forget_loss(name: str, rows: Forgotten, objective: Objective, totals: Totals, parts: int) -> Tensor:
    if name == "npo" and objective.npo_form == "batch_mean":
        return losses.npo_of_batch_mean(rows.nll, rows.lengths, rows.reference, objective.beta)
    if name == "npo":
        values = losses.npo(rows.nll, rows.reference, objective.beta)
    elif name == "simnpo":
        values = losses.simnpo(rows.nll, rows.lengths, objective.simnpo_beta, objective.simnpo_delta)
    else:
        values = losses.ascent(rows.nll, rows.lengths)
    return values.sum() * (parts / totals.forgotten)


def _paired(name: str, nll: PairNll, objective: Objective) -> Tensor:
    sides = nll.chosen, nll.chosen_lengths, nll.rejected, nll.rejected_lengths
    if name == "dpo":
        return losses.dpo(nll.chosen, nll.rejected, nll.ref_chosen, nll.ref_rejected, objective.beta)
    return losses.margin(*sides, objective.margin) if name == "margin" else losses.gap(*sides)
