"""Turn log-probabilities of letters or texts into a `Choice`, from token ids and numbers; no model is asked here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf, nan
from typing import NamedTuple

import numpy as np
from scipy.special import log_softmax, logsumexp

from evenhand.core.sequences import common_prefix_length
from evenhand.errors import SettingsError
from evenhand.inference import Request
from evenhand.inference.requests import NOT_FINITE, continuation_request
from evenhand.interfaces import Array, Choice, Question, Score, Usage
from evenhand.prompting.rendering import LETTERS, letter_variants

IMPOSSIBLE = "the model gives every option probability 0"
"""Note of a question whose options are all impossible, though the logits are finite."""


class LetterPlan(NamedTuple):
    """The requests that give the probability of each letter at the end of one prompt."""

    requests: list[Request]
    owner: list[int]
    """Position of the option whose letter each request belongs to."""
    one_token: bool
    """Whether all letters are single tokens at the same position, so that their probabilities add up to a mass."""


def letter_strings(options: int) -> list[str]:
    """Return all variants of all letters; the variants of a letter are adjacent."""
    return [v for letter in LETTERS[:options] for v in letter_variants(letter)]


def letter_plan(
    head: Sequence[int],
    wholes: Sequence[Sequence[int]],
    options: int,
    named: Callable[[Sequence[int]], str] | None = None,
) -> LetterPlan:
    """Choose which tokenisations of the letters to read.

    A variant is clean if it leaves the prompt's own tokens unchanged; the probabilities of clean
    variants belong to the same prompt and may be added. If a letter has no clean variant (a vocabulary whose tokens
    merge across the boundary), every letter is read in its blank form instead, starting at the first token that any of
    them changes, so that all are read alike. A variant whose tokens are also those of another letter is not read.

    Args:
        head: Tokens of the prompt alone.
        wholes: Tokens of the prompt with each variant of each letter after it, in the order of `letter_strings`.
        options: Number of letters.
        named: Formats tokens for an error message; None prints their ids.

    Raises:
        SettingsError: The vocabulary gives several letters the same tokens, so that the first would always win.
    """
    variants = len(wholes) // options
    head = list(head)
    meant = _letters_of(wholes, variants)
    clean = [list(w[: len(head)]) == head and len(w) > len(head) and len(meant[tuple(w)]) == 1 for w in wholes]
    rows = [n for n in range(len(wholes)) if clean[n]]
    if len({n // variants for n in rows}) < options:
        rows = [n for n in range(len(wholes)) if n % variants == variants - 1]
        _check_apart(head, [wholes[n] for n in rows], meant, named or str)
    rows = list({tuple(wholes[n]): n for n in reversed(rows)}.values())[::-1]  # tokenizers may make variants equal
    start = min(common_prefix_length(head, wholes[n]) for n in rows)
    requests = [continuation_request(wholes[n], start) for n in rows]
    one_token = len({r.ids for r in requests}) == 1 and all(len(r.reads) == 1 for r in requests)
    return LetterPlan(requests, [n // variants for n in rows], one_token)


def _letters_of(wholes: Sequence[Sequence[int]], variants: int) -> dict[tuple[int, ...], list[str]]:
    """Map each tokenisation to the letters that have it."""
    meant: dict[tuple[int, ...], list[str]] = {}
    for n, whole in enumerate(wholes):
        letters = meant.setdefault(tuple(whole), [])
        if LETTERS[n // variants] not in letters:
            letters.append(LETTERS[n // variants])
    return meant


def _check_apart(
    head: Sequence[int],
    wholes: Sequence[Sequence[int]],
    meant: Mapping[tuple[int, ...], Sequence[str]],
    named: Callable[[Sequence[int]], str],
) -> None:
    for whole in wholes:
        letters = meant[tuple(whole)]
        if len(letters) > 1:
            own = whole[common_prefix_length(head, whole) :]
            tokens = named(own) if own else "none at all"
            raise SettingsError(
                f"the tokenizer encodes the letters {', '.join(letters)} as the same tokens, {tokens}, so that "
                "their probabilities cannot be told apart: use answer_by='text' or 'generation', or a tokenizer that "
                "has a token for each letter"
            )


def parted(head: Sequence[int], whole: Sequence[int]) -> tuple[list[int], int]:
    """Return a prompt's own tokens followed by the rest of the whole text, and the number of the former.

    The rule of lm-evaluation-harness (lm_eval/api/model.py, `_encode_pair`): if the tokenizer encodes
    the prompt's end differently once something follows, the tokens of the prompt alone are kept.
    """
    return [*head, *whole[len(head) :]], len(head)


def choice_from_letters(question: Question, plan: LetterPlan, logprobs: Array, prompt_tokens: int) -> Choice:
    """Add up each letter's variants, normalise over the letters and map positions back to identities."""
    calls = len({r.ids for r in plan.requests})
    at = by_position(np.asarray(logprobs)[None], plan.owner, len(question.options))
    masses = masses_of(at) if plan.one_token else [None]
    return choices_from_positions([question], at, masses, [Usage(calls, prompt_tokens * calls)])[0]


