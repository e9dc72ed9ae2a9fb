"""`intent_self_correction`: think, answer, be criticised on several aspects with scores, and answer again.

Source: Anantaprayoon et al. 2025, "Intent-Aware Self-Correction for Mitigating Social Biases in Large Language Models"
(arXiv 2503.06011). No code is published; its prompts were not read, so aspects, scale and all texts are ours.

1. response: the question with a debiasing instruction and the request to think first; the reasoning; the answer.
2. feedback: per aspect a critic, which is the model itself or another one, rates the answer from 0 to 4 with a reason.
3. Where every score is at most `threshold`, the answer stands (early stop). Else the feedback is shown in the answering
   conversation and the question is answered again; then from 2 on, at most `rounds` times.

A critique from which no score can be read, or that never came, is no evidence: it is left out of the feedback and of
the decision to stop, and stands in the answer's note. The answer stands where no score is left.

The record (`before`) is the answering conversation, as it was really asked. Critiques are held in conversations of
their own; each stands in the record behind the answer that it is about, as a system's turn that begins with
"[critique ...". The answering model never sees these turns, only the feedback made of them. A method below this one
may change what is asked (an instruction goes into the last turn, wherever that is): where a turn was then asked for in
a dialogue that does not go on from the one before it, the record says so and has that dialogue in full.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Annotated, Any, ClassVar, NamedTuple

from pydantic import Field

from evenhand.errors import MissingAbilityError, UnknownNameError
from evenhand.interfaces import (
    Ability,
    AnswerBy,
    Choice,
    Dialogue,
    Message,
    Method,
    Model,
    Question,
    Reading,
    Reply,
    Sampling,
    TrainData,
    Usage,
    settings,
)
from evenhand.methods.prompting._records import ANEW as ANEW
from evenhand.methods.prompting._records import UNSEEN as UNSEEN
from evenhand.models import Mitigated, load
from evenhand.prompting.multi_turn import Place, placed, thinking, write
from evenhand.prompting.prompt_packs import PromptPack, prompt_pack
from evenhand.prompting.rendering import LETTERS, question_block
from evenhand.prompting.sessions import conversation
from evenhand.prompting.thinking import answer, parts

_SCORE = re.compile(r"\W*+(?:[^\W\d_]++(?=[^\w:=]*+[:=])\W*+)?([0-4])(?!\d|[.,]\d|\s*[-–]\s*\d)(?:\s*/\s*4\b)?")
"""The digit that a critique begins with, after a label such as "Score:" at most; not of a longer number or a range."""


@settings
class IntentSelfCorrection(Method):
    """Let a critic score the answer on several aspects, and answer again with the feedback until the scores are low."""

    name: ClassVar[str] = "intent_self_correction"
    needs: ClassVar[frozenset[Ability]] = frozenset({"generate"})
    wording_setting: ClassVar[str] = "prompts"

    critic: str | None = None
    """Who criticises: any model that `evenhand.load` takes; None is the model itself."""
    aspects: tuple[str, ...] = ()
    """Which aspects of the prompt pack are scored; empty takes all."""
    threshold: Annotated[int, Field(ge=0, le=4)] = 1
    """The answer stands where every score is at most this; scores go from 0 (no fault) to 4."""
    rounds: Annotated[int, Field(gt=0)] = 2
    """How often the question is answered again, at most."""
    place: Place = "before"
    """Where the debiasing instruction stands: before or after the question in the user's turn, or system."""
    answer_by: AnswerBy | None = None
    """How answers to a multiple-choice question are read; None leaves it to the model."""
    temperature: Annotated[float, Field(ge=0)] = 0.0
    """Of reasoning, critiques and generated answers."""
    reasoning_tokens: Annotated[int, Field(gt=0)] = 256
    """Limit of the reasoning."""
    critique_tokens: Annotated[int, Field(gt=0)] = 64
    """Limit of a critique."""
    max_new_tokens: Annotated[int, Field(gt=0)] = 64
    """Limit of a generated answer to a multiple-choice question."""
    seed: int = 0
    """Of the sampling, where the temperature is above 0."""
    prompts: str = "en"
    """Language of the texts, or a prompt pack's path."""

    def __post_init__(self) -> None:
        """Refuse aspects that the pack lacks, before anything is asked."""
        known = prompt_pack(self.prompts).intent.aspects
        for aspect in self.aspects:
            if aspect not in known:
                raise UnknownNameError("aspect", aspect, known)

    @property
    def seeded(self) -> bool:
        """At temperature 0 nothing is drawn."""
        return self.temperature > 0

    def reading(self, model: Model) -> Reading:
        """Answers are read by `answer_by`, and drawn by this method's own sampling where they are generated."""
        return Reading(self.answer_by, self._sampling(self.max_new_tokens))

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        """Wrap the model; the critic is loaded now.

        Raises:
            MissingAbilityError: The critic cannot write.
        """
        pack, critic, reading = prompt_pack(self.prompts), self._critic or model, self.reading(model)
        if "generate" not in critic.abilities:
            raise MissingAbilityError(f"{self.name}: the critic {critic.name} cannot generate; take another one")

        def choose(questions: Sequence[Question]) -> list[Choice]:
            talks = self._puzzled(pack, [reading.put(q) for q in questions])
            self._hold(model, critic, pack, talks, _choosing(model, pack))
            return [_chosen(t) for t in talks]

        def generate(dialogues: Sequence[Dialogue], sampling: Sampling) -> list[Reply]:
            told = [placed(d, pack.moral.instruction, self.place) for d in dialogues]
            asked = [placed(d, pack.moral.think, "after") for d in told]
            talks = [_Talk(a, d.messages[-1].content) for a, d in zip(asked, dialogues, strict=True)]
            self._hold(model, critic, pack, talks, _writing(model, pack, sampling))
            return [_written(t) for t in talks]

        return Mitigated(
            model,
            self,
            choose=choose if "choose" in model.abilities else None,
            generate=generate,
            depends_on=[pack.hash, *([critic.fingerprint] if self._critic else [])],
        )

    @cached_property
    def _critic(self) -> Model | None:
        """Loaded once for this object, however often it is applied."""
        return load(self.critic) if self.critic else None

    def _sampling(self, tokens: int) -> Sampling:
        return Sampling(temperature=self.temperature, max_new_tokens=tokens, seed=self.seed)

    def _puzzled(self, pack: PromptPack, questions: Sequence[Question]) -> list[_Talk]:
        """The questions, to be thought about."""
        texts = pack.moral
        return [_Talk(thinking(q, texts.instruction, texts.think, self.place), _shown(q), q) for q in questions]

    def _hold(self, model: Model, critic: Model, pack: PromptPack, talks: Sequence[_Talk], way: _Way) -> None:
        """All conversations to their end, every turn of all as one batch."""
        with conversation():
            written, replies = write(model, [t.dialogue for t in talks], self._sampling(self.reasoning_tokens))
            for talk, reply in zip(talks, replies, strict=True):
                talk.think(reply, way.decide)
            going = [talks[i] for i in written]
            way.answer(going)
            for number in range(1, self.rounds + 1):
                self._criticise(critic, pack, [t for t in going if t.said is not None], number)
                going = [t for t in going if t.faults]
                if not going:
                    return
                for talk in going:
                    talk.refine(pack.intent.feedback, way.refine)
                way.answer(going)

    def _criticise(self, critic: Model, pack: PromptPack, talks: Sequence[_Talk], number: int) -> None:
        """Have every answer rated on every aspect, all in one batch."""
        texts = pack.intent
        aspects = {k: text for k, text in texts.aspects.items() if not self.aspects or k in self.aspects}
        asked = [
            Dialogue((Message("user", t.put(texts.critique, aspect)),), t.dialogue.draw)
            for t in talks
            for aspect in aspects.values()
        ]
        replies = iter(critic.generate(asked, self._sampling(self.critique_tokens)) if asked else [])
        for talk in talks:
            talk.hear({k: next(replies) for k in aspects}, aspects, number, critic.name)
            worst = max((c.score for c in talk.critiques), default=0)
            talk.faults = worst > self.threshold


