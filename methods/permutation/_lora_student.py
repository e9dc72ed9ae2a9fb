"""The language model itself as a student: probabilities of letters with gradients (ours), for a LoRA adapter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from evenhand.inference.padding import right_pad
from evenhand.inference.scoring import input_device, only_rows
from evenhand.interfaces import Question
from evenhand.methods.permutation._texts import Asked, prompted
from evenhand.models import choosing
from evenhand.models.tokenization import Encoder
from evenhand.prompting import rendering

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Letters:
    """Reads the letters of questions as a local model's `choose` does, with gradients."""

    name = "lora"

    def __init__(self, tokenizer: PreTrainedTokenizerBase, context: int) -> None:
        """Take the model's tokenizer and its maximum prompt length."""
        self._encoder, self.max_length = Encoder(tokenizer), context

    def longest(self, question: Question, marked: bool) -> int:
        """Return the number of tokens of the longest prompt that the question may become."""
        some = [Asked(question, o) for o in (range(len(question.options)) if marked else [None])]
        return max(len(head) + 1 for head in self._heads(some)[1])

    def scores(self, module: Any, asked: Sequence[Asked]) -> Tensor:
        """Return [questions, most options] log-probabilities by identity, -inf if a question has fewer options."""
        plans = self._planned(asked)
        # In padded rows, not on shared prefixes: one row reads all letters of a prompt at its last position already,
        # and a drawn batch has few prompts with more in common than the template. On a tree every letter would be a
        # node of its own, and models that obey no mask would read the prompt once for each.
        requests = [r for plan in plans for r in plan.requests]
        rows = list(dict.fromkeys(r.ids for r in requests))
        flat = list(dict.fromkeys((rows.index(r.ids), p) for r in requests for p, _ in r.reads))
        ids, mask = right_pad(rows, 0, device=input_device(module))
        slot = {(rows[n], p): at for at, (n, p) in enumerate(flat)}
        with only_rows(module.get_output_embeddings(), torch.tensor([n * ids.shape[1] + p for n, p in flat])):
            logits = module(input_ids=ids, attention_mask=mask, use_cache=False).logits[0]
        logprobs = torch.log_softmax(logits.float(), dim=-1)
        wide = max(len(a.question.options) for a in asked)
        out = []
        for a, plan in zip(asked, plans, strict=True):
            values = [
                torch.stack([logprobs[slot[r.ids, p], token] for p, token in r.reads]).sum() for r in plan.requests
            ]
            own = [
                torch.logsumexp(torch.stack([v for v, o in zip(values, plan.owner, strict=True) if o == place]), 0)
                for place in (a.question.position_of(option) for option in range(len(a.question.options)))
            ]
            none = torch.full((wide - len(own),), float("-inf"), device=logprobs.device)
            out.append(torch.cat([torch.stack(own), none]))
        return torch.stack(out)

    def _heads(self, asked: Sequence[Asked]) -> tuple[list[str], list[list[int]]]:
        texts = self._encoder.dialogue_texts([rendering.as_dialogue(prompted(a), "letters") for a in asked])
        return texts, self._encoder.prompted(texts)

    def _planned(self, asked: Sequence[Asked]) -> list[choosing.LetterPlan]:
        texts, heads = self._heads(asked)
        strings = [
            [text + v for v in choosing.letter_strings(len(a.question.options))]
            for text, a in zip(texts, asked, strict=True)
        ]
        wholes = iter(self._encoder.prompted([s for group in strings for s in group]))
        return [
            choosing.letter_plan(head, [next(wholes) for _ in group], len(a.question.options), self._encoder.named)
            for head, group, a in zip(heads, strings, asked, strict=True)
        ]
