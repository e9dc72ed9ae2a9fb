"""Probabilities of a question's options with gradients, read as a local model's `choose` reads its letters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from evenhand.inference.padding import right_pad
from evenhand.inference.scoring import input_device, only_rows
from evenhand.interfaces import Question
from evenhand.models import choosing
from evenhand.models.tokenization import Encoder
from evenhand.prompting import rendering


def prompt_tokens(question: Question, encoder: Encoder) -> int:
    """Return the number of tokens that are read to answer a question."""
    (text,) = encoder.dialogue_texts([rendering.as_dialogue(question, "letters")])
    return len(encoder.prompted([text])[0]) + 1


def option_logprobs(module: Any, questions: Sequence[Question], encoder: Encoder) -> Tensor:
    """Return [questions, maximum number of options] log-probabilities by identity, normalised per question.

    Args:
        module: A causal transformers model.
        questions: Questions with lettered options, in the order in which they are shown.
        encoder: Encoder of the model's tokenizer.

    Returns:
        The log-probabilities; -inf where a question has fewer options than others.
    """
    plans = [_plan(question, encoder) for question in questions]
    # In padded rows, unlike the pairs: one row reads all letters of a prompt at its last position already, and a drawn
    # batch has few prompts with more in common than the template, so that shared prefixes would save little.
    requests = [request for plan in plans for request in plan.requests]
    rows = list(dict.fromkeys(request.ids for request in requests))
    places = list(dict.fromkeys((rows.index(r.ids), at) for r in requests for at, _ in r.reads))
    ids, mask = right_pad(rows, 0, device=input_device(module))
    with only_rows(module.get_output_embeddings(), torch.tensor([n * ids.shape[1] + at for n, at in places])):
        logits = module(input_ids=ids, attention_mask=mask, use_cache=False).logits[0]
    logprobs = torch.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), dim=-1)
    slot = {(rows[n], at): which for which, (n, at) in enumerate(places)}
    widest = max(len(question.options) for question in questions)
    found = []
    for question, plan in zip(questions, plans, strict=True):
        values = [torch.stack([logprobs[slot[r.ids, at], token] for at, token in r.reads]).sum() for r in plan.requests]
        found.append(_by_identity(question, plan, values, widest))
    return torch.stack(found)


def _plan(question: Question, encoder: Encoder) -> choosing.LetterPlan:
    (text,) = encoder.dialogue_texts([rendering.as_dialogue(question, "letters")])
    options = len(question.options)
    wholes = encoder.prompted([text + variant for variant in choosing.letter_strings(options)])
    return choosing.letter_plan(encoder.prompted([text])[0], wholes, options, encoder.named)


def _by_identity(question: Question, plan: choosing.LetterPlan, values: Sequence[Tensor], widest: int) -> Tensor:
    """Add up the variants of each letter, in the order of the options' identities, and normalise, [widest]."""
    own = []
    for option in range(len(question.options)):
        place = question.position_of(option)
        variants = [value for value, owner in zip(values, plan.owner, strict=True) if owner == place]
        own.append(torch.logsumexp(torch.stack(variants), dim=0))
    normalised = torch.log_softmax(torch.stack(own), dim=0)
    return torch.cat([normalised, normalised.new_full((widest - len(own),), float("-inf"))])
