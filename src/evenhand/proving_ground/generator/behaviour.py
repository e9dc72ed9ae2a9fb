"""Exact distributions of a planted model's answers, used both by the training text and by the oracle."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log

from evenhand.proving_ground.generator.bbq_questions import Case
from evenhand.proving_ground.generator.facts import SUBJECTS
from evenhand.proving_ground.generator.planted import Intervention, Planted
from evenhand.proving_ground.generator.questions import LABELS, FactQuestion, Review

MARKED, OTHER, UNKNOWN = ROLES = range(3)
"""Roles of BBQ's three answers."""


def with_letters(planted: Planted, content: Sequence[float], kind: str) -> list[float]:
    """Add the letter preference to a distribution over positions.

    p(letter j) ~ content[j] * exp(preference[j] * difficulty[kind])
    """
    factor = planted.difficulty[kind]
    raw = [p * exp(w * factor) for p, w in zip(content, planted.letters, strict=False)]
    return [p / sum(raw) for p in raw]


def case_answer(planted: Planted, case: Case, order: Sequence[int], announced: bool = False) -> list[float]:
    """Return P(position) for a BBQ-type question whose roles are shown in `order`.

    Args:
        planted: The model's true quantities.
        case: The question.
        order: The role at each position.
        announced: After a text that announces discrimination on the question's axis.
    """
    content = case_content(planted, case, announced)
    return with_letters(planted, [content[role] for role in order], "read" if case.right else "ambiguous")


def case_content(planted: Planted, case: Case, announced: bool = False) -> list[float]:
    """Return P(role) for a BBQ-type question, whatever the letters."""
    return _read(planted, case) if case.right else _leaning(planted, case, announced)


def case_under(
    planted: Planted,
    case: Case,
    order: Sequence[int],
    kind: Intervention,
    last: int | None = None,
    before: Sequence[float] | None = None,
    stated: bool = False,
) -> list[float]:
    """Return P(position) under an intervention.

    Args:
        planted: The model's true quantities.
        case: The question.
        order: The role at each position.
        kind: The intervention.
        last: Position of the answer given before a reprompt; None for the other interventions.
        before: P(position) without the intervention, if something else came before; default `case_answer`.
        stated: Whether the intervention asks to keep what the context states, so that it causes no over-abstention.
    """
    before = list(before or case_answer(planted, case, order))
    if case.right:
        gives_way = not stated and planted.over_abstains(kind, case.axis, case.trait)
    else:
        gives_way = planted.heeded(kind, case.cell_axis, case.group, case.trait)
    if gives_way:
        rest = (1 - planted.compliance) / 2
        return [planted.compliance if role == UNKNOWN else rest for role in order]
    if last is None:
        return before
    keep = planted.persistence
    return [keep * (j == last) + (1 - keep) * p for j, p in enumerate(before)]


def relies_on_bias(case: Case, role: int) -> bool:
    """Whether a critic of the proving ground finds fault: a person was named although the context leaves it open."""
    return not case.right and role != UNKNOWN


def _leaning(planted: Planted, case: Case, announced: bool) -> list[float]:
    p = planted.ambiguous(case.cell_axis, case.group, case.trait, announced)
    stereotyped, opposite = (MARKED, OTHER) if case.negative else (OTHER, MARKED)
    out = [0.0] * 3
    out[stereotyped], out[opposite], out[UNKNOWN] = p["biased"], p["counter"], p["unknown"]
    return out


def _read(planted: Planted, case: Case) -> list[float]:
    rest = (1 - planted.reading) / 2
    right = MARKED if case.right == case.marked else OTHER
    return [planted.reading if role == right else rest for role in range(3)]


def fact_answer(planted: Planted, question: FactQuestion) -> list[float]:
    """Return P(position) for a fact question."""
    kind = planted.knows(question.subject, question.fact, len(SUBJECTS[question.subject].facts))
    right = planted.certainty[kind]
    rest = (1 - right) / (len(question.options) - 1)
    content = [right if j == question.right else rest for j in range(len(question.options))]
    return with_letters(planted, content, kind)


def blank_answer(planted: Planted, options: int) -> list[float]:
    """Return P(position) for a content-free input: the letter preference alone.

    The preference acts as on an unknown fact, and with BBQ's three options as on an ambiguous question.
    """
    kind = "ambiguous" if options == len(ROLES) else "unknown"
    return with_letters(planted, [1 / options] * options, kind)


def review_answer(planted: Planted, review: Review) -> dict[str, float]:
    """Return P(label) for a review."""
    right = 0.4 if review.also else planted.evidence
    content = {label: right if label == review.label else (1 - right) / 2 for label in LABELS}
    raw = {label: log(p) + w for (label, p), w in zip(content.items(), planted.label_preference, strict=True)}
    total = sum(exp(v) for v in raw.values())
    return {label: exp(v) / total for label, v in raw.items()}
