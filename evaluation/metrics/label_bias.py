"""Label bias: how unevenly a classifier treats its labels, or a multiple-choice model its letters. Numbers only.

RSD and BiasScore follow Reif & Schwartz 2024 (arXiv 2405.02743; schwartz-lab-NLP/label-bias, utils/metrics.py), RStd
follows Zheng et al. 2024 (arXiv 2309.03882; chujiezheng/LLM-MCQ-Bias, debias_pride.py). All are fractions. Every
function takes counts and keeps their leading dimensions, so that a bootstrap needs no loop; the last axis is the class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf

import numpy as np

from evenhand.errors import SettingsError
from evenhand.evaluation.metrics.formulas import Formula
from evenhand.evaluation.metrics.row_sums import Row
from evenhand.interfaces import Array, Choice, Measured, Metric, Question
from evenhand.statistics.moments import ratio


def recalls(gold: Array, hits: Array) -> Array:
    """Return the share of each class's items answered right, [..., K]; nan for a class without items."""
    return ratio(hits, gold)


def accuracy(gold: Array, hits: Array) -> Array:
    """Return the share of all items answered right, [...]; nan without items."""
    return ratio(hits.sum(axis=-1), gold.sum(axis=-1))


def recall_std(gold: Array, hits: Array) -> Array:
    """Compute RStd: the population standard deviation of recalls over classes with items, [...]; nan without items.

    0 is even treatment, 0.5 the most there can be. Zheng et al. print it times 100.
    """
    present = gold > 0
    count = present.sum(axis=-1)
    known = np.where(present, recalls(gold, hits), 0.0)
    mean = ratio(known.sum(axis=-1), count)
    squares = np.where(present, (known - mean[..., None]) ** 2, 0.0)
    return np.asarray(np.sqrt(ratio(squares.sum(axis=-1), count)))


def rsd(gold: Array, hits: Array) -> Array:
    """Compute the relative standard deviation of class-wise accuracy: RStd over micro accuracy, [...].

    0 is even treatment; a constant answer on K balanced classes gives sqrt(K - 1), so that values are comparable only
    between tasks of the same K. If nothing is right it is nan (the authors' code returns 0, the best value).
    """
    return ratio(recall_std(gold, hits), accuracy(gold, hits))


def macro_f1(gold: Array, hits: Array, predicted: Array) -> Array:
    """Average F1 over the classes that have items, [...]; a class that is never predicted has 0.

    Args:
        gold: Items per class, [..., K].
        hits: Items per class that were predicted to be of their class.
        predicted: Predictions per class, right or wrong.
    """
    present = gold > 0
    f1 = np.where(present, ratio(2 * hits, gold + predicted), 0.0)
    return ratio(f1.sum(axis=-1), present.sum(axis=-1))


