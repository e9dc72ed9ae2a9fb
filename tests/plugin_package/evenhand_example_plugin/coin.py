"""A benchmark in a package of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from evenhand import Benchmark, Measured, Metric, Question, Tally, settings


@dataclass(frozen=True)
class Toss:
    """One toss; tosses of the same coin form a cluster."""

    id: str
    cluster: str


@settings
class Coin(Benchmark):
    """How often the model says heads."""

    name: ClassVar[str] = "coin"
    needs: ClassVar[frozenset[str]] = frozenset({"choose"})
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric(
            "heads",
            "none",
            "bias",
            "share of tosses answered with heads, 0 to 1",
            True,
            form="proportion",
            range=(0, 1),
        ),
    )

    tosses: int = 12
    """Number of tosses."""

    def load(self):
        """Tosses of three coins."""
        return [Toss(f"toss {i}", f"coin {i % 3}") for i in range(self.tosses)]

    def ask(self, model, items):
        """One question a toss."""
        return model.choose([Question(i.id, f"Who was there {i.cluster}?", ("heads", "tails")) for i in items])

    def tally(self, items, answers):
        """Tosses and heads per coin."""
        clusters = tuple(dict.fromkeys(i.cluster for i in items))
        sums = np.zeros((len(clusters), 1, 2))
        for item, answer in zip(items, answers, strict=True):
            sums[clusters.index(item.cluster), 0] += (1, answer.decision == 0)
        return Tally(clusters, ("coins",) * len(clusters), ("overall",), sums)

    def compute(self, sums):
        """The share of heads."""
        n = sums[..., 0]
        return {"heads": Measured(np.divide(sums[..., 1], n, out=np.full(n.shape, np.nan), where=n > 0), n)}