class Critique(NamedTuple):
    """What a critic wrote on one aspect."""

    score: int
    """0 (no fault) to 4."""
    reason: str
    aspect: str = ""


def read_critique(text: str) -> Critique | None:
    """The score that a critique begins with and its reason, on one line; None where no score can be read."""
    text = answer(text)
    found = _SCORE.match(text)
    if found is None:
        return None
    reason = " ".join(text[found.end() :].split())
    return Critique(int(found[1]), reason.lstrip(".,:;)*-–— "))


@dataclass
class _Talk:
    """One item under way."""

    dialogue: Dialogue
    """The answering conversation, up to where the model's next turn comes."""
    asked: str
    """The question as the critic is shown it."""
    question: Question | None = None
    reasoning: str = ""
    given: Any = None
    """The latest answer: a `Choice` or `Reply`."""
    said: str | None = None
    """It as the assistant's turn; None where it never came."""
    meant: str = ""
    """It as the critic is shown it."""
    critiques: list[Critique] = field(default_factory=list)
    """Of the latest answer, those that could be read."""
    faults: bool = False
    """Whether they ask for another answer."""
    record: list[Message] = field(default_factory=list)
    held: list[Message] = field(default_factory=list)
    """The dialogue that was asked last, as a method below may have put it, with the answer to it."""
    usage: Usage = field(default_factory=Usage)
    notes: list[str] = field(default_factory=list)

    def think(self, reply: Reply, decide: str) -> None:
        self.usage += reply.usage
        if reply.text is None:
            self.notes.append(reply.note)
            self.record += reply.before
            return
        self.reasoning = answer(reply.text)
        self._asked(reply.before)
        self._answered(reply.text, self.reasoning)
        self.dialogue = self.dialogue.assistant(self.reasoning).user(decide)

    def take(self, given: Choice | Reply, said: str | None, meant: str) -> None:
        """An answer came, or did not."""
        self.given, self.said, self.meant, self.faults = given, said, meant, False
        self.usage += given.usage
        self._asked(given.before)

    def _asked(self, before: Sequence[Message]) -> None:
        """Record the dialogue in which a turn was asked for: what it adds to the last one, or all of it.

        Args:
            before: It as a method below this one put it; empty where there is none.
        """
        now = before or self.dialogue.messages
        added = _added(now, self.held)
        self.record += [Message("system", ANEW), *now] if added is None else added
        self.held = [m for m in now if not _unseen(m)]

    def _answered(self, written: str, shown: str) -> None:
        """Record a turn of the model; a thought that it was written with is not shown again."""
        self.record.append(Message("assistant", written))
        self.held.append(Message("assistant", shown))

    def put(self, critique: str, aspect: str) -> str:
        return critique.format(asked=self.asked, reasoning=self.reasoning, answer=self.meant, aspect=aspect)

    def hear(self, replies: dict[str, Reply], aspects: dict[str, str], number: int, critic: str) -> None:
        """Keep the critiques of the latest answer."""
        self.critiques = []
        written = self.given.text if isinstance(self.given, Reply) else self.given.reply
        self._answered(written or self.said or "", self.said or "")
        for name, reply in replies.items():
            self.usage += reply.usage
            mark = f"[critique {number}, {name}, by {critic}{UNSEEN}"
            self.record.append(Message("system", f"{mark} {reply.note if reply.text is None else reply.text}"))
            found = read_critique(reply.text or "")
            if found is None:
                self.notes.append(f"critique {number} has no score for {name}")
            else:
                self.critiques.append(found._replace(aspect=aspects[name]))

    def refine(self, line: str, refine: str) -> None:
        """Show the feedback in the answering conversation."""
        feedback = "\n".join(line.format(**c._asdict()).rstrip() for c in self.critiques)
        self.dialogue = self.dialogue.assistant(self.said or "").user(refine.format(feedback=feedback))


