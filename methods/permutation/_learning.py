"""Train a student on a debiased teacher's distribution: draws, loss, evaluation, and whether it learned at all.

Source: Liusie et al. 2024 (arXiv 2403.13590). Every epoch shows each question in a fresh order and, for error
correction, with a fresh decision of the teacher; the target is P_deb throughout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np

from evenhand.core.draws import generator
from evenhand.interfaces import Array, Question
from evenhand.methods.permutation._texts import Asked
from evenhand.prompting.option_orders import orders_of
from evenhand.prompting.permutation_ensemble import Debiased, drawn
from evenhand.training.divergences import kl
from evenhand.training.holding_out import Text
from evenhand.training.loop import Schedule, Training

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

Variant = Literal["distilled", "error_correction"]
Decision = Literal["likeliest", "sampled"]
HELD_OUT = -1
"""Epoch number of the orders and decisions in which the held-out questions are shown, always the same."""
SURE = 0.05
"""A student has collapsed if chance reaches its agreement with the teacher with a larger probability than this."""
LEAST_VARIED = 1e-3
"""Probabilities that vary less than this over questions count as constant."""


class Reads(Protocol):
    """Turns questions into scores: a form of an encoder, or the letters of a language model."""

    def scores(self, module: Any, asked: Sequence[Asked]) -> Tensor:
        """Return [questions, most options] unnormalised scores by identity, -inf if a question has fewer options."""


class Example(NamedTuple):
    """A question that the teacher answered."""

    question: Question
    taught: Debiased
    gold: int | None = None


class Shown(NamedTuple):
    """An example as it is shown once."""

    asked: Asked
    target: Array
    """Target probabilities, [K] by identity."""


def usable(example: Example, variant: Variant) -> bool:
    """Whether something can be learned from an example."""
    if example.taught.probabilities is None:
        return False
    return variant == "distilled" or any(d is not None for d in example.taught.decisions)


def show(example: Example, variant: Variant, decision: Decision, counted: bool, seed: int, epoch: int) -> Shown:
    """Draw order and decision, by (seed, epoch, question id) only.

    Args:
        example: A usable example.
        variant: Pure distillation takes any order; error correction an order in which the teacher was asked.
        decision: The teacher's most probable option in the order, or a draw from its distribution there.
        counted: Whether P_deb was counted from sampled decisions. The shown decision is then left out of the
            target: otherwise the student would learn to trust what it is to correct.
        seed: Seed of all draws.
        epoch: Number of the epoch, from 0; `HELD_OUT` for held-out questions.
    """
    question, taught = example.question, example.taught
    rng = generator(seed, epoch + 1, question.id)
    target = np.asarray(taught.probabilities, dtype=np.float64)
    if variant == "distilled":
        order = orders_of(question, "sampled", count=1, seed=int(rng.integers(2**32)))[0]
        return Shown(Asked(question.reordered(order)), target)
    known = [n for n, d in enumerate(taught.decisions) if d is not None]
    n = known[int(rng.integers(len(known)))]
    shares, marked = taught.distributions[n], taught.decisions[n]
    if decision == "sampled" and shares is not None and not counted:
        marked = drawn(shares, float(rng.random()))
    if counted and len(known) > 1 and marked is not None:
        counts = target * len(known)
        counts[marked] -= 1
        target = np.maximum(counts, 0) / (len(known) - 1)
    return Shown(Asked(question.reordered(taught.orders[n]), marked), target)


def texts_of(example: Example) -> list[Text]:
    """Return what distinguishes a question from others, for `hold_out`: its text and its options in any order."""
    question = example.question
    return [(question.context, question.question, *sorted(question.options))]


def log_probabilities(scores: Tensor) -> Tensor:
    """Return natural logs over the options of each question; 0 in place of missing options."""
    import torch

    return torch.log_softmax(scores, dim=-1).masked_fill(scores == float("-inf"), 0.0)


def targets(shown: Sequence[Shown], like: Tensor) -> Tensor:
    """Return [questions, most options] of the targets, 0 if a question has fewer options."""
    import torch

    table = np.zeros(tuple(like.shape))
    for n, s in enumerate(shown):
        table[n, : len(s.target)] = s.target
    return torch.tensor(table, dtype=like.dtype, device=like.device)


def divergence(shown: Sequence[Shown], scores: Tensor) -> Tensor:
    """Compute KL(target || student) of each question, [questions], natural log.

    For counted decisions it differs from their mean cross-entropy by a constant, and so has the same gradient.
    """
    target = targets(shown, scores)
    return kl(target.log(), log_probabilities(scores), mass=target)


@dataclass(frozen=True)
class Judged:
    """A student's answers to held-out questions."""

    shown: list[Shown]
    probabilities: list[Array]
    """[K] by identity for each question."""
    gold: list[int | None] = field(default_factory=list)
    kind: str = "held-out"
    """Kind of questions, for messages."""

    @property
    def kl(self) -> float:
        """Mean KL(P_deb || student), natural log."""
        import torch

        pairs = [(s.target, np.maximum(p, 1e-300)) for s, p in zip(self.shown, self.probabilities, strict=True)]
        return float(np.mean([float(kl(*(torch.as_tensor(x).log() for x in pair))) for pair in pairs]))

    @property
    def agreed(self) -> int:
        """Number of questions on which student and debiased teacher choose the same option."""
        pairs = zip(self.shown, self.probabilities, strict=True)
        return sum(int(s.target.argmax()) == int(p.argmax()) for s, p in pairs)

    @property
    def numbers(self) -> dict[str, float]:
        """Return numbers for the learning curve."""
        out = {"held_out_kl": self.kl, "held_out_agreement": self.agreed / len(self.shown)}
        labelled = [int(p.argmax()) == g for p, g in zip(self.probabilities, self.gold, strict=True) if g is not None]
        return out | ({"held_out_accuracy": float(np.mean(labelled))} if labelled else {})

    @property
    def copied(self) -> float | None:
        """Agreement that copying the shown decision would reach; None if none was shown."""
        marked = [(s.asked.marked, int(s.target.argmax())) for s in self.shown if s.asked.marked is not None]
        return float(np.mean([m == t for m, t in marked])) if marked else None

    @property
    def collapsed(self) -> str:
        """Why the student is no better than chance, or "".

        Chance is 1 / K of each question, as the orders were drawn. A binomial test, one-sided: the student has to
        agree with the teacher more often than chance does in 19 of 20 cases.
        """
        from scipy.stats import binomtest

        count = len(self.shown)
        chance = float(np.mean([1 / len(s.target) for s in self.shown]))
        value = float(binomtest(self.agreed, count, chance, alternative="greater").pvalue)
        at = [
            [float(p[option]) for option in s.asked.question.order]
            for s, p in zip(self.shown, self.probabilities, strict=True)
        ]
        alike = {len(p) for p in at} if count > 1 else set()
        varied = max((float(np.ptp(np.array([p for p in at if len(p) == k]), axis=0).max()) for k in alike), default=1)
        if varied < LEAST_VARIED:
            return f"it gives every one of {count} {self.kind} questions the same probabilities"
        if value > SURE:
            return (
                f"it agrees with its teacher on {self.agreed} of {count} {self.kind} questions, where chance alone "
                f"reaches {chance * count:.1f} (p = {value:.2g})"
            )
        return ""


