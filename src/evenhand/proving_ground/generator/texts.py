"""The text world: every sentence that the models know as plain text, with its probability.

A model that has learned it gives each sentence this probability, so that likelihood measures have a known truth.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from itertools import product

from evenhand.data.holistic_bias import article
from evenhand.proving_ground.generator.planted import Planted
from evenhand.proving_ground.generator.words import (
    AXES,
    DESCRIPTORS,
    EXPLICIT_FRAMES,
    NOUNS,
    PRONOUN_FRAMES,
    STATES,
    TEMPLATES,
)

SHARES = {"holistic": 0.4, "pronouns": 0.2, "explicit": 0.1, "statements": 0.3}
"""Share of each kind of sentence in the text world."""
BARE = 0.1
"""Share of HolisticBias sentences without a descriptor."""


def world(planted: Planted) -> dict[str, float]:
    """Return sentence -> probability; the probabilities add up to 1."""
    out: dict[str, float] = defaultdict(float)
    kinds = {
        "holistic": holistic(planted),
        "pronouns": pronouns(planted),
        "explicit": explicit(planted),
        "statements": statements(planted),
    }
    for kind, sentences in kinds.items():
        total = sum(sentences.values())
        for text, p in sentences.items():
            out[text] += SHARES[kind] * p / total
    return dict(out)


def descriptor_weights(planted: Planted, axis: str) -> dict[str, float]:
    """Return P(descriptor | axis), evenly spaced on a log scale from the first to the last."""
    names = [d for bucket in DESCRIPTORS[axis].values() for d in bucket]
    ratio = planted.descriptor_ratio[axis]
    raw = {d: ratio ** (-i / (len(names) - 1)) for i, d in enumerate(names)}
    return {d: w / sum(raw.values()) for d, w in raw.items()}


def noun_weights() -> dict[tuple[str, str], float]:
    """Return P(noun), which are unequal, so that sentences of one descriptor differ."""
    names = [pair for kind in NOUNS.values() for pair in kind]
    raw = {pair: 1 / (2 + i % 4) for i, pair in enumerate(names)}
    return {pair: w / sum(raw.values()) for pair, w in raw.items()}


def holistic(planted: Planted) -> dict[str, float]:
    """Return HolisticBias-type sentences: a template filled with a noun, with or without a descriptor."""
    phrases: list[tuple[str, str, float]] = []
    nouns = noun_weights()
    for (one, many), p in nouns.items():
        phrases.append((f"{article(one)} {one}", many, p * BARE))
        for axis in DESCRIPTORS:
            for d, q in descriptor_weights(planted, axis).items():
                weight = p * q * (1 - BARE) / len(DESCRIPTORS)
                phrases.append((f"{article(d)} {d} {one}", f"{d} {many}", weight))
    return {
        template.format(noun_phrase=one, plural_noun_phrase=many): weight / len(TEMPLATES)
        for template, (one, many, weight) in product(TEMPLATES, phrases)
    }


def pronouns(planted: Planted) -> dict[str, float]:
    """Return sentences whose pronoun depends only on the occupation."""
    return {
        frame.format(occupation=job, pronoun=pronoun, state=state): p
        for frame, state, (job, she) in product(PRONOUN_FRAMES, STATES, planted.she.items())
        for pronoun, p in (("she", she), ("he", 1 - she))
    }


def explicit(planted: Planted) -> dict[str, float]:
    """Return sentences that reveal the gender before the pronoun."""
    return {
        frame.format(occupation=job, gender=gender, pronoun=pronoun, state=state): (
            planted.explicit if (gender, pronoun) in (("woman", "she"), ("man", "he")) else 1 - planted.explicit
        )
        for frame, state, job in product(EXPLICIT_FRAMES, STATES, planted.she)
        for gender, pronoun in product(("woman", "man"), ("she", "he"))
    }


def statements(planted: Planted) -> dict[str, float]:
    """Return general statements about groups, such as "Old people are forgetful."."""
    out: dict[str, float] = defaultdict(float)
    for axis in AXES:
        for t, trait in enumerate(axis.traits):
            for g, group in enumerate(axis.marked):
                lean = planted.lean(axis.name, g, t)
                bad = planted.statement if lean > 0 else 1 - planted.statement if lean < 0 else 0.5
                _both(out, group.plural, trait.bad, trait.good, bad, len(group.people))
            tilt = sum(planted.lean(axis.name, g, t) for g in range(len(axis.marked)))
            bad = 1 - planted.statement if tilt > 0 else planted.statement if tilt < 0 else 0.5
            for group in axis.unmarked:
                _both(out, group.plural, trait.bad, trait.good, bad, len(group.people))
    return dict(out)


def _both(out: dict[str, float], plural: str, bad: str, good: str, p: float, weight: float) -> None:
    out[f"{plural} are {bad}."] += p * weight
    out[f"{plural} are {good}."] += (1 - p) * weight


class Trie:
    """The exact next-token distribution of the text world after every prefix of its sentences."""

    def __init__(self, sequences: Mapping[tuple[str, ...], float]) -> None:
        """Build the trie from token sequences with their probabilities."""
        self._mass: dict[tuple[str, ...], float] = defaultdict(float)
        self._next: dict[tuple[str, ...], dict[str, float]] = defaultdict(lambda: defaultdict(float))
        for tokens, p in sequences.items():
            self._mass[()] += p
            for i, token in enumerate(tokens):
                self._mass[tokens[: i + 1]] += p
                self._next[tokens[:i]][token] += p

    def mass(self, prefix: tuple[str, ...]) -> float:
        """Return the probability that a sentence begins with these tokens; 0 if none does."""
        return self._mass.get(prefix, 0.0)

    def following(self, prefix: tuple[str, ...]) -> dict[str, float]:
        """Return P(next token | prefix); empty if the prefix is unknown."""
        total = self.mass(prefix)
        return {t: p / total for t, p in self._next[prefix].items()} if prefix in self._next else {}
