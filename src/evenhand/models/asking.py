"""Choosing by a written reply: what every model that can generate has in common. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from evenhand import prompts
from evenhand.interfaces import Choice, Model, Question, Reply, Sampling

CHOICE_SAMPLING = Sampling(max_new_tokens=25)
"""Enough for a letter and an option's text; the limit of Gallegos et al. 2025."""


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
