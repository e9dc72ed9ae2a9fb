"""`fair_distillation`: a student of a teacher whose predictions are made to satisfy a rule, such as P(he) = P(she).

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
    "rules": "en_subject_lower",  # he and she in lower case only
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
"""Values of iPieter/universal-distillation 9df92b2 with its constraints on, which its command line leaves out."""


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
    """Words that are to be equally probable: name or file of a rule pack."""
    words: Literal["skip", "refuse", "sequence"] = "skip"
    """How words of a pack that are several tokens of the model are handled. skip: they are left out, and the report
    lists them. refuse: the pack is refused. sequence (ours, causal models only): the rule acts on whole words, where a
    text begins one."""
    mode: Literal["arithmetic", "geometric", "prior"] = "arithmetic"
    """How groups are made equal. arithmetic: each gets the same share of their sum (the paper's text). geometric:
    logits are averaged as in the released code, with the same result before and after the temperature. prior: they get
    the shares of `prior`."""
    prior: dict[str, float] | None = None
    """Share of each group with mode=prior; None takes those of the pack."""
    strength: Annotated[float, Field(ge=0, le=1)] = 1.0
    """How far to move from the teacher's own prediction (0) to the rule's (1)."""
    gate: Literal["evidence", "all_positions", "masked"] = "evidence"
    """Where the rule acts. evidence: where nothing in the context states the group (in a masked model, at masked or
    replaced positions only). all_positions: everywhere, as in the paper, which also affects sentences that state the
    group. masked: all masked or replaced positions of a masked model."""
    soften: bool = True
    """Whether a word that the rule is about is learned as the rule's distribution rather than as written, where the
    rule acts."""

    emphasis: Annotated[float, Field(ge=0)] = 20.0
    """Additional weight of a position in the divergence, times the probability of the rule's words there: positions
    where they are expected are few, whether the rule moves them or they are to stay. It does not change the optimum at
    a position, only how fast it is reached; 0 in the paper."""

    def __post_init__(self) -> None:
        """Refuse settings that contradict one another."""
        TextDistillation.__post_init__(self)
        if self.prior is not None and self.mode != "prior":
            raise SettingsError(f"prior= is for mode=prior; mode is {self.mode}: set it, or leave prior out")

    def _unfit(self, model: Model) -> str:
        """Return a reason against gate=masked for causal models, and words=sequence for masked ones."""
        causal = model.architecture == "causal"
        if self.gate == "masked" and causal:
            return f"{self.name}(gate=masked) is for masked models; {model.name} is causal: set gate=evidence"
        if self.words == "sequence" and not causal:
            return (
                f"{self.name}(words=sequence) is for causal models: the masked model {model.name} has no probability "
                "of a word of several tokens that is independent of their order; set words=skip"
            )
        return ""

    def lesson(self, tokenizer: PreTrainedTokenizerBase, *, causal: bool) -> tuple[Rule, Gate, dict[str, Any]]:
        """Return the rules in the model's tokenizer, and the gate."""
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
        """Hash the pack's content."""
        from evenhand.methods.distillation.rules import rule_pack

        return rule_pack(self.rules).hash
