"""`check_benchmark` catches what makes a benchmark's numbers wrong, one deliberately wrong benchmark for each fault."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

from evenhand.interfaces import Array, Benchmark, Choice, Grade, Measured, Metric, Question, Tally, settings
from evenhand.testing import NonconformingError, check_benchmark

OPTIONS = ("dog", "cat", "letter")


@dataclass(frozen=True)
class Riddle:
    """A riddle about a thing; those about the same thing form a cluster."""

    question: Question
    right: int
    cluster: str

    @property
    def id(self) -> str:
        return self.question.id


@dataclass(frozen=True)
class Loose:
    """An item without a cluster."""

    id: str


def riddle(n: int) -> Riddle:
    return Riddle(Question(f"r{n}", "Who was there?", OPTIONS, context=f"{n} dogs."), n % 3, OPTIONS[n % 4 % 3])


@settings
class Riddles(Benchmark[Any, Choice]):
    """Right answers to riddles; may be told to go wrong."""

    name: ClassVar[str] = "toy_riddles"
    needs = frozenset({"choose"})
    metrics = (Metric("right", "higher", "capability", "share right", True, "proportion", (0, 1)),)
    wrong: str = ""

    def load(self) -> list[Any]:
        return [Loose(f"r{n}") if self.wrong == "loose" else riddle(n) for n in range(10)]

    def ask(self, model: Any, items: Any) -> list[Choice]:
        return list(model.choose([i.question for i in items]))

    def tally(self, items: Any, answers: Any) -> Tally:
        clusters = list(dict.fromkeys(i.cluster for i in items))
        sums = np.zeros((len(clusters), 1, 2))
        previous: int | None = None
        for item, answer in zip(items, answers, strict=True):
            right = answer.decision == (previous if self.wrong == "order" else item.right)
            sums[clusters.index(item.cluster), 0] += (1, right)
            previous = item.right
        groups = {"overall": "all", "first": items[0].id}.get(self.wrong, "overall")
        return self._named(clusters, groups, sums)

    def _named(self, clusters: list[str], group: str, sums: Array) -> Tally:
        strata = ("",) * len(clusters)
        if self.wrong == "missing":
            return Tally(tuple(clusters[1:]), strata[1:], (group,), sums[1:])
        if self.wrong == "twice":
            both = np.concatenate([sums, sums[:1]])
            return Tally((*clusters, clusters[0]), (*strata, ""), (group,), both)
        if self.wrong == "strata":
            return Tally(tuple(clusters), strata[1:], (group,), sums)
        groups = (group, "overall") if self.wrong == "first" else (group,)
        return Tally(tuple(clusters), strata, groups, np.repeat(sums, len(groups), axis=1))

    def compute(self, sums: Array) -> dict[str, Measured]:
        n = sums[..., 0]
        if self.wrong == "if":
            return {"right": Measured(sums[..., 1] / n if n > 0 else n, n)}
        if self.wrong == "first axis":
            n, right = sums[:, 0], sums[:, 1]
            return {"right": Measured(right / n, n)}
        if self.wrong == "normalised":
            right = sums[..., 1] / n.sum(axis=0)
            return {"right": Measured(right, n)}
        if self.wrong == "count":
            return {"right": Measured(sums[..., 1] / n, np.full(n.shape, n.flat[0]))}
        return {"right": Measured(np.divide(sums[..., 1], n, out=np.full(n.shape, np.nan), where=n > 0), n)}

    def grades(self, items: Any, answers: Any) -> list[Grade]:
        lenient = self.wrong == "lenient"
        return [
            Grade(a.decision, a.decision is not None and (lenient or a.decision == i.right))
            for i, a in zip(items, answers, strict=True)
        ]

    def gold(self, items: Any) -> list[int | None]:
        shift = 1 if self.wrong == "gold" else 0
        return [None if self.wrong == "no gold" and i.right == 2 else (i.right + shift) % 3 for i in items]


SAID = {
    "loose": "r0: the item has no cluster. Give items a field or property `cluster: str`",
    "order": "the tally depends on the order of the items: in reverse the sums of cluster",
    "first": "the tally depends on the order of the items: in reverse it has other clusters or groups",
    "overall": "groups must have 'overall', in which every item is; they are ['all']",
    "missing": "the tally's clusters are not those of the items: 'dog' is missing",
    "twice": "the tally's clusters have 'dog' twice; add the sums of a name up",
    "strata": "the tally has 2 strata for 3 clusters",
    "if": "compute() is not vectorised over leading dimensions: with sums of shape (2, 1, 2) it raised ValueError",
    "first axis": "compute() is not vectorised over leading dimensions: with sums of shape (2, 1, 2) it raised Index",
    "normalised": "right is not vectorised over leading dimensions: its value depends on sums of other places",
    "count": "right is not vectorised over leading dimensions: its n depends on sums of other places",
    "gold": "r0: gold() gave option 1, which grades() does not count as right",
    "lenient": "r0: grades() counts option 1 as right, but gold() gave 0",
    "no gold": "r2: grades() counts option 2 as right, but gold() gave None",
}


@pytest.mark.parametrize("wrong", SAID)
def test_a_fault_is_named_with_its_remedy(wrong: str) -> None:
    with pytest.raises(NonconformingError) as raised:
        check_benchmark(Riddles(wrong=wrong))
    assert str(raised.value).startswith(SAID[wrong]), raised.value


def test_a_benchmark_without_faults_passes() -> None:
    check_benchmark(Riddles())
