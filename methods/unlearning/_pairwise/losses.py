"""Losses on pairs, as pure functions of sums of negative log-likelihoods, lengths and reference values.

nll(y) is the negative log-likelihood of a continuation y after its prompt: a sum over its tokens, in nats. "Chosen" is
the counter-stereotyped continuation and "rejected" the stereotyped one. Every function returns one value per row, so
that the caller can average over all rows of a step, however many parts it is computed in. All take and return tensors
of shape [rows].

Sources: DPO is by Rafailov et al. 2023 (arXiv 2305.18290), NPO by Zhang et al. 2024 (arXiv 2404.05868), SimNPO by Fan
et al. 2024 (arXiv 2410.07163); the batch mean is what the released code of BiasUnlearn (Liu et al. 2025, arXiv
2509.25673) computes. `margin` and `gap` are the logistic loss and the squared distance of mean log-probabilities.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import softplus


def dpo(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, beta: float) -> Tensor:
    """Compute direct preference optimisation: ln 2 if the model is its own reference. It pushes past parity.

    Args:
        chosen: nll of the chosen continuations.
        rejected: nll of the rejected ones.
        ref_chosen: nll of the chosen ones under the reference.
        ref_rejected: nll of the rejected ones under the reference.
        beta: Cost of moving away from the reference.
    """
    return softplus(-beta * ((ref_chosen - chosen) - (ref_rejected - rejected)))


def npo(nll: Tensor, reference: Tensor, beta: float) -> Tensor:
    """Compute negative preference optimisation: DPO without a chosen side.

    It is (2 / beta) ln 2 if the model is its own reference, with the gradient of gradient ascent on the sums; it
    decays as the continuations become less probable.

    Args:
        nll: nll of the continuations to forget.
        reference: nll of the same under the reference.
        beta: The smaller, the closer to gradient ascent.
    """
    return softplus(-beta * (nll - reference)) * (2 / beta)


def npo_of_batch_mean(nll: Tensor, lengths: Tensor, reference: Tensor, beta: float) -> Tensor:
    """Compute one sigmoid of a whole batch's mean per-token nll, as released for BiasUnlearn; a single number.

    It is not a mean over rows, so it depends on how a step is divided into parts.

    Args:
        nll: nll of the continuations to forget.
        lengths: Their numbers of tokens.
        reference: nll of the same under the reference.
        beta: As in `npo`.
    """
    return softplus(-beta * (nll / lengths - reference / lengths).mean()) * (2 / beta)


def simnpo(nll: Tensor, lengths: Tensor, beta: float, delta: float) -> Tensor:
    """Compute NPO on the nll per token, without a reference: repeating a continuation changes nothing.

    Args:
        nll: nll of the continuations to forget.
        lengths: Their numbers of tokens.
        beta: Steepness.
        delta: Nats per token from which the gradient decays.
    """
    return softplus(-beta * (nll / lengths - delta)) * (2 / beta)


def ascent(nll: Tensor, lengths: Tensor) -> Tensor:
    """Compute gradient ascent on the nll per token. It has no minimum and diverges: a baseline only.

    Args:
        nll: nll of the continuations to forget.
        lengths: Their numbers of tokens.
    """
    return -nll / lengths


def margin(chosen: Tensor, chosen_lengths: Tensor, rejected: Tensor, rejected_lengths: Tensor, least: float) -> Tensor:
    """Pairwise logistic loss of the nll per token, without a reference. It pushes past parity.

    Args:
        chosen: nll of the chosen continuations.
        chosen_lengths: Their tokens.
        rejected: nll of the rejected ones.
        rejected_lengths: Their tokens.
        least: Margin in nats per token by which the chosen side should be more probable.
    """
    return softplus(least + chosen / chosen_lengths - rejected / rejected_lengths)


def gap(chosen: Tensor, chosen_lengths: Tensor, rejected: Tensor, rejected_lengths: Tensor) -> Tensor:
    """Compute the squared distance of the two sides' nll per token: 0 at parity, from either side.

    Args:
        chosen: nll of the chosen continuations.
        chosen_lengths: Their tokens.
        rejected: nll of the rejected ones.
        rejected_lengths: Their tokens.
    """
    return (rejected / rejected_lengths - chosen / chosen_lengths) ** 2
