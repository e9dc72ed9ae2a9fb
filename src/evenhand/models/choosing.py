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
    calls = len({r.ids for r in plan.requests})
    at = by_position(np.asarray(logprobs)[None], plan.owner, len(question.options))
    masses = masses_of(at) if plan.one_token else [None]
    return choices_from_positions([question], at, masses, [Usage(calls, prompt_tokens * calls)])[0]


def by_position(logprobs: Array, owner: Sequence[int], options: int) -> Array:
    """Log-probabilities of the letters of many prompts that are read alike, their variants added up.

    Args:
        logprobs: [prompts, variants read].
        owner: Position of the option that each variant is the letter of.
        options: How many letters there are.

    Returns:
        [prompts, options].
    """
    mine = [[n for n, position in enumerate(owner) if position == at] for at in range(options)]
    most = max(map(len, mine))
    columns = np.array([[*some, *[len(owner)] * (most - len(some))] for some in mine])
    padded = np.concatenate([logprobs, np.full((len(logprobs), 1), -inf)], axis=1)
    summed: Array = np.ascontiguousarray(logsumexp(padded[:, columns], axis=2))
    return summed  # in rows, so that sums over them do not depend on how many there are


def masses_of(at: Array) -> list[float | None]:
    """Probability of any letter, per row of `by_position`; None where a number is not finite or all are impossible."""
    sums = np.exp(logsumexp(at, axis=1))
    return [float(m) if ok else None for m, ok in zip(sums.tolist(), _usable_rows(at), strict=True)]


def choices_from_positions(
    questions: Sequence[Question], at: Array, masses: Sequence[float | None], usages: Sequence[Usage]
) -> list[Choice]:
    """Choices of questions with equally many options, from unnormalised log-probabilities by position.

    Args:
        questions: What is answered.
        at: [questions, options].
        masses: See `Choice.mass`.
        usages: What each answer cost.
    """
    once = {q.shown: q for q in questions}
    positions = {shown: [q.position_of(o) for o in range(at.shape[1])] for shown, q in once.items()}
    by_identity = np.take_along_axis(at, np.array([positions[q.shown] for q in questions]), axis=1)
    return distribution_choices(by_identity, masses, usages)


def distribution_choice(logits: Array, usage: Usage, mass: float | None = None) -> Choice:
    """A choice from unnormalised log-probabilities by identity; ties go to the lowest identity.

    An option may be impossible (-inf). Where all are, or a number is nan or +inf, the question is unanswered.
    """
    return distribution_choices(np.asarray(logits)[None], [mass], [usage])[0]


def distribution_choices(logits: Array, masses: Sequence[float | None], usages: Sequence[Usage]) -> list[Choice]:
    """The same for many questions with equally many options, [questions, options]."""
    sure = _usable_rows(logits)
    fine = np.where(np.array(sure)[:, None], logits, 0.0)
    probabilities = np.exp(log_softmax(fine, axis=1)).tolist()
    best = np.argmax(logits, axis=1).tolist()
    return [
        Choice(decision, tuple(shares), mass=mass, usage=usage)
        if ok
        else Choice(None, status="unanswered", usage=usage, note=_why_unusable(row))
        for ok, decision, shares, mass, usage, row in zip(
            sure, best, probabilities, masses, usages, logits, strict=True
        )
    ]


def _usable_rows(logits: Array) -> list[bool]:
    rows: list[bool] = np.isfinite(np.max(logits, axis=1)).tolist()
    return rows


def _why_unusable(logits: Array) -> str:
    return IMPOSSIBLE if np.isneginf(logits).all() else NOT_FINITE


def score_of(values: Sequence[float]) -> Score:
    """The sum of a text's log-probabilities, or none where one of them is not finite; -inf is an impossible text."""
    total = float(sum(values))
    return Score(total, len(values)) if total < inf else unscored(NOT_FINITE)


def unscored(note: str) -> Score:
    """No score, and why."""
    return Score(nan, 0, note)
