"""`permutation`: ask every question in several orders of its options, and average the order out.

Source: Liusie, Fathullah, Gales 2024, "Teacher-Student Training for Debiasing: General Permutation Debiasing for Large
Language Models" (arXiv 2403.13590): the teacher. Of two options it is the pairwise form, (P_ij + 1 - P_ji) / 2.
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
    """Take out of an answer what the order of the options put into it; K! calls a question, or fewer orders."""

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
    """probabilities averages the model's distributions (white-box); sampled counts sampled decisions (black-box)."""
    orders: WhichOrders = "auto"
    """full is all orders, cyclic the rotations, sampled are uniform draws. auto: sampled with sampled decisions, else
    full with up to three options that may move, cyclic with more."""
    mean: WhichMean = "auto"
    """Of the distributions: arithmetic (the paper's) or geometric (ours). auto: geometric over cyclic orders, where the
    arithmetic mean may favour another option; else arithmetic."""
    draws: int = 32
    """Number of orders, where they are drawn; in the paper about 32 are as good as all."""
    seed: int = 0
    """Of drawn orders and decisions."""

    def __post_init__(self) -> None:
        """Refuse settings that contradict one another."""
        permutation_ensemble.check(decisions=self.decisions, orders=self.orders, mean=self.mean, draws=self.draws)

    @property
    def seeded(self) -> bool:
        """Only drawn orders and decisions depend on the seed."""
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
