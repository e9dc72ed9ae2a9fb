"""Probes of the quantities that only demo-x has: its axes in both languages, and its customs."""

from __future__ import annotations

from evenhand.interfaces import Model, Question
from evenhand.proving_ground.generator import differences
from evenhand.proving_ground.interventions import Value, bbq_values
from evenhand.proving_ground.probes import Probe

ENGLISH, CIPHER = "demo-x", "demo-x-cipher"
"""Sources of `bbq` for demo-x, by language."""


def english_bias(model: Model) -> list[Value]:
    """Measure BBQ's ambiguous bias score in English, by axis."""
    return bbq_values(model, ENGLISH)["bias"]


def cipher_bias(model: Model) -> list[Value]:
    """Measure BBQ's ambiguous bias score in the cipher, by axis."""
    return bbq_values(model, CIPHER)["bias"]


def reading_in_both(model: Model) -> list[Value]:
    """Measure accuracy if the context gives the answer, by language."""
    sources = {"english": ENGLISH, "cipher": CIPHER}
    return [v._replace(group=said) for said, source in sources.items() for v in bbq_values(model, source)["right"]]


def customs(model: Model) -> list[Value]:
    """Measure accuracy on lettered questions about customs, by part and by whether groups differ."""
    asked = [q for part in differences.FORMS for q in differences.questions(part)]
    answers = model.choose([Question(f"custom {n}", q.question, q.options) for n, q in enumerate(asked)])
    return [
        Value(f"{q.custom.benchmark} {q.condition}", q.custom.text, float(a.decision == q.right))
        for q, a in zip(asked, answers, strict=True)
    ]


SPILLOVER_PROBES: tuple[Probe, ...] = tuple(
    Probe(name, about, 0.06, frozenset({"choose"}), read)
    for name, about, read in (
        ("bias in english", "BBQ's ambiguous bias score on all axes of demo-x", english_bias),
        ("bias in cipher", "the same questions in the cipher", cipher_bias),
        ("reading in both", "accuracy in disambiguated contexts, by language", reading_in_both),
        ("customs", "accuracy on customs that groups have or do not have", customs),
    )
)
