"""`contextual_calibration`: divide by the answer to a question without content.

Source: Zhao et al. 2021, "Calibrate Before Use: Improving Few-Shot Performance of Language Models" (arXiv 2102.09690),
section 5: the prior is the mean answer behind the same instructions and demonstrations to "N/A", "" and "[MASK]" in the
input's place.

The tasks of the paper show no options. Where options are shown with letters, ours puts the text into context, question
and every option, so that nothing is left but the letters; the prior is then about positions. Nothing is fitted, so that
training data is not used and answers do not depend on one another. In `label_bias`'s paper form an input gets a full
stop where no punctuation ends it, so these texts do too ("N/A.", "."), as in schwartz-lab-NLP/label-bias.
"""

from __future__ import annotations

from typing import ClassVar

from evenhand.errors import SettingsError
from evenhand.interfaces import AnswerBy, Model, Question, TrainData, settings
from evenhand.methods.calibration._calibrator import (
    About,
    Calibrator,
    Group,
    Learned,
    Plan,
    from_content_free,
    reply_format,
)
from evenhand.methods.calibration.content_free import CONTENT_FREE, content_free


@settings
class ContextualCalibration(Calibrator):
    """Divide every answer by the mean answer to nothing."""

    name: ClassVar[str] = "contextual_calibration"

    texts: tuple[str, ...] = CONTENT_FREE
    """What stands in the place of the content, one request each; these are the paper's."""

    def __post_init__(self) -> None:
        """Refuse to ask nothing."""
        if not self.texts:
            raise SettingsError(f"contextual_calibration: texts=(): give at least one; the paper takes {CONTENT_FREE}")

    def about(self, question: Question, answer_by: AnswerBy) -> About | str:
        """By prompt without content."""
        return reply_format(question, answer_by)

    def learn(self, model: Model, data: TrainData) -> Learned:
        """Nothing."""
        return Learned()

    def plan(self, group: Group, learned: Learned) -> Plan:
        """The mean answer to the texts."""
        return from_content_free(group, content_free(self.texts))
