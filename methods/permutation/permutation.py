"""`permutation`: the permutation ensemble, which asks every question in several option orders and averages over them.

Source: Liusie, Fathullah, Gales 2024, "Teacher-Student Training for Debiasing: General Permutation Debiasing for Large
Language Models" (arXiv 2403.13590): the teacher. For two options it is the pairwise form, (P_ij + 1 - P_ji) / 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from evenhand.interfaces import Ability, Choice, Method, Model, Question, TrainData, settings
from evenhand.models import Mitigated
from evenhand.prompting import permutation_ensemble
from evenhand.prompting.permutation_ensemble import Decisions, WhichMean, WhichOrders


@settings
class Permutation(Method):
    """Take out of an answer what the order of the options put into it; K! calls per question, or fewer orders."""

    name: ClassVar[str] = "permutation"
    needs: ClassVar[frozenset[Ability]] = frozenset({"choose"})
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {"orders": "full", "mean": "arithmetic"},
        "paper_black_box": {"decisions": "sampled", "orders": "sampled", "draws": 32},
    }

    preset_sources: ClassVar[dict[str, dict[str, str]]] = {
        "paper": {"": "arXiv 2403.13590, white-box teacher"},
        "paper_black_box": {"": "arXiv 2403.13590, black-box teacher"},
    }

    decisions: Decisions = "probabilities"
    """What is averaged. probabilities: the model's distributions (white-box). sampled: counts of sampled decisions
    (black-box)."""
    orders: WhichOrders = "auto"
    """Orders in which each question is asked. full: all orders. cyclic: the rotations. sampled: uniform draws. auto:
    sampled with sampled decisions, otherwise full with up to three options that can move, and cyclic with more."""
    mean: WhichMean = "auto"
    """How distributions are averaged: arithmetic (the paper's) or geometric (ours). auto: geometric over cyclic orders,
    where the arithmetic mean may favour another option; otherwise arithmetic."""
    draws: int = 32
    """Number of orders if they are drawn; in the paper about 32 are as good as all."""
    seed: int = 0
    """Seed of drawn orders and decisions."""

    def __post_init__(self) -> None:
        """Refuse settings that contradict one another."""
        permutation_ensemble.check(decisions=self.decisions, orders=self.orders, mean=self.mean, draws=self.draws)

    @property
    def seeded(self) -> bool:
        """Whether orders or decisions are drawn, since only these depend on the seed."""
        return "sampled" in (self.orders, self.decisions)

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        """Wrap the model: every question is asked in all its orders, all in one call."""

        def choose(questions: Sequence[Question]) -> list[Choice]:
            found = permutation_ensemble.debiased(
                model,
                questions,
                decisions=self.decisions,
                orders=self.orders,
                mean=self.mean,
                draws=self.draws,
                seed=self.seed,
            )
            return [d.choice for d in found]

        return Mitigated(model, self, choose=choose)
