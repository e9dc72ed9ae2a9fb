"""`none`: the baseline, with which every method is compared; optionally its answers are read in another way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar

from pydantic import Field

from evenhand.interfaces import OPEN, AnswerBy, Choice, Method, Model, Question, Reading, Sampling, TrainData, settings
from evenhand.models import Mitigated
from evenhand.models.readings import SAMPLING_FIELDS, own_reading


@settings
class Untouched(Method):
    """Leaves the model as it is. Its settings only say how answers to multiple-choice questions are read."""

    name: ClassVar[str] = "none"

    answer_by: AnswerBy | None = None
    """How answers are read: letters, text, text_per_token, text_with_end or generation; None leaves it to the question
    and the model."""
    temperature: Annotated[float, Field(ge=0)] | None = None
    """Temperature of generated answers; None, here and below, takes the model's own value."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the probability mass that answers are sampled from."""
    max_new_tokens: Annotated[int, Field(gt=0)] | None = None
    """Maximum length of a generated answer, in tokens."""
    seed: int | None = None
    """Seed of the sampling; ignored at temperature 0."""
    stop: tuple[str, ...] | None = None
    """Strings that end a generated answer."""

    @property
    def seeded(self) -> bool:
        """Whether anything is sampled, which is not the case at temperature 0."""
        return bool(self.temperature)

    def reading(self, model: Model) -> Reading | None:
        """Return how the settings read answers; sampling parameters that they leave out are the model's own."""
        wanted = {name: self.settings[name] for name in SAMPLING_FIELDS} | {"stop": self.stop}  # a tuple, not a list
        given: dict[str, Any] = {name: value for name, value in wanted.items() if value is not None}
        sampling = replace(own_reading(model).sampling or Sampling(), **given) if given else None
        found = Reading(self.answer_by, sampling)
        return None if found == OPEN else found

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        """Return the model itself, or with settings the model with its answers read accordingly."""
        reading = self.reading(model)
        if reading is None:
            return model

        def choose(questions: Sequence[Question]) -> list[Choice]:
            return model.choose([reading.put(q) for q in questions])

        return Mitigated(model, self, choose=choose if "choose" in model.abilities else None)
