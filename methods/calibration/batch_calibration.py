"""`batch_calibration`: subtract the log of the mean probability over a batch.

Source: Zhou et al. 2023, "Batch Calibration: Rethinking Calibration for In-Context Learning and Prompt Engineering"
(arXiv 2309.17249), section 3: the prior of a class is its mean probability over the batch, and answers are divided by
it. The batch is the training data's questions where these are given, else all questions of one call: no labels are
read, but then an answer depends on what else is asked. What the right answers have in common is divided out, too: if
they are not spread evenly over the classes, this makes calibrated answers less accurate.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field

from evenhand.interfaces import AnswerBy, Question, settings
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
)


@settings
class BatchCalibration(Calibrator):
    """Divide every answer by the mean answer."""

    name: ClassVar[str] = "batch_calibration"
    presets: ClassVar[dict[str, dict[str, Any]]] = {"paper": {"per_preamble": True}}
    preset_sources: ClassVar[dict[str, dict[str, str]]] = {"paper": {"": "arXiv 2309.17249"}}
    renamed: ClassVar[dict[str, str]] = {"least": "min_answers", "per_head": "per_preamble"}

    min_answers: Annotated[int, Field(ge=2)] = 10
    """Minimum number of answers for estimating a prior; smaller groups are not calibrated (a single answer would become
    uniform)."""
    per_preamble: bool = False
    """Whether each header with its demonstrations has its own prior, as in the paper."""

    def about(self, question: Question, answer_by: AnswerBy) -> About | str:
        """Group questions by number of options or by labels, and by header with `per_preamble`."""
        return (per_preamble if self.per_preamble else pooled)(question, answer_by)

    def plan(self, group: Group, learned: Learned) -> Plan:
        """Use the mean answer of the group."""
        return from_batch(group, self.min_answers, lambda p: Estimate(p.mean(axis=0)))
