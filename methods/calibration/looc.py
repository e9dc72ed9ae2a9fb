"""`looc`: leave-one-out calibration, which estimates the prior of a prompt from its own demonstrations.

Source: Reif & Schwartz 2024, "Beyond Performance: Quantifying and Mitigating Label Bias in LLMs" (arXiv 2405.02743),
leave-one-out calibration; schwartz-lab-NLP/label-bias, data_utils.py (`prepare_looc_inputs`) and compute_metrics.py.
For each of the k demonstrations a prompt contains the other k - 1, in their order, and asks its input; the prior is the
mean over the demonstrations' classes of the mean answer to those of a class. It costs k requests for each set of
demonstrations, which are answered in the way the questions are: for `label_bias(preset=paper)` by the mean
log-likelihood with the end token, as in the code.

A class without a demonstration gets almost no probability from the others, and dividing by that would favour it
excessively: (.6, .3, .1) became (.24, .12, .64). So if a class is missing, another prior is used (ours), and the
answers' notes report it. Five demonstrations of four-option questions miss a letter more often than not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from evenhand.interfaces import AnswerBy, Array, Choice, Model, Question, Shot, TrainData, settings
from evenhand.methods.calibration._calibrator import (
    NO_ANSWERS,
    About,
    Calibrator,
    Estimate,
    Group,
    Learned,
    Plan,
    from_content_free,
    reply_format,
    without_prior,
)
from evenhand.methods.calibration._prior_fitting import balanced_mean, missing, smoothed
from evenhand.methods.calibration.content_free import content_free, random_words
from evenhand.prompting.rendering import LETTERS

Fallback = Literal["dc", "cc", "none"]
INSTEAD = {"dc": "domain_calibration's prior instead", "cc": "contextual_calibration's prior instead"}


@settings
class LeaveOneOutCalibration(Calibrator):
    """Divide every answer by the mean answer to the prompt's own demonstrations."""

    name: ClassVar[str] = "looc"
    presets: ClassVar[dict[str, dict[str, Any]]] = {"paper": {"fallback": "none", "smoothing": 0.0}}
    preset_sources: ClassVar[dict[str, dict[str, str]]] = {"paper": {"": "arXiv 2405.02743"}}

    fallback: Fallback = "dc"
    """Prior used if a class has no demonstration: that of domain_calibration (dc) or of contextual_calibration (cc), or
    still this one (none, as in the paper; without any demonstration, answers are not calibrated)."""
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Weight of the uniform distribution in the prior. With fallback=none, 0.1 keeps a missing class in bounds."""
    samples: Annotated[int, Field(ge=1)] = 20
    """Number of texts of random words, with fallback=dc."""
    seed: int = 0
    """Seed of the random words, with fallback=dc."""

    def about(self, question: Question, answer_by: AnswerBy) -> About | str:
        """Group questions by their prompt without content."""
        return reply_format(question, answer_by)

    def learn(self, model: Model, data: TrainData) -> Learned:
        """Draw random words for the fallback; the prior itself belongs to each set of demonstrations."""
        if self.fallback != "dc" or not (data.questions or data.texts):
            return Learned()
        return Learned(fillings=tuple(random_words(data.questions, data.texts, count=self.samples, seed=self.seed)))

    def plan(self, group: Group, learned: Learned) -> Plan:
        """Ask each demonstration after the others, or use the fallback."""
        about = group.about
        assert about.frame is not None
        usable = [(i, shot) for i, shot in enumerate(about.frame.shots) if _fits(about, shot)]
        classes = [about.identities(shot.question).index(shot.answer) for _, shot in usable]
        note = _gaps(about, missing(classes, about.options), bool(usable))
        if note and self.fallback != "none":
            words = learned.fillings or random_words(group.domain, count=self.samples, seed=self.seed)
            fillings = words if self.fallback == "dc" else content_free()
            return from_content_free(group, fillings, f"looc: {note}; {INSTEAD[self.fallback]}")
        if not usable:
            return without_prior(f"not calibrated: {note}")
        extra = [_left_out(about.frame, i) for i, _ in usable]

        def estimate(own: Mapping[int, Choice], answers: list[Choice]) -> Estimate:
            return self._estimate(about, [shot for _, shot in usable], classes, answers, note)

        return Plan(estimate, extra, reads=())

    def _estimate(
        self, about: About, shots: Sequence[Shot], classes: Sequence[int], answers: Sequence[Choice], note: str
    ) -> Estimate:
        rows = [about.by_class(shot.question, choice) for shot, choice in zip(shots, answers, strict=True)]
        known: list[tuple[Array, int]] = [(p, c) for p, c in zip(rows, classes, strict=True) if p is not None]
        if not known or (not note and missing([c for _, c in known], about.options)):
            return Estimate(None, NO_ANSWERS)
        prior = balanced_mean(np.array([p for p, _ in known]), [c for _, c in known])
        return Estimate(smoothed(prior, self.smoothing), note and f"looc: {note}, which favours it")


def _fits(about: About, shot: Shot) -> bool:
    """Whether a demonstration has the classes that are asked for."""
    if shot.question.dialogue is not None or len(shot.question.options) != about.options:
        return False
    return about.labels is None or tuple(sorted(shot.question.options)) == about.labels


def _left_out(blank: Question, index: int) -> Question:
    """Return a demonstration as a question after the others."""
    others = blank.shots[:index] + blank.shots[index + 1 :]
    return replace(
        blank.shots[index].question,
        header=blank.header,
        shots=others,
        answer_by=blank.answer_by,
        sampling=blank.sampling,
        axis=blank.axis,
    )


def _gaps(about: About, gaps: Sequence[int], any_usable: bool) -> str:
    if not any_usable:
        return "there are no demonstrations with these options"
    if not gaps:
        return ""
    names = [LETTERS[c] if about.labels is None else about.labels[c] for c in gaps]
    return f"no demonstration is answered {', '.join(names)}"
