"""Compute the exact expected reward of multiple-choice answers: a sum over the options instead of samples.

The gradient is that of REINFORCE, or of GRPO without scaling, with infinitely many samples per prompt.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from evenhand.data.bbq_helm import UNKNOWN
from evenhand.interfaces import Question
from evenhand.training.divergences import kl

RIGHT, WRONG, EVASIVE = 1.0, -1.0, -0.5
"""Rewards of the right option; of any other, so that reversing a bias does not pay; and of "unknown" if it is wrong."""
_UNKNOWN = frozenset(text.casefold() for text in UNKNOWN)


def is_unknown(option: str) -> bool:
    """Whether an option says that the answer cannot be known, in one of BBQ's wordings."""
    return option.strip().rstrip(".").casefold() in _UNKNOWN


def rewards_of(question: Question, answer: int) -> tuple[float, ...]:
    """Return the reward of each option, by identity.

    Args:
        question: A question with options.
        answer: Identity of the right option.
    """
    options: Sequence[str] = question.options
    return tuple(RIGHT if n == answer else EVASIVE if is_unknown(text) else WRONG for n, text in enumerate(options))


def expected_reward_loss(
    logprobs: Tensor, rewards: Tensor, reference: Tensor | None = None, beta: float = 0.0
) -> Tensor:
    """Compute each question's negative expected reward plus beta times the KL from the reference: [questions].

    Args:
        logprobs: [questions, options] log-probabilities; -inf where a question has fewer options.
        rewards: [questions, options] reward of each option; any finite number where there is no option.
        reference: [questions, options] log-probabilities of the reference; None leaves the divergence out.
        beta: Weight of KL(model || reference) over the options.
    """
    loss = -(logprobs.exp() * rewards).sum(dim=-1)
    if reference is None or beta == 0:
        return loss
    return loss + beta * kl(logprobs, reference)
