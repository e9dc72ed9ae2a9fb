"""What every model has in common when it is asked: its options, and choosing by a written reply. No torch here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any, Literal, get_args

from evenhand.errors import SettingsError, suggest
from evenhand.interfaces import AnswerBy, Choice, Model, Question, Reply, Sampling, TooLong
from evenhand.prompting import rendering

CHOICE_SAMPLING = Sampling(max_new_tokens=64)
"""Room for a sentence around a letter or an option's text. Gallegos et al. 2025 (arXiv 2402.01981) cut at 25."""


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
    thought = options.get("thinking_tokens", 0)
    if isinstance(thought, bool) or not isinstance(thought, int) or thought < 0:
        raise SettingsError(f"thinking_tokens {thought!r} must be a whole number of at least 0; 0 lets no model think")
    budget = options.get("batch_tokens")
    if budget is not None and (not isinstance(budget, int) or budget < 1):
        raise SettingsError(f"batch_tokens {budget!r} must be a whole number of at least 1")


def batching(tokens: int | None) -> dict[str, Any]:
    """The limit of a batch as an option of `evenhand.load`; nothing where none was given."""
    return {} if tokens is None else {"batch_tokens": tokens}


def asked_alike(model: Model) -> dict[str, Any]:
    """The options with which another local model is asked as this one is; those that it does not have are left out."""
    options = {
        "answer_by": model.answer_by,
        "sampling": model.sampling,
        "too_long": model.too_long,
        "thinking_tokens": model.thinking_tokens,
    }
    return {key: value for key, value in options.items() if value is not None}


def choose_by_generation(model: Model, questions: Sequence[Question], default: Sampling) -> list[Choice]:
    """Ask for written replies and parse them; for every model that can generate."""
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
    """A written reply as an answer; one that was cut says so, and where that leaves it undecided, at which limit."""
    if reply.text is None:
        return Choice(None, status="unanswered", usage=reply.usage, note=reply.note)
    status: Literal["answered", "unparsed"] = "unparsed" if decision is None else "answered"
    lost = decision is None and not reply.finished
    limit = f"the reply was cut at {sampling.max_new_tokens} tokens; give it more with max_new_tokens" if lost else ""
    note, cut = reply.note or limit, not reply.finished
    return Choice(decision, status=status, reply=reply.text, usage=reply.usage, note=note, cut=cut)
