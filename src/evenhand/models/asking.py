"""What every model has in common when it is asked: its options, and choosing by a written reply. No torch here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any, Literal, get_args

from evenhand import prompts
from evenhand.errors import SettingsError, suggest
from evenhand.interfaces import AnswerBy, Choice, Model, Question, Reply, Sampling

TooLong = Literal["error", "skip"]

CHOICE_SAMPLING = Sampling(max_new_tokens=25)
"""Enough for a letter and an option's text; the limit of Gallegos et al. 2025."""


def sampling_from(given: Mapping[str, Any]) -> Sampling:
    """Build the setting from plain values.

    Raises:
        SettingsError: An unknown name or a value that no sampler can follow.
    """
    known = [f.name for f in fields(Sampling)]
    for key in given:
        if key not in known:
            raise SettingsError(f"sampling has no {key!r}. {suggest(key, known)}")
    values: dict[str, Any] = {k: tuple(v) if k == "stop" else v for k, v in given.items()}
    return Sampling(**values)


def plain_sampling(sampling: Sampling) -> dict[str, Any]:
    """The setting as JSON values, as `sampling_from` takes them."""
    return {**asdict(sampling), "stop": list(sampling.stop)}


def check_asking(options: Mapping[str, Any]) -> None:
    """Refuse values of a local model's asking options that mean nothing.

    Raises:
        SettingsError: The message says which option, and what it takes.
    """
    for name, known in (("answer_by", get_args(AnswerBy)), ("too_long", get_args(TooLong))):
        if name in options and options[name] not in known:
            raise SettingsError(f"{name} {options[name]!r} is not known. {suggest(str(options[name]), known)}")
    budget = options.get("batch_tokens")
    if budget is not None and (not isinstance(budget, int) or budget < 1):
        raise SettingsError(f"batch_tokens {budget!r} must be a whole number of at least 1")


def choose_by_generation(model: Model, questions: Sequence[Question], default: Sampling) -> list[Choice]:
    """Ask for written replies and parse them; for every model that can generate."""
    groups: dict[Sampling, list[int]] = {}
    for i, q in enumerate(questions):
        groups.setdefault(q.sampling or default, []).append(i)
    out: dict[int, Choice] = {}
    for sampling, rows in groups.items():
        dialogues = [prompts.as_dialogue(questions[i], "generation") for i in rows]
        for i, reply in zip(rows, model.generate(dialogues, sampling), strict=True):
            out[i] = _parsed(reply, questions[i])
    return [out[i] for i in range(len(questions))]


def _parsed(reply: Reply, question: Question) -> Choice:
    if reply.text is None:
        return Choice(None, status="unanswered", usage=reply.usage, note=reply.note)
    decision = prompts.parse_choice(reply.text, question)
    status: Literal["answered", "unparsed"] = "answered" if decision is not None else "unparsed"
    return Choice(decision, status=status, reply=reply.text, usage=reply.usage)
