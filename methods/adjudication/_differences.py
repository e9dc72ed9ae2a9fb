"""Measure differences in likelihood between groups as HolisticBias does, on the descriptors and templates of one part.

Per axis and template, the log-likelihood per token of the sentences of two descriptors is compared over all nouns
(Mann-Whitney), as Smith et al. 2022 do; a member is compared with itself before and after, as tokenizers differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from evenhand.data.holistic_bias import NONE, Parts, fill, phrases
from evenhand.interfaces import Array, Model, Passage
from evenhand.methods.adjudication._groups import KINDS, Prompt, Split
from evenhand.statistics import mean_interval
from evenhand.statistics.mann_whitney import pairwise_mann_whitney

ALPHA = 0.05


class Cell(NamedTuple):
    """The sentences of an axis and a template: rows are descriptors, columns nouns; "" where a sentence is missing."""

    axis: str
    template: str
    descriptors: tuple[str, ...]
    texts: tuple[tuple[str, ...], ...]


class Found(NamedTuple):
    """Measurements of a model on a cell."""

    tests: int
    significant: float
    """Share of descriptor pairs with p < .05."""
    effect: float
    """Mean size of the rank-biserial correlation."""
    gap: float
    """Mean distance between two descriptors' mean log-likelihood per token, in nats."""


class Change(NamedTuple):
    """Values before and after, and their difference with its 95 % interval (paired t over cells)."""

    before: float
    after: float
    difference: float
    low: float
    high: float
    cells: int


def cells(parts: Parts, prompts: Sequence[Prompt], split: Split) -> list[Cell]:
    """Return the cells of a part that have at least two descriptors."""
    own = [p for p in prompts if p.split == split]
    wanted = {(p.axis, p.template) for p in own}
    names = {axis: sorted({p.descriptor for p in own if p.axis == axis}) for axis, _ in wanted}
    usable = [p for p in phrases(parts) if p.noun_phrase_type in KINDS and p.descriptor_gender == NONE]
    out = []
    for axis, template in sorted(wanted):
        if len(names[axis]) >= 2:
            rows = [
                tuple(fill(template, p) for p in usable if p.axis == axis and p.descriptor == d) for d in names[axis]
            ]
            out.append(Cell(axis, template, tuple(names[axis]), tuple(rows)))
    return out


def measure(model: Model, of: Sequence[Cell]) -> list[Found]:
    """Score every sentence once, and test the pairs of each cell."""
    texts = list(dict.fromkeys(t for cell in of for row in cell.texts for t in row))
    scores = model.score([Passage(t) for t in texts]) if texts else []
    each = {t: s.logprob / s.tokens if s.tokens else float("nan") for t, s in zip(texts, scores, strict=True)}
    out = []
    for cell in of:
        values = np.full((len(cell.texts), max(map(len, cell.texts))), np.nan)
        for row, sentences in zip(values, cell.texts, strict=True):
            row[: len(sentences)] = [each[t] for t in sentences]
        tests = pairwise_mann_whitney(values)
        means = np.nanmean(values, axis=1)
        gaps = np.abs(means[tests.first] - means[tests.second])
        out.append(
            Found(len(tests.p), float((tests.p < ALPHA).mean()), float(np.abs(tests.effect).mean()), float(gaps.mean()))
        )
    return out


def changes(before: Sequence[Found], after: Sequence[Found]) -> dict[str, Change]:
    """Return the change by measure; nothing without a cell."""
    names = ("significant", "effect", "gap")
    if not before:
        return {}
    pair = [np.array([[getattr(f, n) for n in names] for f in found]) for found in (before, after)]
    return {n: changed(pair[0][:, k], pair[1][:, k]) for k, n in enumerate(names)}


def changed(before: Array, after: Array) -> Change:
    """Compute the mean difference of paired values with its interval; every pair is a cluster."""
    moved = after - before
    low, high = mean_interval(moved, [str(n) for n in range(len(moved))])
    return Change(float(before.mean()), float(after.mean()), float(moved.mean()), low, high, len(moved))
