"""Train on pairs: an adapter under a weighted sum of losses, with its validation pairs scored at every check."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import torch
from torch import Tensor

from evenhand.inference.scoring import frozen
from evenhand.methods.unlearning._pairwise.letters import option_logprobs
from evenhand.methods.unlearning._pairwise.objective import (
    Objective,
    PairNll,
    pair_losses,
)
from evenhand.methods.unlearning._pairwise.parity import (
    ALL,
    EVERYTHING,
    Measure,
    PairScore,
    Turn,
    by_axis,
    columns,
    distance,
    next_turn,
)
from evenhand.methods.unlearning._pairwise.reading import Lesson, Rewarded, Row, adversarial
from evenhand.methods.unlearning._pairwise.retaining import retain_losses
from evenhand.methods.unlearning._pairwise.rewards import expected_reward_loss
from evenhand.methods.unlearning._pairwise.sequence_nll import ROW, as_reference, packed, sequence_nll
from evenhand.methods.unlearning._pairwise.steps import Part, Sizes, step
from evenhand.methods.unlearning._pairwise.terms import TEXT_TERMS
from evenhand.models.tokenization import Encoder
from evenhand.training.causal import finish_of
from evenhand.training.loop import Schedule, Training
from evenhand.training.packing import layout_of, pack

FARTHEST = "farthest_axis"
"""Column of the curve with the distance from parity of the farthest axis, in percentage points."""
NEAREST = "parity_gap"
"""Column of the curve with the absolute distance of all pairs from parity."""


class Plan(NamedTuple):
    """How the adapter is trained."""

    objective: Objective
    schedule: Schedule
    """Schedule whose epochs are rounds: what is trained between two checks."""
    sizes: Sizes
    steps: int
    """Maximum number of optimizer steps."""
    round_steps: int
    """Number of optimizer steps in a round; the last one may have fewer."""
    batch_tokens: int
    stop_at_parity: bool
    swap: bool
    measure: Measure
    tolerance: float
    """Percentage points that count as parity."""
    adversarial_fraction: float


class Run:
    """An adapter in training."""

    def __init__(self, tuned: Any, tokenizer: Any, lesson: Lesson, plan: Plan) -> None:
        """Score the training pairs under the reference, once, and the validation pairs before training.

        Args:
            tuned: A causal language model under a fresh adapter, on its device.
            tokenizer: Its tokenizer.
            lesson: Training data.
            plan: How it is trained.
        """
        self.tuned, self.lesson, self.plan = tuned, lesson, plan
        self.encoder, self.layout, self.finish = Encoder(tokenizer), layout_of(tuned), finish_of(tuned)
        self.adversarial = adversarial(lesson.train, plan.adversarial_fraction, plan.schedule.seed)
        self.turn: Turn | None = EVERYTHING
        with as_reference(tuned):
            self.reference = self._sums(tuned, lesson.train) if plan.objective.of("dpo", "npo") else None
        self.baseline = self.evaluate(tuned)

    def train(self, folder: Path | None) -> dict[str, Any]:
        """Train, and leave the best weights in the module.

        Args:
            folder: Folder for checkpoints; None writes none.

        Returns:
            Fields of a `TrainingRecord` about the training.
        """
        began = time.monotonic()
        rows: list[dict[str, float]] = []
        best = -1
        if not self.finished([self.baseline] if self.baseline else []):
            rows, best = self._training(folder).run()
        self.tuned.eval()
        return {
            "curve": ({"epoch": -1.0, **self.baseline}, *rows) if self.baseline else tuple(rows),
            "best_epoch": best,
            "steps": min(len(rows) * self.plan.round_steps, self.plan.steps),
            "seconds": round(time.monotonic() - began, 1),
        }

    def _training(self, folder: Path | None) -> Training[Part]:
        watched = (FARTHEST if self.plan.swap else NEAREST) if self.plan.stop_at_parity else ""
        return Training(
            module=self.tuned,
            batches=self.batches,
            loss=self.loss,
            evaluate=self.evaluate if self.baseline else None,
            watched=watched,
            stop=lambda curve: self.finished([self.baseline, *curve]) if self.baseline else False,
            schedule=self.plan.schedule,
            folder=folder,
            label="training on pairs",
        )

    def finished(self, curve: Sequence[Mapping[str, float]]) -> bool:
        """Whether parity is reached; if not, the last row determines what is trained next."""
        if not curve or not self.plan.stop_at_parity:
            return False
        if self.plan.swap:
            self.turn = next_turn(self._taught(curve[-1]), self.plan.tolerance)
            return self.turn is None
        return curve[-1][NEAREST] < self.plan.tolerance

    def _taught(self, row: Mapping[str, float]) -> dict[str, float]:
        """Return the distance of each axis that can be trained on; the others move by chance."""
        taught = {pair.axis for pair in self.lesson.train}
        return {axis: value for axis, value in by_axis(row).items() if axis in taught or not self.plan.swap}

    def batches(self, round_: int, _: Random) -> list[Part]:
        """Return the parts of all optimizer steps of a round."""
        first, plan = round_ * self.plan.round_steps, self.plan
        turn = self.turn or EVERYTHING
        return [
            part
            for number in range(first, min(first + plan.round_steps, plan.steps))
            for part in step(number, self.lesson, plan.sizes, turn, self.adversarial, plan.schedule.seed)
        ]

    # --------------------------------------------------------------------------------------------------- the loss

    def loss(self, network: Any, part: Part) -> Tensor:
        """Compute the weighted sum of all losses on one part of a step."""
        found: dict[str, Tensor] = {}
        if part.pairs:
            found |= pair_losses(self.pair_nll(network, part), self.plan.objective, part.totals, part.parts)
        if part.texts:
            found |= self._retained(network, part)
        if part.questions:
            weight = self.plan.objective.weights["reward"]
            found["reward"] = (
                weight * self._rewarded(network, part.questions).sum() * (part.parts / part.totals.questions)
            )
        return torch.stack(list(found.values())).sum()

    def pair_nll(self, network: Any, part: Part) -> PairNll:
        """Compute the network's likelihoods of a part's pairs, with the reference's."""
        rows = [self.lesson.train[n] for n in part.pairs]
        chosen, rejected = self._sums(network, rows)
        ref_chosen, ref_rejected = chosen.detach(), rejected.detach()
        if self.reference is not None:
            ref_chosen, ref_rejected = (side[list(part.pairs)] for side in self.reference)
        lengths = [chosen.new_tensor([len(ids) for ids in side]) for side in zip(*(r[1:3] for r in rows), strict=True)]
        also = torch.tensor([n in self.adversarial for n in part.pairs], device=chosen.device)
        if part.swapped:
            return PairNll(rejected, chosen, lengths[1], lengths[0], ref_rejected, ref_chosen, also)
        return PairNll(chosen, rejected, lengths[0], lengths[1], ref_chosen, ref_rejected, also)

    def _sums(self, network: Any, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
        """Return [rows] nll of the chosen sides, and of the rejected ones."""
        prompts = [row.prompt for row in rows] * 2
        continuations = [row.chosen for row in rows] + [row.rejected for row in rows]
        batches = packed(prompts, continuations, self.layout, self.plan.batch_tokens)
        nll = sequence_nll(network, batches, len(prompts), self.finish)
        return nll[: len(rows)], nll[len(rows) :]

    def _retained(self, network: Any, part: Part) -> dict[str, Tensor]:
        weights = self.plan.objective.of(*TEXT_TERMS)
        texts = [self.lesson.texts[n] for n in part.texts]
        form, share = self.plan.objective.retain_kl_form, part.parts / part.totals.text_tokens
        found: dict[str, Tensor] = {}
        for batch in pack(texts, self.layout, length=ROW, tokens=self.plan.batch_tokens):
            for name, value in retain_losses(network, batch, self.finish, tuple(weights), form).items():
                weighted = weights[name] * value * share
                found[name] = found[name] + weighted if name in found else weighted
        return found

    def _rewarded(self, network: Any, questions: Sequence[Rewarded]) -> Tensor:
        """Return [questions] negative expected reward, with the divergence from the reference."""
        asked = [one.question for one in questions]
        beta, reference = self.plan.objective.reward_beta, None
        if beta:  # first, as PEFT turns the adapter's gradients off and on
            with as_reference(network):
                reference = option_logprobs(network, asked, self.encoder)
        logprobs = option_logprobs(network, asked, self.encoder)
        return expected_reward_loss(logprobs, _padded(questions, logprobs), reference, beta)

    # ------------------------------------------------------------------------------------------------ the evaluation

    def evaluate(self, network: Any) -> dict[str, float]:
        """Compute distances from parity on the validation pairs, and the expected reward of held-out questions."""
        with frozen(network):
            return {**self._parity(network), **self._reward(network)}

    def _parity(self, network: Any) -> dict[str, float]:
        rows = self.lesson.held
        if not rows:
            return {}
        chosen, rejected = (side.tolist() for side in self._sums(network, rows))
        scores = [
            PairScore(one, other, len(row.chosen), len(row.rejected), row.axis)
            for one, other, row in zip(chosen, rejected, rows, strict=True)
        ]
        found = columns(scores, self.plan.measure)
        preferred = distance(scores, "stereotype_score")
        farthest = max(map(abs, self._taught(found).values()))
        return {**found, "stereotype_score": 50 + preferred, NEAREST: abs(found[ALL]), FARTHEST: farthest}

    def _reward(self, network: Any) -> dict[str, float]:
        every = self.lesson.held_questions
        if not every:
            return {}
        size, total = max(1, self.plan.sizes.questions), 0.0
        for at in range(0, len(every), size):
            some = every[at : at + size]
            logprobs = option_logprobs(network, [one.question for one in some], self.encoder)
            total -= float(expected_reward_loss(logprobs, _padded(some, logprobs)).sum())
        return {"held_out_reward": total / len(every)}


def _padded(questions: Sequence[Rewarded], logprobs: Tensor) -> Tensor:
    """Return rewards in the shape of the log-probabilities, [questions, options]."""
    widest = logprobs.shape[1]
    return logprobs.new_tensor([[*one.rewards, *[0.0] * (widest - len(one.rewards))] for one in questions])
