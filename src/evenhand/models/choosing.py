"""How log-probabilities of letters or texts become a `Choice`. Token ids and numbers only; no model is asked here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import log_softmax, logsumexp

from evenhand.engine import Request
from evenhand.engine.requests import continuation_request
from evenhand.interfaces import Array, Choice, Question, Usage
from evenhand.prompts import LETTERS, letter_variants


class LetterPlan(NamedTuple):
    """The requests that give the probability of each letter at the end of one prompt."""

    requests: list[Request]
    owner: list[int]
    """Position of the option whose letter each request belongs to."""
    one_token: bool
    """Whether all letters are single tokens at one and the same place, so that their probabilities add up to a mass."""


def letter_strings(options: int) -> list[str]:
    """All variants of all letters, variants of a letter side by side."""
    return [v for letter in LETTERS[:options] for v in letter_variants(letter)]


def letter_plan(head: Sequence[int], wholes: Sequence[Sequence[int]], options: int) -> LetterPlan:
    """Choose the tokenisations to read.

    A variant is clean when the prompt's own tokens stay as they are in front of it; the probabilities of clean
    variants are of the same prompt and may be added. Where a letter has no clean variant (a vocabulary whose tokens
    glue across the boundary), every letter is read in its blank form instead, and from the first token on that any of
    them changes, so that all are read alike.
    """
    variants = len(wholes) // options
    head = list(head)
    clean = [list(w[: len(head)]) == head and len(w) > len(head) for w in wholes]
    rows = [n for n in range(len(wholes)) if clean[n]]
    if len({n // variants for n in rows}) < options:
        rows = [n for n in range(len(wholes)) if n % variants == variants - 1]
    rows = list({tuple(wholes[n]): n for n in reversed(rows)}.values())[::-1]  # tokenizers may make variants equal
    start = min(_common(head, wholes[n]) for n in rows)
    requests = [continuation_request(wholes[n], start) for n in rows]
    one_token = len({r.ids for r in requests}) == 1 and all(len(r.reads) == 1 for r in requests)
    return LetterPlan(requests, [n // variants for n in rows], one_token)


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def choice_from_letters(question: Question, plan: LetterPlan, logprobs: Array, prompt_tokens: int) -> Choice:
    """Add up each letter's variants, normalise over the letters and map positions back to identities."""
    options = len(question.options)
    owner = np.array(plan.owner)
    at_position = np.array([logsumexp(logprobs[owner == j]) for j in range(options)])
    mass = float(np.exp(logsumexp(at_position))) if plan.one_token else None
    by_identity = np.empty(options)
    by_identity[list(question.order)] = at_position
    calls = len({r.ids for r in plan.requests})
    return distribution_choice(by_identity, Usage(calls, prompt_tokens * calls), mass)


def distribution_choice(logits: Array, usage: Usage, mass: float | None = None) -> Choice:
    """A choice from unnormalised log-probabilities by identity; ties go to the lowest identity."""
    probabilities = np.exp(log_softmax(logits))
    return Choice(int(np.argmax(logits)), tuple(float(p) for p in probabilities), mass=mass, usage=usage)
