"""The training data called "demo": practice questions, texts and pairs. Found by its entry point, like a plugin."""

from __future__ import annotations

from evenhand.errors import SettingsError, suggest
from evenhand.interfaces import TrainData
from evenhand.proving_ground.generator import practice, practice_bias

TEXTS, PAIRS, BIASED = "texts", "pairs", "biased"
KINDS = (*practice.KINDS, TEXTS, PAIRS, BIASED)
"""Kinds of data that may follow "demo:"."""


def load(wanted: str = "") -> TrainData:
    """Return the training data named after "demo:".

    Args:
        wanted: "" for questions of every kind, "KIND", "KIND:COUNT", and with an axis "pairs:AXIS:COUNT".

    Raises:
        SettingsError: There is no such kind, axis or count.
    """
    if not wanted:
        return practice.mixed()
    kind, *rest = wanted.split(":")
    if kind not in KINDS:
        raise SettingsError(
            f"no practice questions of kind {kind!r}. {suggest(kind, KINDS)} Kinds are {', '.join(KINDS)}"
        )
    axis = rest.pop(0) if kind in (PAIRS, BIASED) and rest and not rest[0].isdigit() else ""
    if len(rest) > 1 or (rest and not (rest[0].isdigit() and int(rest[0]))):
        raise SettingsError(f"{':'.join(rest)!r} is not a number of items; write demo:{kind}:400")
    count = int(rest[0]) if rest else None
    if kind == TEXTS:
        return TrainData(texts=practice.texts(count or practice.TEXTS))
    if kind == PAIRS:
        return TrainData(pairs=practice_bias.pairs(axis, count))
    if kind == BIASED:
        return TrainData(texts=practice_bias.biased(axis, count))
    (known,) = (known for known in practice.KINDS if known == kind)
    return practice.practice(known, count or practice.COUNT)