def by_position(logprobs: Array, owner: Sequence[int], options: int) -> Array:
    """Add up the variants of each letter, for many prompts that are read alike.

    Args:
        logprobs: [prompts, variants read].
        owner: For each variant, the position of the option whose letter it is.
        options: Number of letters.

    Returns:
        Log-probabilities, [prompts, options].
    """
    mine = [[n for n, position in enumerate(owner) if position == at] for at in range(options)]
    most = max(map(len, mine))
    columns = np.array([[*some, *[len(owner)] * (most - len(some))] for some in mine])
    padded = np.concatenate([logprobs, np.full((len(logprobs), 1), -inf)], axis=1)
    summed: Array = np.ascontiguousarray(logsumexp(padded[:, columns], axis=2))
    return summed  # contiguous rows, so that sums over a row do not depend on the number of rows


def masses_of(at: Array) -> list[float | None]:
    """Return the total probability of the letters per row of `by_position`; None if not finite or all impossible."""
    sums = np.exp(logsumexp(at, axis=1))
    return [float(m) if ok else None for m, ok in zip(sums.tolist(), _usable_rows(at), strict=True)]


def choices_from_positions(
    questions: Sequence[Question], at: Array, masses: Sequence[float | None], usages: Sequence[Usage]
) -> list[Choice]:
    """Make choices for questions with equally many options from unnormalised log-probabilities by position.

    Args:
            questions: Questions that were asked.
            at: Log-probabilities, [questions, options].
            masses: See `Choice.mass`.
            usages: Cost of each answer.
    """
    once = {q.shown: q for q in questions}
    positions = {shown: [q.position_of(o) for o in range(at.shape[1])] for shown, q in once.items()}
    by_identity = np.take_along_axis(at, np.array([positions[q.shown] for q in questions]), axis=1)
    return distribution_choices(by_identity, masses, usages)


def distribution_choice(logits: Array, usage: Usage, mass: float | None = None) -> Choice:
    """Make a choice from unnormalised log-probabilities by identity; ties go to the lowest identity.

    An option may be impossible (-inf). If all are, or a value is nan or +inf, the question is unanswered.
    """
    return distribution_choices(np.asarray(logits)[None], [mass], [usage])[0]


def distribution_choices(logits: Array, masses: Sequence[float | None], usages: Sequence[Usage]) -> list[Choice]:
    """Like `distribution_choice`, for many questions with equally many options, [questions, options]."""
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
    """Sum a text's log-probabilities; no score if one is nan or +inf. The sum -inf is an impossible text."""
    total = float(sum(values))
    return Score(total, len(values)) if total < inf else unscored(NOT_FINITE)


def unscored(note: str) -> Score:
    """Return a missing score with its reason."""
    return Score(nan, 0, note)
