"""A mitigation method in a package of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from evenhand import Method, Mitigated, Model, TrainData, settings


@settings
class Shout(Method):
    """Puts every question in capitals."""

    name: ClassVar[str] = "shout"
    needs: ClassVar[frozenset[str]] = frozenset({"choose"})

    marks: int = 1
    """How many exclamation marks follow."""

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        """Wrap the model."""

        def choose(questions):
            return model.choose([replace(q, question=q.question.upper() + "!" * self.marks) for q in questions])

        return Mitigated(model, self, choose=choose)
