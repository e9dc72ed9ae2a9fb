"""Pairs that tests of steering share, and a tiny model that knows their words."""

from __future__ import annotations

from typing import Any

from evenhand.interfaces import Dialogue, Message, Pair, TrainData
from evenhand.methods.steering._contrasts import of_pair, orders
from evenhand.models.local import LocalModel
from evenhand.models.tiny import tiny_model

PEOPLE = (("nurse", "pilot"), ("cook", "judge"), ("baker", "clerk"), ("miner", "poet"))
TRAITS = ("slow", "kind", "rude", "calm", "late")
PROMPT = "The {a} met the {b}. Who was {trait}?\n(A) The {a}\n(B) The {b}\n(C) Not known"
LETTERS = "ABC"


def lettered(letter: str = "") -> tuple[Pair, ...]:
    """Questions with three options; the biased answer is the first person's, or the second's every other time.

    Args:
        letter: The letter of every biased answer, where it is always the same: A or B.
    """
    cases = [(a, b, trait) for a, b in PEOPLE for trait in TRAITS]
    return tuple(_pair(a, b, trait, letter or LETTERS[n % 2], n) for n, (a, b, trait) in enumerate(cases))


def _pair(a: str, b: str, trait: str, biased: str, n: int) -> Pair:
    prompt = Dialogue((Message("user", PROMPT.format(a=a, b=b, trait=trait)),))
    other = "B" if biased == "A" else "A"
    return Pair(biased, other, prompt, axis="job" if n % 2 else "craft", id=f"pair {n}")


def in_all_orders() -> tuple[Pair, ...]:
    """The same questions, each with its options in every cyclic order, as pairs of their own."""
    shown = [one for pair in lettered() for one in orders(of_pair(pair))]
    return tuple(
        Pair(c.answers[c.biased], c.answers[c.other], c.prompt, axis=c.axis, id=f"shown {n}")
        for n, c in enumerate(shown)
    )


def plain() -> tuple[Pair, ...]:
    """Pairs that end in a word."""
    cases = [(a, trait) for a, _ in PEOPLE for trait in TRAITS]
    return tuple(
        Pair(" he", " she", f"the {a} was {trait} and so", axis="gender", id=f"{a} {trait}") for a, trait in cases
    )


WORDS = [
    f"{p.prompt if isinstance(p.prompt, str) else p.prompt.messages[0].content} he she" for p in (*lettered(), *plain())
]
DATA = TrainData(pairs=lettered())
PLAIN = TrainData(pairs=plain())


def tiny(architecture: str = "llama", **more: Any) -> LocalModel:
    return tiny_model(architecture, texts=WORDS, **more)
