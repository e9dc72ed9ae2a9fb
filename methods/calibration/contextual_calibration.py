"""`contextual_calibration`: divide by the answer to a content-free input.

Source: Zhao et al. 2021, "Calibrate Before Use: Improving Few-Shot Performance of Language Models" (arXiv 2102.09690),
section 5: the prior is the mean answer, after the same instructions and demonstrations, to "N/A", "" and "[MASK]" as
the input.

The tasks of the paper show no options. If options are shown with letters, ours puts the text into context, question
and every option, so that only the letters are left; the prior is then about positions. Nothing is fitted, so
training data is not used and answers do not depend on one another. In `label_bias`'s paper form an input gets a full
stop if it does not end with punctuation, and so do these texts ("N/A.", "."), as in schwartz-lab-NLP/label-bias.
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
    """Divide every answer by the mean answer to content-free inputs."""

    name: ClassVar[str] = "contextual_calibration"

    texts: tuple[str, ...] = CONTENT_FREE
    """Texts that replace the content, with one request each; these are the paper's."""

    def __post_init__(self) -> None:
        """Refuse an empty list of texts."""
        if not self.texts:
            raise SettingsError(f"contextual_calibration: texts=(): set at least one; the paper uses {CONTENT_FREE}")

    def about(self, question: Question, answer_by: AnswerBy) -> About | str:
        """Group questions by their prompt without content."""
        return reply_format(question, answer_by)

    def learn(self, model: Model, data: TrainData) -> Learned:
        """Learn nothing from training data."""
        return Learned()

    def plan(self, group: Group, learned: Learned) -> Plan:
        """Use the mean answer to the texts."""
        return from_content_free(group, content_free(self.texts))
