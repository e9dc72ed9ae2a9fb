"""A local model whose next token also depends on what it would write after other texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evenhand.core.hashing import digest
from evenhand.errors import MissingAbilityError
from evenhand.inference import Generated, Prompt
from evenhand.inference.requests import NOT_FINITE
from evenhand.interfaces import AnswerBy, Array, Choice, Combine, Dialogue, Question, Sampling, Usage
from evenhand.models import choosing
from evenhand.models.token_model import TokenModel
from evenhand.prompting import rendering

if TYPE_CHECKING:
    from torch import Tensor

    from evenhand.inference import Engine


class PrefixedModel(TokenModel):
    """A model guided by prefixes. It chooses and generates; scoring would need all logits at every token of a text."""

    engine: Engine

    def __init__(
        self, base: TokenModel, engine: Engine, prefixes: Sequence[str], combine: Combine, settings: object
    ) -> None:
        """Guide a model by prefixes.

        Args:
            base: Model to guide.
            engine: Engine of the base; unlike a server's, it gives the logits of all tokens.
            prefixes: Texts put before a prompt, on lines of their own; with a chat template, at the start of the first
                user turn (`_in_turn`).
            combine: Combines the log-probabilities without a prefix and after each prefix into one distribution.
            settings: JSON values that `combine` depends on, for the fingerprint.
        """
        super().__init__(
            base._tokenizer,
            engine,
            name=base.name,
            answer_by=base.answer_by,
            sampling=base.sampling,
            too_long=base.too_long,
        )
        self.base, self.prefixes, self.combine = base, list(prefixes), combine
        self._settings = settings
        self._in_turn = self._encoder.templated and not base.facts().get("demo")
        """Whether a prefix goes into the user's turn: chat models never saw text before their template's first mark;
        the demo models did: in their training, the prefix came first."""
        self.thinking_tokens = 0  # thoughts after the prefixes would be guided as well, and are not answers

    @property
    def fingerprint(self) -> str:
        """Hash of the base, the prefixes, their position, and the settings."""
        place = ["user's turn"] if self._in_turn else []
        return digest(self.base.fingerprint, self.prefixes, self._settings, *place)

    def rehash(self) -> None:
        """Hash the base's weights now."""
        self.base.rehash()

    @property
    def context_length(self) -> int:  # type: ignore[override]  # derived, so it cannot be set
        """Context length of the base."""
        return self.base.context_length

    def save(self, folder: str | Path) -> Path:
        """Refuse to save: the method that made it is saved with the base."""
        raise MissingAbilityError(f"{self.name} guided by prefixes is saved with the method that made it")

    def written(self, dialogues: Sequence[Dialogue], sampling: Sampling) -> list[tuple[Prompt, Generated | None]]:
        """Return each dialogue in tokens, with its prefixed versions, and the tokens generated after it."""
        sampling = self.dialogue_sampling(sampling)
        texts = self._encoder.dialogue_texts(dialogues)
        own = self._encoder.prompted(texts)
        beside = list(zip(*(self._encoder.prompted(self._behind(p, dialogues)) for p in self.prefixes), strict=True))
        asked = [
            Prompt(tuple(ids), d.draw, tuple(tuple(b) for b in others))
            for ids, d, others in zip(own, dialogues, beside, strict=True)
        ]
        needed = [(max((p.ids, *p.beside), key=len), sampling.max_new_tokens) for p in asked]
        fits = self._fitting(needed, [f"dialogue {i}" for i in range(len(asked))])
        made = self.engine.generate([asked[i] for i in fits], sampling, self.fingerprint, self._of_logits)
        done = dict(zip(fits, made, strict=True))
        return [(p, done.get(i)) for i, p in enumerate(asked)]

    def _by_letters(self, questions: list[Question]) -> list[Choice]:
        asked = [rendering.as_dialogue(q, "letters") for q in questions]
        texts = [self._encoder.dialogue_texts(asked), *(self._behind(p, asked) for p in self.prefixes)]
        heads = [self._encoder.prompted(t) for t in texts]
        needed = [(max((h[i] for h in heads), key=len), 1) for i in range(len(questions))]
        fits = self._fitting(needed, [q.id for q in questions])
        plans = [[self._letter_plan(t[i], h[i], questions[i]) for i in fits] for t, h in zip(texts, heads, strict=True)]
        requests = [r for per_text in plans for plan in per_text for r in plan.requests]
        reads = iter(self.engine.read(requests, self.base.fingerprint))
        logprobs = [[np.array([sum(next(reads)) for _ in p.requests]) for p in per_text] for per_text in plans]
        done = {}
        for n, i in enumerate(fits):
            values = self._combined([per_text[n] for per_text in logprobs])
            choice = choosing.choice_from_letters(questions[i], plans[0][n], values, 0)
            usage = Usage(len(texts), sum(len(h[i]) for h in heads))
            if np.isnan([v for per_text in logprobs for v in per_text[n]]).any():
                choice = Choice(None, status="unanswered", note=NOT_FINITE)  # regardless of the combined value
            done[i] = replace(choice, mass=None, usage=usage)  # the mass of the other tokens is unknown
        return [done.get(i) or self._skipped(*needed[i]) for i in range(len(questions))]

    def _by_text(self, questions: list[Question], way: AnswerBy) -> list[Choice]:
        raise MissingAbilityError(
            f"{self.name} guided by prefixes cannot answer by text: use answer_by='letters' or 'generation'"
        )

    def _letter_plan(self, text: str, head: Sequence[int], question: Question) -> choosing.LetterPlan:
        options = len(question.options)
        wholes = self._encoder.prompted([text + v for v in choosing.letter_strings(options)])
        return choosing.letter_plan(head, wholes, options, self._encoder.named)

    def _of_logits(self, logits: Tensor) -> Tensor:
        return self.combine(logits.log_softmax(-1))

    def _combined(self, logprobs: Sequence[Array]) -> Array:
        """Combine the letters' log-probabilities without a prefix and after each one, [letters] each."""
        import torch

        return np.asarray(self.combine(torch.tensor(np.stack(logprobs))[None])[0].numpy())

    def _behind(self, prefix: str, dialogues: Sequence[Dialogue]) -> list[str]:
        """Return the prompts of the dialogues after a prefix; the opening token stays in front."""
        opening = self._tokenizer.bos_token or ""
        told = [self._told(prefix, dialogue) for dialogue in dialogues]
        texts = self._encoder.dialogue_texts(told)
        return [
            text if put is not dialogue else f"{prefix}\n{text.removeprefix(opening)}"
            for text, put, dialogue in zip(texts, told, dialogues, strict=True)
        ]

    def _told(self, prefix: str, dialogue: Dialogue) -> Dialogue:
        """Put a prefix into the first user turn; the same dialogue if the prefix belongs before the whole prompt."""
        if not self._in_turn or not rendering.is_chat(dialogue, self._tokenizer):
            return dialogue
        for place, message in enumerate(dialogue.messages):
            if message.role == "user":
                put = message._replace(content=f"{prefix}\n{message.content}")
                return replace(dialogue, messages=(*dialogue.messages[:place], put, *dialogue.messages[place + 1 :]))
        return dialogue
