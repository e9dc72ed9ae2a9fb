"""`pride`: find the preference for letters on a few questions in all cyclic orders, and divide it away elsewhere.

Source: Zheng et al. 2023, "Large Language Models Are Not Robust Multiple Choice Selectors" (arXiv 2309.03882),
section 4; chujiezheng/LLM-MCQ-Bias, debias_pride.py and debias_utils.py (`simple`). An item's prior is the softmax over
positions of the mean over orders of log p(position), and the prior is the mean of the items' priors. Items used for it
get the mean over their orders as their answer, as in the code; all others cost one pass.

Items for estimating it are drawn by a hash of their ids, from the training data if it is given, else from the asked
questions: then an answer depends on what else is asked. Items with options that refer to positions ("all of the above")
are not drawn, as such options cannot be moved.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from evenhand.core.draws import seeded_hash
from evenhand.interfaces import AnswerBy, Array, Choice, Question, settings
from evenhand.methods.calibration._calibrator import (
    NO_ANSWERS,
    NO_POSITIONS,
    About,
    Calibrator,
    Estimate,
    Group,
    Learned,
    Plan,
    pooled,
    without_prior,
)
from evenhand.methods.calibration._prior_fitting import item_prior
from evenhand.prompting.option_orders import Mean, Order, by_position, debias, movable, orders_of

NONE_MOVABLE = "not calibrated: every question has options that speak of positions, so that no prior can be found"

RELEASED = {"estimation_fraction": 0.05, "min_questions": 1, "mean": "arithmetic", "added": 1e-10}
"""Values of the released code, which the paper's figures come from; the paper's formulas have no constant."""
CODE = "chujiezheng/LLM-MCQ-Bias 2ae2f40"
OF_RELEASED = {
    "": CODE,
    "estimation_fraction": f"{CODE}, debias_pride.py: RATIO_PREFIX_SAMPLES",
    "min_questions": f"ours: {CODE} has no minimum, and a prior needs one question",
    "mean": f"{CODE}, debias_utils.py, simple: np.mean",
    "added": f"{CODE}, debias_pride.py and debias_utils.py",
}


@settings
class PriDe(Calibrator):
    """Divide every answer by the preference for letters, found on a few questions."""

    name: ClassVar[str] = "pride"
    presets: ClassVar[dict[str, dict[str, Any]]] = {"paper": RELEASED, "released": RELEASED}
    preset_sources: ClassVar[dict[str, dict[str, str]]] = {"paper": OF_RELEASED, "released": OF_RELEASED}
    renamed: ClassVar[dict[str, str]] = {"share": "estimation_fraction", "least": "min_questions"}

    estimation_fraction: Annotated[float, Field(gt=0, le=1)] = 0.05
    """Fraction of the questions asked in all cyclic orders, to estimate the prior; 0.05 in the released code."""
    min_questions: Annotated[int, Field(ge=1)] = 5
    """Minimum number of questions asked in all cyclic orders, if `estimation_fraction` gives fewer; all if there are
    not that many. The released code has no minimum."""
    mean: Mean = "arithmetic"
    """How an item's orders are averaged: arithmetic (as in the code), or geometric, which is exact if letters act as a
    factor."""
    seed: int = 0
    """Seed of the draw of questions."""
    added: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Constant added to every probability and to the prior before logarithms are taken; 1e-10 in the released code.
    It matters if letters are nearly impossible: with 1e-10, a letter of probability 0 gains if its prior is below
    1e-10."""

    @property
    def added_before(self) -> float:
        """Constant added to the divided answers as well, as in the code."""
        return self.added

    def about(self, question: Question, answer_by: AnswerBy) -> About | str:
        """Group questions by number of options, if these have positions."""
        about = pooled(question, answer_by)
        return about if about.labels is None else NO_POSITIONS

    def plan(self, group: Group, learned: Learned) -> Plan:
        """Ask the drawn questions in their remaining orders."""
        for question in group.questions:
            if question.dialogue is not None:
                question.reordered(question.order)  # raises an error with the remedy
        drawn = self._drawn(group)
        if not drawn:
            return without_prior(NONE_MOVABLE)
        orders = {i: orders_of(group.questions[i], "cyclic") for i in drawn}
        extra = [group.questions[i].reordered(order) for i in drawn for order in orders[i][1:]]

        def estimate(own: Mapping[int, Choice], answers: list[Choice]) -> Estimate:
            more = iter(answers)
            asked = {i: [own[i], *(next(more) for _ in orders[i][1:])] for i in drawn}
            return self._estimate(orders, asked)

        return Plan(estimate, extra, reads=drawn)

    def _drawn(self, group: Group) -> list[int]:
        """Return indices of the questions that are asked in all orders."""
        free = [i for i, q in enumerate(group.questions) if not movable(q).note]
        wanted = max(self.min_questions, int(len(group.questions) * self.estimation_fraction))
        return sorted(sorted(free, key=lambda i: seeded_hash(self.seed, group.questions[i].id))[:wanted])

    def _estimate(self, orders: Mapping[int, list[Order]], asked: Mapping[int, list[Choice]]) -> Estimate:
        priors: list[Array] = []
        direct_answers: dict[int, Array] = {}
        for i, choices in asked.items():
            known = [
                by_position(c.probabilities, o) for c, o in zip(choices, orders[i], strict=True) if c.probabilities
            ]
            if len(known) == len(choices):
                priors.append(item_prior(np.array(known), self.added))
                direct_answers[i] = debias(np.array(known), orders[i], self.mean)
        return (
            Estimate(np.mean(priors, axis=0), direct_answers=direct_answers) if priors else Estimate(None, NO_ANSWERS)
        )
