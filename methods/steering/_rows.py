"""Hidden states that a fit reads: a sequence, one position in it, and the side that its state counts for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from evenhand.errors import SettingsError
from evenhand.interfaces import Array, Model, Passage
from evenhand.methods.steering._contrasts import Contrast
from evenhand.models.tokenization import Encoder

Towards = Literal["other", "right"]
BIASED, UNBIASED, NEUTRAL = "biased", "unbiased", "neutral"
SIDES = (UNBIASED, BIASED)
"""The sides that are contrasted; a direction points to the first."""


class Row(NamedTuple):
    """One state to read."""

    ids: tuple[int, ...]
    position: int
    """Index of the token whose state is read."""
    side: str
    """Side of the contrast: BIASED, UNBIASED or NEUTRAL."""
    letter: str = ""
    """What distinguishes rows for balancing: the letter that is read or decided for; "" without letters."""
    prompt: int | None = None
    """Number of tokens of the prompt, which determines where an edit already in the model begins; None ends the prompt
    at the position that is read."""
    lean: float = 0.0
    """Probability of the unbiased answer minus that of the biased one; only for rows at the answer."""


def continuation_rows(encoder: Encoder, contrasts: Sequence[Contrast], towards: Towards) -> list[Row]:
    """Make two rows per contrast, at the last tokens of the biased and unbiased answers, which the model is given."""
    sides = [(c, index) for c in contrasts for index in (c.biased, _aim(c, towards))]
    encoded = encoder.pairs([c.prompt for c, _ in sides], [c.answers[index] for c, index in sides])
    names = (BIASED, UNBIASED)
    return [
        Row(tuple(ids), len(ids) - 1, names[n % 2], c.letters[index], length)
        for n, ((ids, length), (c, index)) in enumerate(zip(encoded, sides, strict=True))
    ]


def answer_rows(
    model: Model, encoder: Encoder, contrasts: Sequence[Contrast], towards: Towards, min_lean: float
) -> list[tuple[Row, Contrast]]:
    """Make one row per contrast, at the last token of the prompt; its side is the model's decision there.

    Args:
        model: Model that is asked for the probability of every answer.
        encoder: Encoder of its tokenizer.
        contrasts: Contrasts whose prompts are not empty.
        towards: `right` counts decisions for the right answer as unbiased and leaves out those for a third one;
            `other` counts every decision but the biased one.
        min_lean: Rows whose lean is not beyond it, either way, are neutral.

    Returns:
        Each row with its contrast.
    """
    encoded = encoder.pairs([c.prompt for c in contrasts], [c.answers[0] for c in contrasts])
    rows = []
    for c, (ids, length), p in zip(contrasts, encoded, probabilities(model, contrasts), strict=True):
        rivals = [c.right] if towards == "right" else [i for i in range(len(p)) if i != c.biased]
        lean = float(max(p[i] for i in rivals) - p[c.biased])
        decided = int(np.argmax(p))
        if decided != c.biased and decided not in rivals:
            continue
        side = UNBIASED if lean > min_lean else BIASED if lean < -min_lean else NEUTRAL
        rows.append((Row(tuple(ids[:length]), length - 1, side, c.letters[decided], length, lean), c))
    return rows


def probabilities(model: Model, contrasts: Sequence[Contrast]) -> list[Array]:
    """Return the probability of every answer, as the model gives it to letters; for two longer sides, their shares.

    Raises:
        SettingsError: The model gives no finite probability.
    """
    asked = [(c, answer) for c in contrasts for answer in c.answers]
    scores = iter(model.score([Passage(answer, c.prompt, suffix=c.suffix) for c, answer in asked]))
    found = []
    for c in contrasts:
        logprobs = np.array([next(scores).logprob for _ in c.answers])
        if np.isnan(logprobs).any():
            raise SettingsError(
                f"{model.name} gives no probability to an answer to {c.text[:60]!r}: its logits are not finite, or the "
                "text is too long; leave it out of the training data"
            )
        raw = np.exp(logprobs if c.spans else logprobs - logprobs.max())
        found.append(raw if c.spans else raw / raw.sum())
    return found


def lean_of(contrast: Contrast, probability: Array) -> float:
    """Return the probability of the other side minus that of the biased one: 0 if a model prefers neither."""
    return float(probability[contrast.other] - probability[contrast.biased])


def _aim(contrast: Contrast, towards: Towards) -> int:
    return contrast.other if towards == "other" else contrast.right
