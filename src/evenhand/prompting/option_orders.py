"""Orders of options: which to ask, and how their answers are combined (Liusie et al. 2024, arXiv 2403.13590).

An order is a tuple of option identities: `order[j]` is the option shown at position j.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import permutations
from math import factorial
from typing import Literal, NamedTuple

import numpy as np
from scipy.special import softmax

from evenhand.core.draws import generator
from evenhand.errors import SettingsError
from evenhand.interfaces import Array, Question
from evenhand.prompting.rendering import LETTERS

Kind = Literal["full", "cyclic", "sampled"]
Mean = Literal["arithmetic", "geometric"]
Order = tuple[int, ...]

MOST = 720
"""Maximum number of orders of one question: all orders of six options."""
KEPT = 16_384
"""Number of sets of option texts whose movable positions are remembered."""
LEAST_PROBABILITY = 1e-12
"""Lower bound of probabilities in a geometric mean, so that one impossible position does not decide alone."""

_ALL_OF = re.compile(
    r"\b(?:all|none|neither|either|both|any|each)\b.{0,20}\b(?:above|below|foregoing|previous|preceding|options|choices|"
    r"answers)\b|\b(?:neither|both)\s+of\s+(?:these|them)\b|\b(?:the\s+)?(?:above|previous)\s+(?:options?|answers?)\b",
    re.I,
)
_AND = r"(?:\s*(?:,|and|or|nor|&|\+)\s*\(?[A-Z]\)?)"
_NAMED = re.compile(
    rf"(?:\b(?i:both|either|neither|only|options?|answers?|choices?)\s+\(?[A-Z]\)?{_AND}*|\A\W*[A-Z]\)?{_AND}+)(?!\w)"
)
_LETTER = re.compile(r"\b([A-Z])\b")


class Movable(NamedTuple):
    """Which options of a question may change places."""

    places: tuple[int, ...]
    """Positions in the shown order whose options may be exchanged."""
    note: str
    """Why the other options may not; "" if all may."""


def movable(question: Question) -> Movable:
    """Find the positions that may be reordered: options like "all of the above" and those they name stay in place."""
    options = question.options
    return _movable(tuple(options if question.shown is None else [options[o] for o in question.shown]))


@lru_cache(maxsize=KEPT)
def _movable(shown: tuple[str, ...]) -> Movable:
    """Compute `movable` from the texts in the shown order; cached, since it is needed again for every set of orders."""
    fixed: set[int] = set()
    for place, text in enumerate(shown):
        named = _letters_named(text, len(shown))
        if _ALL_OF.search(text) or named:
            fixed |= {place, *named}
    if not fixed:
        return Movable(tuple(range(len(shown))), "")
    names = ", ".join(LETTERS[place] for place in sorted(fixed))
    places = tuple(place for place in range(len(shown)) if place not in fixed)
    return Movable(places, f"options that speak of positions stay where they are: {names}")


def _letters_named(text: str, count: int) -> set[int]:
    match = _NAMED.search(text)
    named = {LETTERS.index(letter) for letter in _LETTER.findall(match[0])} if match else set()
    return named if all(place < count for place in named) else set()


def orders_of(question: Question, kind: Kind, *, count: int = 0, seed: int = 0) -> list[Order]:
    """Return the orders in which to ask a question; the shown one is the first, unless they are drawn.

    Args:
        question: The question; options that refer to positions keep their places.
        kind: "full" is all of them, "cyclic" the rotations, "sampled" uniform draws (with replacement).
        count: Number of draws.
        seed: Seed of the draws, with the question's id and options: they do not depend on what else is asked.

    Raises:
        SettingsError: "full" would be more than `MOST`, or no draws were asked for.
    """
    places = movable(question).places
    if kind == "sampled":
        if count < 1:
            raise SettingsError(f"{count} sampled orders: give at least 1")
        rng = generator(seed, question.id, "\n".join(question.options))
        return [_placed(question.order, places, rng.permutation(len(places)).tolist()) for _ in range(count)]
    if kind == "cyclic":
        turns = [[(j + turn) % len(places) for j in range(len(places))] for turn in range(max(1, len(places)))]
        return [_placed(question.order, places, turn) for turn in turns]
    if factorial(len(places)) > MOST:
        raise SettingsError(
            f"{question.id}: {len(places)} options have {factorial(len(places)):,} orders, more than {MOST}; take "
            "orders=cyclic, or orders=sampled with a number of draws"
        )
    return list(_all_orders(question.order, places))


@lru_cache(maxsize=64)
def _all_orders(order: Order, places: tuple[int, ...]) -> tuple[Order, ...]:
    return tuple(_placed(order, places, turn) for turn in permutations(range(len(places))))


def _placed(order: Order, places: Sequence[int], turn: Sequence[int]) -> Order:
    """Return the order with the options at `places` permuted among those places."""
    out = list(order)
    for place, taken in zip(places, turn, strict=True):
        out[place] = order[places[taken]]
    return tuple(out)


def debias(by_position: Array, orders: Sequence[Order], mean: Mean = "arithmetic") -> Array:
    """P_deb(option): the mean over orders of P(position where the option stands | order).

    Source: Liusie et al. 2024, equation of the permutation-debiased teacher. The geometric mean is ours: where the
    model's distribution is prior[position] * d[option], it recovers d over the cyclic or the full set; the arithmetic
    mean over the full set keeps d's argmax, and over the cyclic set not even that.

    Args:
        by_position: [orders, K] probabilities of the positions.
        orders: The order of each row.
        mean: Kind of mean over the orders.

    Returns:
        [K] probabilities of the options by identity.
    """
    back = np.argsort(np.asarray(orders), axis=1)
    return averaged(np.take_along_axis(np.asarray(by_position, dtype=np.float64), back, axis=1), mean)


def averaged(by_option: Array, mean: Mean = "arithmetic") -> Array:
    """Apply `debias` to probabilities that are already by identity, of any number of questions at once.

    Args:
        by_option: [..., orders, K] probabilities of the options by identity.
        mean: Kind of mean over the orders.

    Returns:
        [..., K] probabilities of the options by identity.
    """
    if mean == "arithmetic":
        total: Array = by_option.mean(axis=-2)
        return np.asarray(total / total.sum(axis=-1, keepdims=True))
    return np.asarray(softmax(np.log(np.maximum(by_option, LEAST_PROBABILITY)).mean(axis=-2), axis=-1))


def by_position(probabilities: Sequence[float], order: Order) -> list[float]:
    """Put probabilities by identity into the order of the positions."""
    return [probabilities[option] for option in order]


def pairwise(wins: Array) -> Array:
    """Debias preferences from comparisons in both orders: (P_ij + 1 - P_ji) / 2 (Liusie et al. 2024).

    Args:
        wins: [N, N] P(the first is preferred), row shown first, column second; the diagonal is not read.

    Returns:
        [N, N] P(row preferred to column), whatever was shown first; 1/2 on the diagonal.
    """
    wins = np.asarray(wins, dtype=np.float64)
    if wins.ndim != 2 or wins.shape[0] != wins.shape[1]:
        raise SettingsError(f"preferences of shape {wins.shape}: give a square matrix")
    out: Array = (wins + 1 - wins.T) / 2
    np.fill_diagonal(out, 0.5)
    return out


def flips(decisions: Sequence[int | None]) -> bool:
    """Whether the chosen option changes with the order; orders without a decision do not count."""
    return len({d for d in decisions if d is not None}) > 1


def sensitivity(by_option: Array) -> float:
    """Compute the mean half-L1 distance between the distributions by identity of two orders, over all pairs (ours).

    Args:
        by_option: [orders, K] probabilities by identity.

    Returns:
        0 if the order does not matter, at most 1; nan for a single order.
    """
    p = np.asarray(by_option, dtype=np.float64)
    if len(p) < 2:
        return float("nan")
    distances = 0.5 * np.abs(p[:, None] - p[None]).sum(axis=-1)
    return float(distances.sum() / (len(p) * (len(p) - 1)))