class Outcome(NamedTuple):
    """How a student's training went."""

    curve: list[dict[str, float]]
    best: int
    judged: Judged


def learn(
    module: Any,
    reads: Reads,
    train: Sequence[Example],
    held: Sequence[Example],
    *,
    schedule: Schedule,
    batch_size: int,
    variant: Variant = "distilled",
    decision: Decision = "likeliest",
    counted: bool = False,
    folder: Path | None = None,
) -> Outcome:
    """Train a student in place by KL(P_deb || student); the weights of the lowest held-out KL are kept.

    Args:
        module: The network.
        reads: Turns questions into its scores.
        train: Usable examples to train on.
        held: Usable held-out examples. Without any, the last epoch's weights are kept, and evaluated on `train`.
        schedule: Length and learning rates.
        batch_size: Number of questions per batch.
        variant: What is shown to the student.
        decision: Which decision of the teacher is shown, for error correction.
        counted: See `show`.
        folder: Folder for checkpoints.
    """
    seed = schedule.seed

    def shown(examples: Sequence[Example], epoch: int) -> list[Shown]:
        return [show(e, variant, decision, counted, seed, epoch) for e in examples]

    def batches(epoch: int, random: Random) -> list[list[Shown]]:
        some = shown(train, epoch)
        random.shuffle(some)
        return [some[start : start + batch_size] for start in range(0, len(some), batch_size)]

    asked = held or train
    fixed = shown(asked, HELD_OUT)

    def judged(network: Any) -> Judged:
        found = judge(network, reads, fixed, [e.gold for e in asked], batch_size)
        return found if held else replace(found, kind="training")

    trained = Training(
        module=module,
        batches=batches,
        loss=lambda network, batch: divergence(batch, reads.scores(network, [s.asked for s in batch])).mean(),
        evaluate=(lambda network: judged(network).numbers) if held else None,
        watched="held_out_kl",
        schedule=schedule,
        folder=folder,
        label="training the student",
    ).run()
    return Outcome(trained.curve, trained.best, judged(module))


def judge(
    module: Any, reads: Reads, shown: Sequence[Shown], gold: Sequence[int | None], batch_size: int = 32
) -> Judged:
    """Return a student's answers to questions, with gradients and dropout off."""
    import torch

    from evenhand.inference.scoring import evaluating

    found: list[Array] = []
    with evaluating(module):
        for start in range(0, len(shown), batch_size):
            some = shown[start : start + batch_size]
            table = torch.softmax(reads.scores(module, [s.asked for s in some]).double(), dim=-1).cpu().numpy()
            found += [row[: len(s.target)] for row, s in zip(table, some, strict=True)]
    return Judged(list(shown), found, list(gold))