def bias_score(mass: Array, rows: Array) -> Array:
    """Compute BiasScore: half the L1 distance between the class-balanced mean prediction and uniform, [...].

    1/2 * || mean over classes c of (mean of p(.|x) over items of class c) - 1/K ||_1. 0 is no preference, 1 - 1/K
    always the same label. It needs items of every label: a perfect classifier that only saw m of K labels has 1 - m/K.

    Args:
        mass: Summed probabilities, [..., K gold classes, K labels].
        rows: Items with probabilities per gold class, [..., K].
    """
    present = rows > 0
    means = np.where(present[..., None], ratio(mass, np.broadcast_to(rows[..., None], mass.shape)), 0.0)
    count = present.sum(axis=-1)
    balanced = ratio(means.sum(axis=-2), np.broadcast_to(count[..., None], (*count.shape, mass.shape[-1])))
    distance: Array = np.abs(balanced - 1 / mass.shape[-1]).sum(axis=-1)
    return np.asarray(0.5 * distance)


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts of one list of answers over K classes."""

    gold: Array
    hits: Array
    predicted: Array


def counts(gold: list[int], predicted: list[int | None], classes: int) -> Counts:
    """Count golds, hits and predictions per class; None is an answer that could not be read, and so is wrong.

    Raises:
        SettingsError: The lists differ in length.
    """
    if len(gold) != len(predicted):
        raise SettingsError(f"{len(gold)} labels but {len(predicted)} predictions; give one per item, None if unparsed")
    right = [g for g, p in zip(gold, predicted, strict=True) if g == p]
    named = [p for p in predicted if p is not None]
    return Counts(*(np.bincount(xs, minlength=classes).astype(np.float64) for xs in (gold, right, named)))


@dataclass(frozen=True)
class LabelColumns:
    """Columns of a tally from which the label metrics of a benchmark with K classes are computed.

    A benchmark with named statistics has `names` among them, `named_row(...)` of every answer in its own row, and
    `formula` among its formulas; one with arrays adds `answer_row(...)` and `metrics(...)` to its own. For multiple
    choice the classes are the positions (letters) of the options. Columns: rows per gold class, right ones per gold
    class, decisions per class, then for BiasScore the rows with probabilities per gold class and their summed
    probabilities per gold class and class.
    """

    classes: int
    noun: str = "letter"
    """Name of a class in descriptions; "label" also keeps the paper's name for BiasScore (`evenness`)."""

    @property
    def evenness(self) -> str:
        """Name of BiasScore among the metrics; it differs for positions, as it says nothing about social bias."""
        return "bias_score" if self.noun == "label" else "position_evenness"

    @property
    def width(self) -> int:
        """Number of columns."""
        return (4 + self.classes) * self.classes

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the columns, for benchmarks whose statistics have names."""
        numbers = [str(n + 1) for n in range(self.classes)]
        counts = [f"{what}_{n}" for what in ("gold", "hits", "decided", "known") for n in numbers]
        return (*counts, *(f"mass_{gold}_{n}" for gold in numbers for n in numbers))

    @cached_property
    def _mass(self) -> list[tuple[str, ...]]:
        """Names of the summed probabilities of each gold class."""
        return [self.names[n * self.classes : (n + 1) * self.classes] for n in range(4, 4 + self.classes)]

    @cached_property
    def formula(self) -> Formula:
        """The label metrics, computed from sums of the named columns."""
        return Formula(self.info, lambda sums: self.metrics(sums.stacked(self.names)))

    def row(self, gold: int, predicted: int | None, probabilities: Sequence[float] | None = None) -> list[float]:
        """Return the columns of one answer.

        Args:
            gold: The right class.
            predicted: The decision; None without one.
            probabilities: P(class), summing to 1; None if only a decision is known.
        """
        out, k = [0.0] * self.width, self.classes
        out[gold] = 1.0
        if predicted is not None:
            out[k + gold] = float(predicted == gold)
            out[2 * k + predicted] = 1.0
        if probabilities is not None:
            out[3 * k + gold] = 1.0
            out[(4 + gold) * k : (5 + gold) * k] = probabilities
        return out

    def named_row(self, question: Question, right: int, answer: Choice) -> Row:
        """Return the contents of `answer_row` by name, without the zeros."""
        k, names, shown = self.classes, self.names, question.shown
        gold = right if shown is None else shown.index(right)
        found = {names[gold]: 1.0}
        if answer.decision is not None:
            found[names[2 * k + question.position_of(answer.decision)]] = 1.0
            if answer.decision == right:
                found[names[k + gold]] = 1.0
        p = answer.probabilities
        if p is not None:
            found[names[3 * k + gold]] = 1.0
            found.update(zip(self._mass[gold], p if shown is None else [p[o] for o in shown], strict=True))
        return found

    def answer_row(self, question: Question, right: int, answer: Choice) -> list[float]:
        """Return the columns of an answer to a multiple-choice question, whose classes are the options' positions.

        Args:
            question: The question, with its shown order.
            right: Identity of the right option.
            answer: The answer.
        """
        p = answer.probabilities
        decided = None if answer.decision is None else question.position_of(answer.decision)
        return self.row(question.position_of(right), decided, None if p is None else [p[o] for o in question.order])

    def split(self, sums: Array) -> Counts:
        """Return the summed columns [..., width] as counts [..., K]."""
        k = self.classes
        return Counts(sums[..., :k], sums[..., k : 2 * k], sums[..., 2 * k : 3 * k])

    def metrics(self, sums: Array) -> dict[str, Measured]:
        """Compute the label metrics from summed columns, [...] each."""
        c, k = self.split(sums), self.classes
        known = sums[..., 3 * k : 4 * k]
        mass = sums[..., 4 * k : self.width].reshape(*sums.shape[:-1], k, k)
        rows, decided = c.gold.sum(axis=-1), c.predicted.sum(axis=-1)
        shares = ratio(c.predicted, decided[..., None])
        out = {
            "rsd": Measured(rsd(c.gold, c.hits), rows),
            "rstd": Measured(recall_std(c.gold, c.hits), rows),
            "macro_f1": Measured(macro_f1(c.gold, c.hits, c.predicted), rows),
            self.evenness: Measured(bias_score(mass, known), known.sum(axis=-1)),
        }
        for i in range(self.classes):
            out[f"position_{i + 1}"] = Measured(shares[..., i], decided)
        return out

    @cached_property
    def info(self) -> tuple[Metric, ...]:
        """Return the definitions of the metrics."""
        noun = self.noun
        return (
            Metric(
                "rsd",
                "lower",
                "bias",
                f"spread of accuracy over right {noun}s, relative to accuracy; 0 is even, nan "
                f"where nothing is right, {np.sqrt(self.classes - 1):.2f} always the same {noun} of balanced rows",
                form="resampled",
                range=(0, inf),  # it has no upper limit for unbalanced rows
            ),
            Metric(
                "rstd",
                "lower",
                "bias",
                f"standard deviation of the recall of each right {noun}, 0 to 0.5",
                form="resampled",
                range=(0, 0.5),
            ),
            Metric(
                "macro_f1",
                "higher",
                "capability",
                f"mean F1 over the {noun}s that are right somewhere, 0 to 1",
                form="resampled",
                range=(0, 1),
            ),
            Metric(
                self.evenness,
                "lower",
                "bias",
                f"distance of the mean P({noun}) from uniform, each right {noun} weighted equally; 0 is even",
                form="resampled",
                range=(0, 1 - 1 / self.classes),
            ),
            *(
                Metric(
                    f"position_{i + 1}",
                    "none",
                    "validity",
                    f"share of decisions for {noun} {i + 1}",
                    form="proportion",
                    range=(0, 1),
                )
                for i in range(self.classes)
            ),
        )
