"""`counterfactual_distillation`: a student of its teacher's mean prediction over a text and its swapped forms.

Ours, after adversarial counterfactual distillation for recommenders: "The nurse said that" is read with every group's
words in turn, the teacher's distributions are swapped back and averaged, and the student learns the mean in
every reading. If the text states the group ("the woman ... she"), its readings differ and the mean keeps what it
says; if not, they are identical and the groups become equally probable. No gate is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from evenhand.interfaces import settings
from evenhand.methods.distillation._text_training import TextDistillation

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from evenhand.methods.distillation._batches import Gate
    from evenhand.methods.distillation._losses import Rule


@settings
class CounterfactualDistillation(TextDistillation):
    """Teach a student the mean of what the model says when the groups change places."""

    name: ClassVar[str] = "counterfactual_distillation"

    swaps: str = "en"
    """Words that change places: en, or a text file with one line of words per group."""
    strength: Annotated[float, Field(ge=0, le=1)] = 1.0
    """How far to move from the teacher's own prediction (0) to the mean over the swaps (1)."""
    emphasis: Annotated[float, Field(ge=0)] = 20.0
    """Additional weight of a position in the divergence, times the probability of the swapped words there."""

    def lesson(self, tokenizer: PreTrainedTokenizerBase, *, causal: bool) -> tuple[Rule, Gate, dict[str, Any]]:
        """Return the swaps in the model's tokenizer; they act everywhere."""
        from evenhand.methods.distillation._counterfactual import SwapRule, report, resolved, swap_lines

        found = resolved(swap_lines(self.swaps), tokenizer)
        rule = SwapRule(found, strength=self.strength, emphasis=self.emphasis)
        facts = {"rules": f"swaps {self.swaps}", "rules_report": report(found)}
        return rule, lambda texts, hidden: [[True] * len(ids) for ids in texts], facts

    @property
    def rule_hash(self) -> str:
        """Hash the list of swaps."""
        from evenhand.core.hashing import digest
        from evenhand.methods.distillation._counterfactual import swap_lines

        return digest(swap_lines(self.swaps))
