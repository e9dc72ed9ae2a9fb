"""`prior_matching`: weight the classes so that, on average over the questions, each has its target probability.

Source: Liusie, Manakul, Gales 2023, "Mitigating Word Bias in Zero-shot Prompt-based Classifiers" (arXiv 2309.04992;
adianliusie/robust-prompt-classifier). The weights minimise a convex function, here by Newton's method with bounded
steps; the public code takes fixed steps, which can oscillate forever.

The weights come from the training data's questions where these are given, else from all questions of one call: no
labels are read, but then an answer depends on what else is asked. A uniform target assumes that right answers are
spread evenly over the classes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar

from pydantic import Field

from evenhand.errors import SettingsError
from evenhand.interfaces import AnswerBy, Array, Question, settings
from evenhand.methods.calibration._calibrator import (
    About,
    Calibrator,
    Estimate,
    Group,
    Learned,
    Plan,
    from_batch,
    per_preamble,
    pooled,
    without_prior,
)
from evenhand.methods.calibration._prior_fitting import match

NO_FRAME = Question("", "", ())
FAR = 1e-6
"""A gap to the target above this is reported."""


@settings
class PriorMatching(Calibrator):
    """Make all classes equally probable on average."""

    name: ClassVar[str] = "prior_matching"
    added_later: ClassVar[frozenset[str]] = frozenset({"per_context"})
    renamed: ClassVar[dict[str, str]] = {"least": "min_answers", "per_head": "per_preamble"}

    target: tuple[float, ...] = ()
    """Target proportions, one per class: by position, or by label in alphabetical order; empty is uniform."""
    min_answers: Annotated[int, Field(ge=2)] = 10
    """Minimum number of answers for estimating the weights; smaller groups are not calibrated."""
    per_preamble: bool = False
    """Whether each header with its demonstrations has its own weights."""
    per_context: bool = False
    """Whether each context, such as a passage shared by several questions, has its own weights: the context prior
    matching that Liusie, Fathullah, Gales 2024 (arXiv 2403.13590) compare with. Contexts with fewer questions than
    `min_answers` are not calibrated."""

    def __post_init__(self) -> None:
        """Refuse a target that cannot be reached."""
        if self.target and (len(self.target) < 2 or not all(0 < t < float("inf") for t in self.target)):
            raise SettingsError(f"prior_matching: target={self.target}: set positive numbers, one for each class")

    def about(self, question: Question, answer_by: AnswerBy) -> About | str:
        """Group questions by number of options or by labels, and by header or context if set."""
        about = (per_preamble if self.per_preamble else pooled)(question, answer_by)
        if not self.per_context:
            return about
        return replace(about, frame=replace(about.frame or NO_FRAME, context=question.context))

    def plan(self, group: Group, learned: Learned) -> Plan:
        """Fit the weights of the group."""
        if self.target and len(self.target) != group.about.options:
            return without_prior(
                f"not calibrated: the target has {len(self.target)} classes, the question {group.about.options}"
            )
        return from_batch(group, self.min_answers, self._matched)

    def _matched(self, p: Array) -> Estimate:
        found = match(p, self.target or None)
        note = f"the target was missed by {found.gap:.1g}: answers are too certain" if found.gap > FAR else ""
        return Estimate(found.prior, note)