def _unseen(message: Message) -> bool:
    """Whether a turn of a record was never asked."""
    return message.role == "system" and UNSEEN in message.content


def _added(now: Sequence[Message], held: Sequence[Message]) -> Sequence[Message] | None:
    """What a dialogue adds to the one before it; None where it does not go on from that."""
    left = list(held)
    for i, message in enumerate(now):
        if not left:
            return now[i:]
        if not _unseen(message) and message != left.pop(0):
            return None
    return None if left else ()


class _Way(NamedTuple):
    """How answers come: chosen or written."""

    answer: Callable[[Sequence[_Talk]], None]
    """Ask for the next answer in each conversation, all at once."""
    decide: str
    refine: str


def _choosing(model: Model, pack: PromptPack) -> _Way:
    def ask(talks: Sequence[_Talk]) -> None:
        asked = [replace(t.question, dialogue=t.dialogue) for t in talks if t.question]
        for talk, question, choice in zip(talks, asked, model.choose(asked) if asked else [], strict=True):
            said = parts(choice.reply).answer
            unread = choice.decision is None and choice.note and not choice.reply
            if choice.status == "unanswered" or unread or said is None:
                talk.take(choice, None, "")  # nothing was said: its note says why the letters could not be read
            elif choice.decision is None:
                talk.take(choice, said, said)
            else:
                letter = LETTERS[question.position_of(choice.decision)]
                talk.take(choice, said or letter, question.options[choice.decision])

    return _Way(ask, pack.moral.decide, pack.intent.refine)


def _writing(model: Model, pack: PromptPack, sampling: Sampling) -> _Way:
    def ask(talks: Sequence[_Talk]) -> None:
        replies = model.generate([t.dialogue for t in talks], sampling) if talks else []
        for talk, reply in zip(talks, replies, strict=True):
            said = None if reply.text is None else parts(reply.text).answer
            talk.take(reply, said, said or "")

    return _Way(ask, pack.moral.decide_open, pack.intent.refine_open)


def _chosen(talk: _Talk) -> Choice:
    given = talk.given or Choice(None, status="unanswered")
    note = "; ".join(n for n in [*talk.notes, given.note] if n)
    return replace(given, before=tuple(talk.record), usage=talk.usage, note=note)


def _written(talk: _Talk) -> Reply:
    given = talk.given or Reply(None, finished=False)
    note = "; ".join(n for n in [*talk.notes, given.note] if n)
    return replace(given, before=tuple(talk.record), usage=talk.usage, note=note)


def _shown(question: Question) -> str:
    """A question as the critic sees it; a ready prompt where there is no other text."""
    if question.dialogue is not None and not (question.context or question.question):
        return question.dialogue.messages[-1].content
    return question_block(question)
