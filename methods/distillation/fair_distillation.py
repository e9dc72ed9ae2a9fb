"""`fair_distillation`: a student of a teacher whose predictions were made to keep a rule, such as P(he) = P(she).

Source: Delobelle & Berendt 2022, "FairDistillation: Mitigating Stereotyping in Language Models" (ECML-PKDD 2022, arXiv
2207.04546; code iPieter/universal-distillation): the rule between teacher and student, and the loss. Ours: rules as
data, with classes of several words; the projection that keeps a class's mass; strength and prior; the gate; causal
models; students that are the model itself; softened labels; the locality term.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from evenhand.errors import SettingsError
from evenhand.interfaces import Model, settings
from evenhand.methods.distillation._text_training import TextDistillation
from evenhand.training.preset_values import UNSTATED

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from evenhand.methods.distillation._batches import Gate
    from evenhand.methods.distillation._losses import Rule

_PAPER = {
    "rules": "en_subject",
    "student": "random",
    "kl": 5.0,
    "hard": 2.0,
    "cosine": 1.0,
    "temperature": 2.0,
    "gate": "all_positions",
    "soften": False,
    "emphasis": 0.0,
    "rule_masking": None,
    "compared": "all",
    "strength": 1.0,
    "layers": None,
    "masking": 0.15,
    "max_length": 256,
    "learning_rate": 5e-4,
    "learning_rate_decay": "linear",
    "epochs": 3,
    "warmup_ratio": 0.05,
    "weight_decay": 0.01,
    "max_grad_norm": 1.0,
    "batch_size": None,
    "gradient_accumulation_steps": 1,
    "precision": "auto",
    "validation_fraction": 0.1,
    "patience": 0,
}
_CODE = "iPieter/universal-distillation 9df92b2"
_SIBLING = "a sibling run of the authors"
_RELEASED = {
    **_PAPER,
    "mode": "geometric",  # the mean of the two logits
    "rules": "en_subject_lower",  # he and she as they are written, and no other case
    "layers": 6,
    "max_length": 512,
    "batch_size": 6,
    "learning_rate": 2e-5,
    "learning_rate_decay": "none",
    "warmup_ratio": 0.0,
    "weight_decay": 0.0,
    "max_grad_norm": 0.0,
    "keep_epoch": "last",
    "watch": "pseudo_perplexity",
    "patience": 3,
}
"""iPieter/universal-distillation 9df92b2 with its constraints on, which its command line leaves out."""


@settings
class FairDistillation(TextDistillation):
    """Teach a student what the model says once groups are made equally probable."""

    name: ClassVar[str] = "fair_distillation"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {**_PAPER, "mode": "arithmetic"},
        "released": _RELEASED,
    }

    preset_sources: ClassVar[dict[str, dict[str, str]]] = {
        "paper": {
            "": "arXiv 2207.04546",
            "rules": "arXiv 2207.04546; its lists of evidence are ours and not used",
            "layers": "arXiv 2207.04546: 6 of 12, which None stands for",
            "masking": f"{_CODE}, data/jit/dataloader.py: mlm_mask_prop",
            "max_length": UNSTATED,
            "learning_rate": _SIBLING,
            "learning_rate_decay": UNSTATED,
            "epochs": _SIBLING,
            "warmup_ratio": _SIBLING,
            "weight_decay": _SIBLING,
            "max_grad_norm": UNSTATED,
            "batch_size": UNSTATED,
            "gradient_accumulation_steps": UNSTATED,
            "precision": UNSTATED,
            "validation_fraction": UNSTATED,
            "soften": "ours, off",
            "emphasis": "ours, off",
            "rule_masking": "ours, off",
            "patience": "nothing ends the training early",
        },
        "released": {
            "": _CODE,
            "masking": f"{_CODE}, data/jit/dataloader.py: mlm_mask_prop",
            "learning_rate_decay": f"ours: the line of {_CODE}, modules/base.py, is of batches of 32 texts, not 6",
            "epochs": f"{_CODE}, README",
            "max_grad_norm": f"default of Lightning's Trainer, which {_CODE} leaves",
            "precision": f"ours: {_CODE} has float32",
            "validation_fraction": f"ours: {_CODE} has validation texts in a file of their own (--val_data)",
            "watch": f"{_CODE}; that it is taken at hidden tokens is ours",
            "soften": "ours, off",
            "emphasis": "ours, off",
            "rule_masking": "ours, off",
            "patience": "ours, after the early stop of the released code",
        },
    }

    rules: str = "en_pronouns"
    """Which words are to be equally probable: a rule pack's name or file."""
    words: Literal["skip", "refuse", "sequence"] = "skip"
    """What happens to words of a pack that are not one token of the model: they are left out, and the report says so,
    or the pack is refused, or (ours, causal models alone) the rule acts on whole words, where a text begins one."""
    mode: Literal["arithmetic", "geometric", "prior"] = "arithmetic"
    """arithmetic gives each group the same share of their sum (the paper's text); geometric is what the released code
    does, which averages logits: the same before and after the temperature; prior gives them the shares of `prior`."""
    prior: dict[str, float] | None = None
    """Share of each group for mode=prior; None takes those of the pack."""
    strength: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Way from the teacher's own prediction (0) to the rule's (1)."""
    gate: Literal["evidence", "all_positions", "masked"] = "evidence"
    """Where the rule acts. evidence: where nothing in the context says of whom it speaks (of a masked model, hidden
    or replaced places only). all_positions is the paper's, which takes the answer from sentences that tell it, too.
    masked: all hidden or replaced places of a masked model."""
    soften: bool = True
    """Whether a word of the text that the rule is about is learned as the rule has it, where the rule acts."""

    emphasis: Annotated[float, Field(ge=0)] = 20.0
    """How much more a place counts in the divergence, times the probability of the rule's words there: places where
    they are due are few, whether the rule moves them or they are to stay. It moves no optimum of a place, only how fast
    it is found; 0 is the paper's."""

    def __post_init__(self) -> None:
        """Refuse settings that contradict one another."""
        TextDistillation.__post_init__(self)
        if self.prior is not None and self.mode != "prior":
            raise SettingsError(f"prior= is for mode=prior; mode is {self.mode}: set it, or leave prior out")

    def _unfit(self, model: Model) -> str:
        """A causal model hides no places, and a masked one has no probability of a word of several tokens."""
        causal = model.architecture == "causal"
        if self.gate == "masked" and causal:
            return f"{self.name}(gate=masked) is for masked models; {model.name} is causal: take gate=evidence"
        if self.words == "sequence" and not causal:
            return (
                f"{self.name}(words=sequence) is for causal models: the masked model {model.name} has no probability "
                "of a word of several tokens that does not hang on their order; take words=skip"
            )
        return ""

    def lesson(self, tokenizer: PreTrainedTokenizerBase, *, causal: bool) -> tuple[Rule, Gate, dict[str, Any]]:
        """The rules in the model's tokenizer, and the gate."""
        from evenhand.methods.distillation._fair import FairRule, gate
        from evenhand.methods.distillation.rules import resolve, rule_pack

        pack = rule_pack(self.rules)
        found = resolve(pack, tokenizer, masked=not causal, multi=self.words)
        rule = FairRule(
            found, mode=self.mode, strength=self.strength, prior=self.prior, soften=self.soften, emphasis=self.emphasis
        )
        facts = {"rules": pack.name, "rules_hash": pack.hash, "rules_report": found.report()}
        return rule, gate(self.gate, pack, tokenizer, causal=causal), facts

    @property
    def rule_hash(self) -> str:
        """Of the pack's content."""
        from evenhand.methods.distillation.rules import rule_pack

        return rule_pack(self.rules).hash
