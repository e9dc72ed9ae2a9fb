"""How log-probabilities of letters or texts become a `Choice`. Token ids and numbers only; no model is asked here."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, nan
from typing import NamedTuple

import numpy as np
from scipy.special import log_softmax, logsumexp

from evenhand.core.sequences import common_prefix_length
from evenhand.inference import Request
from evenhand.inference.requests import NOT_FINITE, continuation_request
from evenhand.interfaces import Array, Choice, Question, Score, Usage
from evenhand.prompting.rendering import LETTERS, letter_variants

IMPOSSIBLE = "the model gives every option probability 0"
"""The note of a question whose options are all impossible, though the logits are finite."""


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
    start = min(common_prefix_length(head, wholes[n]) for n in rows)
    requests = [continuation_request(wholes[n], start) for n in rows]
    one_token = len({r.ids for r in requests}) == 1 and all(len(r.reads) == 1 for r in requests)
    return LetterPlan(requests, [n // variants for n in rows], one_token)


def parted(head: Sequence[int], whole: Sequence[int]) -> tuple[list[int], int]:
    """A prompt's own tokens with the rest of the whole text behind them, and how many are the prompt's.

    The rule of lm-evaluation-harness (lm_eval/api/model.py, `_encode_pair`): where the tokenizer makes other tokens of
    the prompt's end once something follows, those of the prompt alone are kept.
    """
    return [*head, *whole[len(head) :]], len(head)


def choice_from_letters(question: Question, plan: LetterPlan, logprobs: Array, prompt_tokens: int) -> Choice:
    """Add up each letter's variants, normalise over the letters and map positions back to identities."""
    options = len(question.options)
    owner = np.array(plan.owner)
    at_position = np.array([logsumexp(logprobs[owner == j]) for j in range(options)])
    mass = float(np.exp(logsumexp(at_position))) if plan.one_token and usable(at_position) else None
    by_identity = at_position[[question.position_of(o) for o in range(options)]]
    calls = len({r.ids for r in plan.requests})
    return distribution_choice(by_identity, Usage(calls, prompt_tokens * calls), mass)


def usable(logits: Array) -> bool:
    """Whether a distribution can be made of log-probabilities."""
    return bool(np.isfinite(np.max(logits)))


def distribution_choice(logits: Array, usage: Usage, mass: float | None = None) -> Choice:
    """A choice from unnormalised log-probabilities by identity; ties go to the lowest identity.

    An option may be impossible (-inf). Where all are, or a number is nan or +inf, the question is unanswered.
    """
    if not usable(logits):
        note = IMPOSSIBLE if np.isneginf(logits).all() else NOT_FINITE
        return Choice(None, status="unanswered", usage=usage, note=note)
    probabilities = np.exp(log_softmax(logits))
    return Choice(int(np.argmax(logits)), tuple(float(p) for p in probabilities), mass=mass, usage=usage)


def score_of(values: Sequence[float]) -> Score:
    """The sum of a text's log-probabilities, or none where one of them is not finite; -inf is an impossible text."""
    total = float(sum(values))
    return Score(total, len(values)) if total < inf else unscored(NOT_FINITE)


def unscored(note: str) -> Score:
    """No score, and why."""
    return Score(nan, 0, note)
