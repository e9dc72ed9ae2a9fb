"""`domain_calibration`: divide by the answer to random words of the domain.

Source: Fei et al. 2023, "Mitigating Label Biases for In-context Learning" (arXiv 2305.19148), domain-context
calibration: the prior is the mean answer to 20 texts of random words of the domain, as long as its texts on average.

Words come from the training data if it is given, else from the asked questions of the same header and form: then an
answer depends, a little, on what else is asked. If options are shown with letters, ours also fills each option with
random words of options; the prior is then about positions. Words keep their case, and an input is one text;
schwartz-lab-NLP/label-bias (data_utils.py) lower-cases them and draws for each part of an input (premise, hypothesis)
separately, by a table of tasks. The number of words per text, and drawing each word once, are the same.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field

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
from evenhand.methods.calibration.content_free import random_words


@settings
class DomainCalibration(Calibrator):
    """Divide every answer by the mean answer to random words."""

    name: ClassVar[str] = "domain_calibration"
    presets: ClassVar[dict[str, dict[str, Any]]] = {"paper": {"samples": 20}}
    preset_sources: ClassVar[dict[str, dict[str, str]]] = {"paper": {"": "arXiv 2305.19148"}}

    samples: Annotated[int, Field(ge=1)] = 20
    """Number of texts of random words, with one request each."""
    seed: int = 0
    """Seed of the random words."""

    def about(self, question: Question, answer_by: AnswerBy) -> About | str:
        """Group questions by their prompt without content."""
        return reply_format(question, answer_by)

    def learn(self, model: Model, data: TrainData) -> Learned:
        """Draw the texts of random words; the model's answers to them are asked for with each prompt."""
        if not (data.questions or data.texts):
            return Learned()
        return Learned(fillings=tuple(random_words(data.questions, data.texts, count=self.samples, seed=self.seed)))

    def plan(self, group: Group, learned: Learned) -> Plan:
        """Use the mean answer to the texts."""
        words = learned.fillings or random_words(group.domain, count=self.samples, seed=self.seed)
        return from_content_free(group, words)
