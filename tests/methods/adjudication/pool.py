"""Judges and writers for tests: they answer by rule and keep what they were asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from math import log

from evenhand.core.hashing import digest
from evenhand.interfaces import Ability, Dialogue, Model, Passage, Reply, Sampling, Score, Usage


class Killed(Exception):
    """A run that ends in the middle."""


class Rater(Model):
    """Rates a text by a rule; `requests` counts what it was asked."""

    def __init__(self, name: str, rate: Callable[[str], float], *, helpful: float = 4.0, ends_after: int = 0) -> None:
        self.name, self._rate, self._helpful, self.ends_after = name, rate, helpful, ends_after
        self.requests: Counter[str] = Counter()

    @property
    def abilities(self) -> frozenset[Ability]:
        return frozenset({"score", "generate"})

    @property
    def fingerprint(self) -> str:
        return digest("rater", self.name)

    def score(self, passages: Sequence[Passage]) -> list[Score]:
        out = []
        for p in passages:
            assert isinstance(p.prompt, Dialogue)
            asked = p.prompt.messages[-1].content
            request, _, text = asked.partition("\n")
            self.requests[f"{asked}/{p.continuation}"] += 1
            if self.ends_after and self.requests.total() > self.ends_after:
                raise Killed
            value = self._helpful if "helpfulness" in request else self._rate(text)
            near = max(0.0, 1 - abs(int(p.continuation) - value)) if p.continuation.isdigit() else 0.0
            out.append(Score(log(max(near, 1e-9)), 1))
        return out

    def generate(self, dialogues: Sequence[Dialogue], sampling: Sampling = Sampling()) -> list[Reply]:
        self.requests.update(d.messages[-1].content for d in dialogues)
        return [Reply("It is unkind.", Usage(1)) for _ in dialogues]

    def save(self, folder: object) -> object:  # type: ignore[override]
        raise NotImplementedError
