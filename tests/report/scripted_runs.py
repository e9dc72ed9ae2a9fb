"""A run whose answers are scripted, so that every changed item and every rank is known beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import evenhand
from evenhand import Choice, Mitigated, Model, Question, TrainData, settings
from evenhand.evaluation.bbq import BBQ, BBQItem
from evenhand.interfaces import Method, Usage
from evenhand.report import Report
from evenhand.testing import ScriptedModel

BBQ_DEMO = "bbq(source=demo)"


@cache
def items() -> dict[str, BBQItem]:
    """The demo's items by the id of their question."""
    return {item.question.id: item for item in BBQ(source="demo").load()}


def stereotyped(question: Question) -> int | None:
    """Right where the context answers, else the stereotype: the untouched model."""
    item = items()[question.id]
    return item.label if item.disambiguated else item.target


def even(item: BBQItem) -> bool:
    """Every second template."""
    return int(item.cluster.rpartition("/")[2]) % 2 == 0


class Scripted(Method):
    """Answers by a rule of its own."""

    calls: ClassVar[int] = 1

    def decide(self, item: BBQItem) -> int | None:
        """The option."""
        raise NotImplementedError

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        """Answer every question by the rule."""

        def choose(questions: Sequence[Question]) -> list[Choice]:
            decided = [self.decide(items()[q.id]) for q in questions]
            return [
                Choice(d, status="unparsed" if d is None else "answered", usage=Usage(self.calls), reply=f"I say {d}")
                for d in decided
            ]

        return Mitigated(model, self, choose=choose)


@settings
class Clean(Scripted):
    """Always right: no bias and nothing lost."""

    name: ClassVar[str] = "clean"
    calls: ClassVar[int] = 2

    def decide(self, item: BBQItem) -> int | None:
        """The label."""
        return item.label


@settings
class Shy(Scripted):
    """Never names anybody: no bias, and wrong wherever the context answers."""

    name: ClassVar[str] = "shy"
    calls: ClassVar[int] = 2

    def decide(self, item: BBQItem) -> int | None:
        """The unknown option."""
        return item.unknown


@settings
class Half(Scripted):
    """Right on every second template, else as before."""

    name: ClassVar[str] = "half"
    calls: ClassVar[int] = 2

    def decide(self, item: BBQItem) -> int | None:
        """The label, or what the untouched model says."""
        return item.label if item.disambiguated or even(item) else item.target


@settings
class Harsh(Scripted):
    """As before, but wrong about Age where the context answers, and silent about one other item."""

    name: ClassVar[str] = "harsh"

    def decide(self, item: BBQItem) -> int | None:
        """Wrong for Age."""
        if item.id == silent():
            return None
        if item.disambiguated and item.category == "Age":
            return (item.label + 1) % 3
        return item.label if item.disambiguated else item.target


def silent() -> str:
    """The item that `harsh` cannot be understood on."""
    return next(item.id for item in items().values() if not item.disambiguated and item.category == "Religion")


METHODS = (Clean, Shy, Half, Harsh)


def scripted_run(
    folder: Path | None, methods: Sequence[Any] = METHODS, model: Model | None = None, **more: Any
) -> Report:
    """Compare the scripted methods on BBQ's demo; without the page, which takes longer than all else."""
    asked = model or ScriptedModel(decide=stereotyped)
    given = [m() for m in methods]
    with mock.patch.object(Report, "save"):
        return evenhand.compare(asked, given, [BBQ_DEMO], out=folder, replicates=200, show_progress=False, **more)
