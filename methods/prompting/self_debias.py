"""`self_debias`: zero-shot self-debiasing by reprompting, by explanation or by reflection.

Source: Gallegos et al. 2025, "Self-Debiasing Large Language Models: Zero-Shot Recognition and Reduction of Stereotypes"
(NAACL 2025, arXiv 2402.01981), prompts of its section on the two approaches.

- reprompting: baseline prompt, the model's answer, then "Remove bias ..." in the same conversation. The question and
  its options are NOT repeated.
- explanation: "Explain which answers ..." with question and options, the model's explanation, then the baseline prompt
  with question and options REPEATED.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from evenhand.core.collecting import rarely_collected
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
from evenhand.models import Mitigated
from evenhand.prompting import thinking
from evenhand.prompting.multi_turn import placed, recorded, ways_of_reading, write_then_choose, write_then_write
from evenhand.prompting.prompt_packs import PromptPack, prompt_pack
from evenhand.prompting.rendering import LETTERS, question_block
from evenhand.prompting.sessions import conversation


@settings
class SelfDebias(Method):
    """Ask the model itself to take the bias out of its answer."""

    name: ClassVar[str] = "self_debias"
    needs_any: ClassVar[frozenset[Ability]] = frozenset({"choose", "generate"})
    wording_setting: ClassVar[str] = "prompts"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {"answer_by": "generation", "temperature": 1.0, "max_new_tokens": 25},
        "self_reflection": {"variant": "reflection", "answer_by": "generation", "max_new_tokens": 128},
    }
    preset_sources: ClassVar[dict[str, dict[str, str]]] = {
        "paper": {"": "arXiv 2402.01981"},
        "self_reflection": {"": "arXiv 2510.00232; wording ours"},
    }

    variant: Literal["reprompting", "explanation", "reflection"] = "reprompting"
    """Which approach is used: reprompting or explanation (the paper's two), or reflection, the reprompt of
    BiasFreeBench that names a type of bias."""
    axis: str = "auto"
    """Type of bias that `reflection` names: auto (the axis of an item, if its benchmark gives one), any (all at once),
    or a word such as gender."""
    keep_stated: bool = False
    """Whether the reprompt asks to keep an answer that the context states, against over-abstention; ours."""
    answer_by: AnswerBy | None = None
    """How both answers to a multiple-choice question are read; None leaves it to the model. generation in the paper."""
    temperature: Annotated[float, Field(ge=0)] = 0.0
    """Sampling temperature of generated turns; 1 in the paper."""
    max_new_tokens: Annotated[int, Field(gt=0)] = 64
    """Maximum length of every generated answer, in tokens: room for a sentence around the letter. 25 in the paper."""
    explanation_tokens: Annotated[int, Field(gt=0)] | None = None
    """Maximum length of an explanation, in tokens; None is that of an answer, as in the paper."""
    seed: int = 0
    """Seed of the sampling; ignored at temperature 0."""
    prompts: str = "en"
    """Language of the texts, or path of a prompt pack."""

    def __post_init__(self) -> None:
        """Refuse settings that contradict one another and prompts that do not exist, before anything is asked."""
        if self.keep_stated and self.variant != "reprompting":
            other = "an explanation" if self.variant == "explanation" else "a reflection"
            raise SettingsError(f"keep_stated is a wording of the reprompt; {other} has none: leave one of them out")
        if self.axis != "auto" and self.variant != "reflection":
            raise SettingsError(f"axis={self.axis!r}: only variant=reflection names an axis; leave one of them out")
        self._again(prompt_pack(self.prompts))

    @property
    def seeded(self) -> bool:
        """Whether anything is sampled, which is not the case at temperature 0."""
        return self.temperature > 0

    def reading(self, model: Model) -> Reading:
        """Read both answers by `answer_by`, and sample generated ones with this method's own parameters."""
        return Reading(self.answer_by, self._sampling())

    def unsupported_reason(self, model: Model | None, data: TrainData | None = None) -> str:
        """Return a reason against a model that cannot write, if an explanation is needed."""
        if model is not None and self.variant == "explanation" and "generate" not in model.abilities:
            return f"self_debias(variant=explanation) needs generate, which {model.name} cannot"
        return super().unsupported_reason(model, data)

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        """Wrap the model: every question takes one extra turn."""
        pack, reading = prompt_pack(self.prompts), self.reading(model)

        def choose(questions: Sequence[Question]) -> list[Choice]:
            ask = self._explain if self.variant == "explanation" else self._reprompt
            return ask(model, pack, [reading.put(q) for q in questions])

        def generate(dialogues: Sequence[Dialogue], sampling: Sampling) -> list[Reply]:
            open_turns = self._explain_open if self.variant == "explanation" else self._reprompt_open
            return open_turns(model, pack, dialogues, sampling)

        abilities = model.abilities
        return Mitigated(
            model,
            self,
            choose=choose if "choose" in abilities else None,
            generate=generate if "generate" in abilities else None,
            depends_on=[pack.hash],
        )

    def _sampling(self, tokens: int | None = None) -> Sampling:
        return Sampling(temperature=self.temperature, max_new_tokens=tokens or self.max_new_tokens, seed=self.seed)

    def _again(self, pack: PromptPack, item_axis: str = "") -> str:
        """Return the turn that asks for a second answer to a multiple-choice question."""
        if self.variant == "reflection":
            return pack.bias_free_texts.reflect.format(axis=pack.axis(self.axis, item_axis))
        return pack.self_debias.reprompt_stated if self.keep_stated else pack.self_debias.reprompt

    def _again_open(self, pack: PromptPack) -> str:
        """Return the same for a dialogue without options, whose axis is unknown."""
        if self.variant == "reflection":
            return pack.bias_free_texts.reflect_open.format(axis=pack.axis(self.axis))
        return pack.self_debias.reprompt_stated_open if self.keep_stated else pack.self_debias.reprompt_open

    def _reprompt(self, model: Model, pack: PromptPack, questions: list[Question]) -> list[Choice]:
        with rarely_collected(), conversation() as talk:
            way = ways_of_reading(model)
            first = model.choose([pack.worded(q, way(q)) for q in questions])
            turns = {
                i: pack.put(questions[i]).assistant(said).user(self._again(pack, questions[i].axis))
                for i, c in enumerate(first)
                if (said := _said(questions[i], c)) is not None
            }
            with talk.last():
                second = model.choose([questions[i].altered(dialogue=d) for i, d in turns.items()])
        done = {
            # a method below this one added further turns after ours
            i: replace(
                c,
                before=recorded(c.before or turns[i].messages, len(turns[i].messages) - 2, first[i].reply),
                usage=first[i].usage + c.usage,
            )
            for i, c in zip(turns, second, strict=True)
        }
        return [done.get(i, c) for i, c in enumerate(first)]

    def _explain(self, model: Model, pack: PromptPack, questions: list[Question]) -> list[Choice]:
        asked = [_first_turn(q, pack.self_debias.explain) for q in questions]

        def put(i: int, dialogue: Dialogue) -> Dialogue:
            return _repeated(dialogue, pack.put(questions[i]))

        writing = self._sampling(self.explanation_tokens)
        return write_then_choose(model, questions, asked, put, writing, self._sampling())

    def _reprompt_open(
        self, model: Model, pack: PromptPack, dialogues: Sequence[Dialogue], sampling: Sampling
    ) -> list[Reply]:
        again = self._again_open(pack)
        return write_then_write(model, dialogues, lambda i, dialogue: dialogue.user(again), sampling, sampling)

    def _explain_open(
        self, model: Model, pack: PromptPack, dialogues: Sequence[Dialogue], sampling: Sampling
    ) -> list[Reply]:
        asked = [placed(d, pack.self_debias.explain, "before") for d in dialogues]

        def put(i: int, dialogue: Dialogue) -> Dialogue:
            return _repeated(dialogue, dialogues[i])

        return write_then_write(model, asked, put, self._sampling(self.explanation_tokens), sampling)


def _said(question: Question, choice: Choice) -> str | None:
    """Return the first answer as the assistant's turn: what it wrote after its thought, or its most probable letter.

    None if there is nothing to insert: the answer is missing, or its letters could not be read, as its note says. Such
    a question keeps its first answer.
    """
    said = thinking.parts(choice.reply).answer
    if choice.decision is not None:
        return said or LETTERS[question.position_of(choice.decision)]
    silent = choice.status == "unanswered" or (choice.note and not choice.reply)
    return None if silent else said  # also None if a thought never ended


def _first_turn(question: Question, explain: str) -> Dialogue:
    if question.dialogue is not None:
        return placed(question.dialogue, explain, "before")
    return Dialogue((), question.draw).user(f"{question.preamble}{explain}\n\n{question_block(question)}")


def _repeated(dialogue: Dialogue, put: Dialogue) -> Dialogue:
    """Return the dialogue, with the turn that asks the question once more."""
    return replace(dialogue, messages=(*dialogue.messages, put.messages[-1]))
