"""Apply the rules of a pack between a teacher and its student: groups become equal where a gate allows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from evenhand.methods.distillation._batches import Gate, Ids
from evenhand.methods.distillation._words import WordRule
from evenhand.methods.distillation.rules import EvidenceGate, RulePack, TokenRules, project
from evenhand.methods.distillation.rules.projection import Mode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

GateName = Literal["evidence", "all_positions", "masked"]


class FairRule:
    """Projects a teacher's distributions, and softens labels that a rule is about.

    See `evenhand.methods.distillation.rules.project` for the projection.
    """

    inputs = 1
    words: WordRule | None
    """Rules on words of several tokens, if there are any."""

    def __init__(
        self,
        rules: TokenRules,
        *,
        mode: Mode,
        strength: float,
        prior: Mapping[str, float] | None = None,
        soften: bool = True,
        emphasis: float = 0.0,
    ) -> None:
        """Create the rule.

        Args:
            rules: Rules in the model's tokenizer.
            mode: See `evenhand.methods.distillation.rules.project`.
            strength: See there.
            prior: See there.
            soften: Whether a label that a rule is about is replaced by the rule's distribution, with the same strength.
            emphasis: Additional weight of a position, times the probability of the rules' tokens there.
        """
        self.rules, self.mode, self.strength, self.prior = rules, mode, strength, prior
        self.soften, self.emphasis = soften and strength > 0, emphasis if strength > 0 else 0.0
        self._single = torch.tensor(sorted(rules.ids), dtype=torch.long)
        self.words = None
        if rules.sequences and strength > 0:
            self.words = WordRule(
                rules, mode=mode, strength=strength, prior=prior, soften=soften, emphasis=self.emphasis
            )
        several = self.words.tree.tokens if self.words else ()
        self.tokens = torch.tensor(sorted({*rules.ids, *several}), dtype=torch.long)

    def read(self, ids: Tensor) -> Tensor:
        """Return the texts as they are."""
        return ids[None]

    def labels(self, labels: Tensor) -> Tensor:
        """Return the labels as they are."""
        return labels[None]

    def target(self, logprobs: Tensor, open: Tensor) -> Tensor:
        """Project the rows where the gate is open; at strength 0, return the same tensor object."""
        if self.strength == 0:
            return logprobs
        return project(logprobs, self.rules, mode=self.mode, strength=self.strength, prior=self.prior, where=open)

    def weight(self, logprobs: Tensor, open: Tensor) -> Tensor | None:
        """Weight positions where the rules' words are probable, whether they are moved or stay."""
        if not self.emphasis:
            return None
        mass = logprobs[:, self._single.to(logprobs.device)].exp().sum(dim=-1)
        return 1 + self.emphasis * mass

    def softened(self, labels: Tensor, open: Tensor) -> Tensor:
        """Return which labels belong to a rule where the gate is open."""
        if not self.soften:
            return torch.zeros_like(open)
        return open & torch.isin(labels, self._single.to(labels.device))

    def soft(self, labels: Tensor, logprobs: Tensor) -> Tensor:
        """Give each group of the label's class its share, within a group in the teacher's proportions."""
        out = torch.zeros_like(logprobs)
        for words in self.rules.classes:
            ids = torch.tensor([i for group in words.ids for i in group], device=labels.device)
            rows = torch.nonzero(torch.isin(labels, ids)).flatten()
            if not len(rows):
                continue
            alone = torch.full_like(logprobs[rows], float("-inf"))
            alone[:, ids] = torch.log_softmax(logprobs[rows][:, ids], dim=-1)
            out[rows] = project(
                alone, self.rules, mode="prior" if self.mode == "prior" else "arithmetic", prior=self.prior
            ).exp()
        out *= self.strength
        return out.scatter_add(1, labels[:, None], torch.full_like(out[:, :1], 1 - self.strength))


def gate(name: GateName, pack: RulePack, tokenizer: PreTrainedTokenizerBase, *, causal: bool) -> Gate:
    """Return where the rules act on a text.

    Args:
        name: all_positions is every position; masked the masked or replaced ones; evidence those of them (masked
            models), or of all (causal ones), whose context does not state the group.
        pack: Pack whose words state a group.
        tokenizer: The model's own.
        causal: Whether a position sees only what precedes it.
    """
    if name == "all_positions":
        return lambda texts, hidden: [[True] * len(ids) for ids in texts]
    if name == "masked":
        return lambda texts, hidden: [list(places) for places in hidden]
    found = EvidenceGate(tokenizer, pack, masked=not causal)

    def open_ones(texts: Sequence[Ids], hidden: Sequence[list[bool]]) -> list[list[bool]]:
        places = [mask.tolist() for mask in found(texts)]
        if causal:
            return places
        return [[a and b for a, b in zip(*pair, strict=True)] for pair in zip(places, hidden, strict=True)]

    return open_ones
