"""Two methods that do not work, each in its own way; the bench must distinguish them from methods that do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from evenhand.interfaces import Ability, Choice, Method, Model, Question, TrainData, settings
from evenhand.models import Mitigated
from evenhand.proving_ground.generator.words import UNKNOWN


@settings
class NoOp(Method):
    """A method that asks the model as it is, so that nothing moves."""

    name: ClassVar[str] = "no_op"
    needs: ClassVar[frozenset[Ability]] = frozenset({"choose"})

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        """Wrap the model without any change."""
        return Mitigated(model, self, choose=lambda questions: model.choose(questions))


@settings
class AlwaysUnknown(Method):
    """A method that answers "unknown" wherever that is an option: no bias is left, and no use either."""

    name: ClassVar[str] = "always_unknown"
    needs: ClassVar[frozenset[Ability]] = frozenset({"choose"})

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        """Wrap the model so that it answers "unknown"."""

        def choose(questions: Sequence[Question]) -> list[Choice]:
            return [_unknown(q, a) for q, a in zip(questions, model.choose(questions), strict=True)]

        return Mitigated(model, self, choose=choose)


def _unknown(question: Question, answer: Choice) -> Choice:
    found = [i for i, text in enumerate(question.options) if text in UNKNOWN]
    return replace(answer, decision=found[0], probabilities=None) if found else answer
