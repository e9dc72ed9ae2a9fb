"""`moral_self_correction`: an instruction to answer without bias, with or without thinking about it first.

Source: Ganguli et al. 2023, "The Capacity for Moral Self-Correction in Large Language Models" (arXiv 2302.07459).

- instruction: the question with "Please ensure that your answer is unbiased ...".
- chain_of_thought: the same with "Let's think about how to answer ...", the model's reasoning, then the request for the
  single most likely answer, without repeating the question.

In the paper the instruction follows the question (`place=after`, the preset `paper`) and "Let's think ..." begins the
assistant's own turn; models are not asked to continue a turn here, so it ends the user's. The wording of the last
request is ours.

- step_by_step (the preset `cot`): one turn that asks to work out step by step how to answer without bias of the item's
  type, and for the answer on a line of its own, which alone is read, as one of the four prompts of BiasFreeBench does
  (Xu et al. 2025, arXiv 2510.00232; greedy, 128 tokens); its wording is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from evenhand.errors import SettingsError
from evenhand.interfaces import (
    Ability,
    AnswerBy,
    Choice,
    Dialogue,
    Method,
    Model,
    Question,
    Reading,
    Reply,
    Sampling,
    TrainData,
    settings,
)
from evenhand.methods.prompting import _answer_lines as answer_lines
from evenhand.models import Mitigated
from evenhand.prompting.multi_turn import (
    Place,
    choose_instructed,
    instructed,
    placed,
    question_turn,
    read_by,
    thinking,
    write_instructed,
    write_then_choose,
    write_then_write,
)
from evenhand.prompting.prompt_packs import PromptPack, prompt_pack


@settings
class MoralSelfCorrection(Method):
    """Ask the model for an unbiased answer, after it has thought about how to give one."""

    name: ClassVar[str] = "moral_self_correction"
    needs_any: ClassVar[frozenset[Ability]] = frozenset({"choose", "generate"})
    wording_setting: ClassVar[str] = "prompts"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {"place": "after"},
        "cot": {"variant": "step_by_step", "reasoning_tokens": 128},
    }
    preset_sources: ClassVar[dict[str, dict[str, str]]] = {
        "paper": {"": "arXiv 2302.07459"},
        "cot": {"": "arXiv 2510.00232; wording ours"},
    }

    variant: Literal["instruction", "chain_of_thought", "step_by_step"] = "chain_of_thought"
    """How the model is asked. instruction: it only gets the instruction. chain_of_thought: it thinks in a turn of its
    own first. step_by_step: it thinks and answers in one turn."""
    axis: str = "auto"
    """Type of bias that `step_by_step` names: auto (the axis of an item, if its benchmark gives one), any (all at
    once), or a word such as gender."""
    place: Place = "before"
    """Where the instruction goes: before or after (as in the paper) the question in the user's turn, or system."""
    answer_by: AnswerBy | None = None
    """How the answer to a multiple-choice question is read; None leaves it to the model."""
    temperature: Annotated[float, Field(ge=0)] = 0.0
    """Sampling temperature of the reasoning, and of an answer generated after it."""
    reasoning_tokens: Annotated[int, Field(gt=0)] = 256
    """Maximum length of the reasoning, in tokens; of reasoning and answer together with `step_by_step`."""
    max_new_tokens: Annotated[int, Field(gt=0)] = 64
    """Maximum length of an answer generated after the reasoning, in tokens: room for a sentence around the letter."""
    seed: int = 0
    """Seed of the sampling; ignored at temperature 0."""
    prompts: str = "en"
    """Language of the texts, or path of a prompt pack."""

    def __post_init__(self) -> None:
        """Refuse settings that contradict one another and prompts that do not exist, before anything is asked."""
        pack = prompt_pack(self.prompts)
        if self.variant == "step_by_step":
            self._refuse_unread()
            self._steps(pack)
        elif self.axis != "auto":
            raise SettingsError(f"axis={self.axis!r}: only variant=step_by_step names an axis; leave one of them out")

    @property
    def seeded(self) -> bool:
        """Whether anything is sampled: only reasoning is, and only above temperature 0."""
        return self.variant != "instruction" and self.temperature > 0

    def reading(self, model: Model) -> Reading:
        """Sample an answer after reasoning with this method's own parameters; an instruction leaves sampling alone."""
        if self.variant == "step_by_step":
            return Reading("generation", self._reasoning)
        own = None if self.variant == "instruction" else self._answering
        return Reading(self.answer_by, own)

    def unsupported_reason(self, model: Model | None, data: TrainData | None = None) -> str:
        """Return a reason against a model that cannot write, unless it only gets the instruction."""
        if model is not None and self.variant != "instruction" and "generate" not in model.abilities:
            return f"moral_self_correction needs generate, which {model.name} lacks; set variant=instruction"
        return super().unsupported_reason(model, data)

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        """Wrap the model; thinking takes one extra turn."""
        pack, reading = prompt_pack(self.prompts), self.reading(model)

        def choose(questions: Sequence[Question]) -> list[Choice]:
            ask = {"instruction": self._instruct, "chain_of_thought": self._think, "step_by_step": self._step}
            return ask[self.variant](model, pack, [reading.put(q) for q in questions])

        def generate(dialogues: Sequence[Dialogue], sampling: Sampling) -> list[Reply]:
            if self.variant == "step_by_step":
                return self._step_open(model, pack, dialogues, sampling)
            told = [placed(d, pack.moral.instruction, self.place) for d in dialogues]
            if self.variant == "instruction":
                return write_instructed(model, told, sampling)
            asked = [placed(d, pack.moral.think, "after") for d in told]
            decide = pack.moral.decide_open
            return write_then_write(model, asked, lambda i, d: d.user(decide), self._reasoning, sampling)

        abilities = model.abilities
        return Mitigated(
            model,
            self,
            choose=choose if "choose" in abilities else None,
            generate=generate if "generate" in abilities else None,
            depends_on=[pack.hash],
        )

    @property
    def _reasoning(self) -> Sampling:
        return Sampling(temperature=self.temperature, max_new_tokens=self.reasoning_tokens, seed=self.seed)

    @property
    def _answering(self) -> Sampling:
        return replace(self._reasoning, max_new_tokens=self.max_new_tokens)

    def _instruct(self, model: Model, pack: PromptPack, questions: list[Question]) -> list[Choice]:
        told = pack.moral.instruction
        return choose_instructed(
            model, [instructed(pack.worded(q, read_by(model, q)), told, self.place, model) for q in questions]
        )

    def _think(self, model: Model, pack: PromptPack, questions: list[Question]) -> list[Choice]:
        texts = pack.moral
        asked = [thinking(q, texts.instruction, texts.think, self.place) for q in questions]
        decide = texts.decide
        return write_then_choose(model, questions, asked, lambda i, d: d.user(decide), self._reasoning, self._answering)

    def _refuse_unread(self) -> None:
        """Refuse settings that have no effect if the answer is a line of a written reply.

        Raises:
            SettingsError: `place` or `answer_by` was set.
        """
        if self.place != "before":
            raise SettingsError(f"place={self.place}: variant=step_by_step has no instruction; leave one of them out")
        if self.answer_by not in (None, "generation"):
            raise SettingsError(
                f"answer_by={self.answer_by}: variant=step_by_step reads a line of the reply; leave one of them out"
            )

    def _steps(self, pack: PromptPack, item_axis: str = "") -> str:
        texts = pack.bias_free_texts
        return texts.steps.format(axis=pack.axis(self.axis, item_axis), answer_mark=texts.answer_mark)

    def _step(self, model: Model, pack: PromptPack, questions: list[Question]) -> list[Choice]:
        asked = [replace(q, dialogue=placed(question_turn(q), self._steps(pack, q.axis), "after")) for q in questions]
        mark = pack.bias_free_texts.answer_mark
        return [
            answer_lines.reread(choice, question, mark, self._reasoning)
            for question, choice in zip(asked, choose_instructed(model, asked), strict=True)
        ]

    def _step_open(
        self, model: Model, pack: PromptPack, dialogues: Sequence[Dialogue], sampling: Sampling
    ) -> list[Reply]:
        texts = pack.bias_free_texts
        told = texts.steps_open.format(axis=pack.axis(self.axis), answer_mark=texts.answer_mark)
        replies = write_instructed(model, [placed(d, told, "after") for d in dialogues], sampling)
        return [answer_lines.shortened(reply, texts.answer_mark) for reply in replies]
