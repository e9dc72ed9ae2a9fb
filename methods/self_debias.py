"""`self_debias`: zero-shot self-debiasing by reprompting or by explanation.

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

from evenhand.data.prompt_packs import prompt_pack
from evenhand.interfaces import (
    Ability,
    AnswerBy,
    Choice,
    Dialogue,
    Method,
    Model,
    Question,
    Reply,
    Sampling,
    TrainData,
    settings,
)
from evenhand.models import Mitigated
from evenhand.prompts import LETTERS, as_dialogue, question_block

_TEXTS = prompt_pack("en").self_debias
EXPLAIN, REPROMPT, REPROMPT_OPEN = _TEXTS.explain, _TEXTS.reprompt, _TEXTS.reprompt_open


@settings
class SelfDebias(Method):
    """Ask the model itself to take the bias out of its answer."""

    name: ClassVar[str] = "self_debias"
    needs_any: ClassVar[frozenset[Ability]] = frozenset({"choose", "generate"})
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {"answer_by": "generation", "temperature": 1.0, "max_new_tokens": 25},
    }

    variant: Literal["reprompting", "explanation"] = "reprompting"
    """Which of the paper's two approaches."""
    answer_by: AnswerBy | None = None
    """How both answers of a multiple-choice question are read; None leaves it to the model. The paper: generation."""
    temperature: Annotated[float, Field(ge=0)] = 0.0
    """Of generated turns. The paper: 1."""
    max_new_tokens: Annotated[int, Field(gt=0)] = 25
    """Limit of every generated turn, explanations included. The paper: 25."""
    seed: int = 0
    """Of the sampling, where the temperature is above 0."""

    def missing(self, model: Model) -> str:
        """An explanation has to be written; a reprompt needs only a second answer."""
        if self.variant == "explanation" and "generate" not in model.abilities:
            return f"self_debias(variant=explanation) needs generate, which {model.name} cannot"
        return Method.missing(self, model)

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        """Wrap the model: every question takes one extra turn."""

        def choose(questions: Sequence[Question]) -> list[Choice]:
            ask = self._reprompt if self.variant == "reprompting" else self._explain
            return ask(model, [replace(q, answer_by=self.answer_by or q.answer_by) for q in questions])

        def generate(dialogues: Sequence[Dialogue], sampling: Sampling) -> list[Reply]:
            open_turns = self._reprompt_open if self.variant == "reprompting" else self._explain_open
            return open_turns(model, dialogues, sampling)

        abilities = model.abilities
        return Mitigated(
            model,
            self,
            choose=choose if "choose" in abilities else None,
            generate=generate if "generate" in abilities else None,
        )

    @property
    def _sampling(self) -> Sampling:
        return Sampling(temperature=self.temperature, max_new_tokens=self.max_new_tokens, seed=self.seed)

    def _reprompt(self, model: Model, questions: list[Question]) -> list[Choice]:
        questions = [replace(q, sampling=q.sampling or self._sampling) for q in questions]
        first = model.choose(questions)
        answered = [i for i, c in enumerate(first) if c.status != "unanswered"]
        turns = {
            i: as_dialogue(questions[i], "letters").assistant(_said(questions[i], first[i])).user(REPROMPT)
            for i in answered
        }
        second = model.choose([replace(questions[i], dialogue=turns[i]) for i in answered])
        done = {i: _with_history(c, turns[i], first[i]) for i, c in zip(answered, second, strict=True)}
        return [done.get(i, c) for i, c in enumerate(first)]

    def _explain(self, model: Model, questions: list[Question]) -> list[Choice]:
        asked = [_first_turn(q) for q in questions]
        explained = model.generate(asked, self._sampling)
        turns = {
            i: _then(asked[i].assistant(r.text), Dialogue(as_dialogue(questions[i], "letters").messages[-1:]))
            for i, r in enumerate(explained)
            if r.text is not None
        }
        sampling = self._sampling
        second = model.choose(
            [replace(questions[i], dialogue=d, sampling=questions[i].sampling or sampling) for i, d in turns.items()]
        )
        done = {
            i: replace(c, before=c.before or d.messages, usage=c.usage + explained[i].usage)
            for (i, d), c in zip(turns.items(), second, strict=True)
        }
        return [
            done.get(i) or Choice(None, status="unanswered", note=r.note, usage=r.usage)
            for i, r in enumerate(explained)
        ]

    def _reprompt_open(self, model: Model, dialogues: Sequence[Dialogue], sampling: Sampling) -> list[Reply]:
        first = model.generate(dialogues, sampling)
        said = {
            i: d.assistant(r.text) for i, (d, r) in enumerate(zip(dialogues, first, strict=True)) if r.text is not None
        }
        second = model.generate([d.user(REPROMPT_OPEN) for d in said.values()], sampling)
        done = {i: replace(r, usage=first[i].usage + r.usage) for i, r in zip(said, second, strict=True)}
        return [done.get(i, r) for i, r in enumerate(first)]

    def _explain_open(self, model: Model, dialogues: Sequence[Dialogue], sampling: Sampling) -> list[Reply]:
        asked = [_explain_last(d) for d in dialogues]
        first = model.generate(asked, self._sampling)
        turns = {
            i: _then(asked[i].assistant(r.text), Dialogue(dialogues[i].messages[-1:]))
            for i, r in enumerate(first)
            if r.text is not None
        }
        second = model.generate(list(turns.values()), sampling)
        done = {i: replace(r, usage=first[i].usage + r.usage) for i, r in zip(turns, second, strict=True)}
        return [done.get(i, r) for i, r in enumerate(first)]


def _said(question: Question, choice: Choice) -> str:
    """The first answer as the assistant's turn: what it wrote, or the letter that it gave the highest probability."""
    if choice.reply or choice.decision is None:
        return choice.reply
    return LETTERS[question.order.index(choice.decision)]


def _first_turn(question: Question) -> Dialogue:
    if question.dialogue is not None:
        return _explain_last(question.dialogue)
    return Dialogue((), question.draw).user(f"{question.header}{EXPLAIN}\n\n{question_block(question)}")


def _explain_last(dialogue: Dialogue) -> Dialogue:
    """Put the request in front of the last user turn."""
    last = dialogue.messages[-1]
    return replace(dialogue, messages=dialogue.messages[:-1]).user(f"{EXPLAIN}\n\n{last.content}")


def _then(dialogue: Dialogue, more: Dialogue) -> Dialogue:
    return replace(dialogue, messages=dialogue.messages + more.messages)


def _with_history(choice: Choice, turns: Dialogue, first: Choice) -> Choice:
    # a method below this one held further turns after ours
    return replace(choice, before=choice.before or turns.messages, usage=first.usage + choice.usage)
