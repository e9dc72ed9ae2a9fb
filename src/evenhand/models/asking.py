"""Options for asking that all models share, and choosing by a written reply. This module does not import torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any, Literal, get_args

from evenhand.errors import SettingsError, suggest
from evenhand.interfaces import AnswerBy, Choice, Model, Question, Reply, Sampling, TooLong
from evenhand.prompting import rendering

CHOICE_SAMPLING = Sampling(max_new_tokens=64)
"""Room for a sentence around a letter or an option's text. Gallegos et al. 2025 (arXiv 2402.01981) cut at 25 tokens."""


def sampling_from(given: Mapping[str, Any]) -> Sampling:
    """Build a `Sampling` from plain values.

    Raises:
        SettingsError: A name is unknown, or a value is invalid.
    """
    known = [f.name for f in fields(Sampling)]
    for key in given:
        if key not in known:
            raise SettingsError(f"sampling has no {key!r}. {suggest(key, known)}")
    values: dict[str, Any] = {k: tuple(v) if k == "stop" else v for k, v in given.items()}
    return Sampling(**values)


def plain_sampling(sampling: Sampling) -> dict[str, Any]:
    """Return the setting as JSON values, which `sampling_from` accepts."""
    return {**asdict(sampling), "stop": list(sampling.stop)}


def check_asking(options: Mapping[str, Any]) -> None:
    """Refuse invalid values of the options that say how a local model is asked.

    Raises:
        SettingsError: A value is invalid; the message names the option and what it accepts.
    """
    for name, known in (("answer_by", get_args(AnswerBy)), ("too_long", get_args(TooLong))):
        if name in options and options[name] not in known:
            raise SettingsError(f"{name} {options[name]!r} is not known. {suggest(str(options[name]), known)}")
    thought = options.get("thinking_tokens", 0)
    if isinstance(thought, bool) or not isinstance(thought, int) or thought < 0:
        raise SettingsError(f"thinking_tokens {thought!r} must be a whole number of at least 0; 0 turns thinking off")
    budget = options.get("batch_tokens")
    if budget is not None and (not isinstance(budget, int) or budget < 1):
        raise SettingsError(f"batch_tokens {budget!r} must be a whole number of at least 1")


def batching(tokens: int | None) -> dict[str, Any]:
    """Return the limit of a batch as an option of `evenhand.load`; {} if there is none."""
    return {} if tokens is None else {"batch_tokens": tokens}


def asked_alike(model: Model) -> dict[str, Any]:
    """Return the options that make another local model be asked like this one; unset ones are left out."""
    options = {
        "answer_by": model.answer_by,
        "sampling": model.sampling,
        "too_long": model.too_long,
        "thinking_tokens": model.thinking_tokens,
    }
    return {key: value for key, value in options.items() if value is not None}


def choose_by_generation(model: Model, questions: Sequence[Question], default: Sampling) -> list[Choice]:
    """Ask for written replies and parse them; works with every model that can generate."""
    groups: dict[Sampling, list[int]] = {}
    for i, q in enumerate(questions):
        groups.setdefault(q.sampling or default, []).append(i)
    out: dict[int, Choice] = {}
    for sampling, rows in groups.items():
        dialogues = [rendering.as_dialogue(questions[i], "generation") for i in rows]
        for i, reply in zip(rows, model.generate(dialogues, sampling), strict=True):
            out[i] = parsed(reply, rendering.parse_choice(reply.text or "", questions[i], reply.finished), sampling)
    return [out[i] for i in range(len(questions))]


def parsed(reply: Reply, decision: int | None, sampling: Sampling) -> Choice:
    """Turn a written reply into a choice; a cut one is marked, with the limit if that left it undecided."""
    if reply.text is None:
        return Choice(None, status="unanswered", usage=reply.usage, note=reply.note)
    status: Literal["answered", "unparsed"] = "unparsed" if decision is None else "answered"
    lost = decision is None and not reply.finished
    limit = f"the reply was cut at {sampling.max_new_tokens} tokens; give it more with max_new_tokens" if lost else ""
    note, cut = reply.note or limit, not reply.finished
    return Choice(decision, status=status, reply=reply.text, usage=reply.usage, note=note, cut=cut)
