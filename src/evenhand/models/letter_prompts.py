"""The requests that read the letters of many prompts: what prompts with the same end share is computed once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np

from evenhand.inference import Request
from evenhand.interfaces import Choice, Question, Usage
from evenhand.models.choosing import (
    LetterPlan,
    by_position,
    choices_from_positions,
    letter_plan,
    letter_strings,
    masses_of,
)
from evenhand.models.tokenization import Encoder, Ids

_BEFORE = -1
"""Placeholder for the last token of a prompt's beginning."""


class LetterForm(NamedTuple):
    """How letters are read after one ending of prompts."""

    end: Ids
    """Tokens of the ending, or of the whole prompt if its beginning is not separate."""
    requests: tuple[Request, ...]
    """`LetterPlan.requests`, merged by ids; positions count from `lead` tokens before the ending."""
    parts: tuple[tuple[int, int, int], ...]
    """For each request of the plan, the index in `requests`, and the start and end of its reads there."""
    owner: tuple[int, ...]
    one_token: bool
    lead: int
    """1 if the first id stands for the last token of a beginning, else 0."""


class LetterPrompt(NamedTuple):
    """A prompt whose letters are read."""

    begin: Ids
    form: LetterForm

    @property
    def ids(self) -> Ids:
        """All tokens of the prompt."""
        return self.begin + self.form.end

    @property
    def requests(self) -> list[Request]:
        """Requests to the engine."""
        begin, lead = tuple(self.begin), self.form.lead
        more = len(begin) - lead
        return [
            Request(begin + ids[lead:], tuple([(position + more, token) for position, token in reads]))
            for ids, reads in self.form.requests
        ]

    @property
    def usage(self) -> Usage:
        """Cost of reading the letters."""
        calls = len(self.form.requests)
        return Usage(calls, (len(self.begin) + len(self.form.end)) * calls)

    def logprobs(self, values: Sequence[tuple[float, ...]]) -> list[float]:
        """Return the log-probability of each variant, from the values of the requests' reads."""
        if len(values) == 1 and len(values[0]) == len(self.form.parts):  # each variant is one token
            return list(values[0])
        return [sum(values[n][start:stop]) for n, start, stop in self.form.parts]


def letter_prompts(encoder: Encoder, asked: Sequence[tuple[str, int]]) -> list[LetterPrompt]:
    """Plan how to read the letters of prompts.

    Args:
        encoder: Encoder of the model.
        asked: Prompts from `Encoder.dialogue_texts`, each with its number of options.

    Raises:
        SettingsError: The vocabulary does not distinguish letters.
    """
    heads = encoder.headed([text for text, _ in asked])
    keys = [(bool(begin), end, options) for (begin, end), (_, options) in zip(heads, asked, strict=True)]
    forms = _forms(encoder, dict.fromkeys(keys))
    return [LetterPrompt(begin, forms[key]) for (begin, _), key in zip(heads, keys, strict=True)]


def letter_choices(read: Sequence[tuple[Question, LetterPrompt, list[float]]]) -> list[Choice]:
    """Return the answers to questions; those that are read alike are computed in one array.

    Args:
        read: Each question, its prompt, and its `LetterPrompt.logprobs`.
    """
    alike: dict[tuple[tuple[int, ...], bool, int], list[int]] = {}
    for i, (question, prompt, _) in enumerate(read):
        alike.setdefault((prompt.form.owner, prompt.form.one_token, len(question.options)), []).append(i)
    out: dict[int, Choice] = {}
    for (owner, one_token, options), rows in alike.items():
        questions, prompts, logprobs = zip(*(read[i] for i in rows), strict=True)
        at = by_position(np.array(logprobs), owner, options)
        masses = masses_of(at) if one_token else [None] * len(rows)
        out.update(zip(rows, choices_from_positions(questions, at, masses, [p.usage for p in prompts]), strict=True))
    return [out[i] for i in range(len(read))]


def _forms(encoder: Encoder, keys: Iterable[tuple[bool, str, int]]) -> dict[tuple[bool, str, int], LetterForm]:
    found = {}
    for encode, apart in ((encoder.ended, True), (encoder.continuing, False)):
        mine = [key for key in keys if key[0] is apart]
        variants = [["", *letter_strings(options)] for _, _, options in mine]
        ends = [end for (_, end, _), group in zip(mine, variants, strict=True) for _ in group]
        encoded = iter(encode(ends, [v for group in variants for v in group]) if mine else ())
        for key, group in zip(mine, variants, strict=True):
            found[key] = _form(encoder, list(islice(encoded, len(group))), key[2], int(apart))
    return found


def _form(encoder: Encoder, encoded: Sequence[Ids], options: int, lead: int) -> LetterForm:
    """Make a form from an ending, encoded alone and followed by each variant of each letter."""
    end, *wholes = [[_BEFORE] * lead + ids for ids in encoded]
    plan = letter_plan(end, wholes, options, encoder.named)
    requests, parts = _merged(plan)
    return LetterForm(encoded[0], requests, parts, tuple(plan.owner), plan.one_token, lead)


def _merged(plan: LetterPlan) -> tuple[tuple[Request, ...], tuple[tuple[int, int, int], ...]]:
    reads: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    parts = []
    for request in plan.requests:
        mine = reads.setdefault(request.ids, [])
        parts.append((list(reads).index(request.ids), len(mine), len(mine) + len(request.reads)))
        mine += request.reads
    return tuple(Request(ids, tuple(some)) for ids, some in reads.items()), tuple(parts)
