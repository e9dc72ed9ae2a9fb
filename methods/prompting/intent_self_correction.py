"""`intent_self_correction`: think, answer, get scored feedback on several aspects, and answer again.

Source: Anantaprayoon et al. 2025, "Intent-Aware Self-Correction for Mitigating Social Biases in Large Language Models"
(arXiv 2503.06011). No code is published; its prompts were not read, so aspects, scale and all texts are ours.

1. response: the question with a debiasing instruction and the request to think first; the reasoning; the answer.
2. feedback: for each aspect a critic, the model itself or another one, rates the answer from 0 to 4 with a reason.
3. If every score is at most `threshold`, the answer stands (early stop). Otherwise the model is shown the feedback
   in the answering conversation and answers again; steps 2 and 3 are repeated, at most `rounds` times.

A critique that is missing or has no readable score is not evidence: it is left out of the feedback and of
the decision to stop, and mentioned in the answer's note. The answer stands if no score is left.

The record (`before`) is the answering conversation as it was actually asked. Critiques have conversations of
their own; in the record, each follows the answer that it is about, as a system turn that begins with
"[critique ...". The answering model never sees these turns, only the feedback made of them. A method below this one
may change what is asked (an instruction goes into the last turn, wherever that is): if a turn was then asked for in
a dialogue that does not continue the previous one, the record notes it and contains that dialogue in full.
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
"""Matches the digit that a critique begins with, after at most a label such as "Score:"; not part of a longer number or
a range."""


@settings
class IntentSelfCorrection(Method):
    """Let a critic score the answer on several aspects, and answer again with the feedback until the scores are low."""

    name: ClassVar[str] = "intent_self_correction"
    needs: ClassVar[frozenset[Ability]] = frozenset({"generate"})
    wording_setting: ClassVar[str] = "prompts"

    critic: str | None = None
    """Model that criticises, as `evenhand.load` names it; None is the model itself."""
    aspects: tuple[str, ...] = ()
    """Aspects of the prompt pack that are scored; empty takes all."""
    threshold: Annotated[int, Field(ge=0, le=4)] = 1
    """The answer stands if every score is at most this; scores range from 0 (no fault) to 4."""
    rounds: Annotated[int, Field(gt=0)] = 2
    """Maximum number of times that the question is answered again."""
    place: Place = "before"
    """Where the debiasing instruction goes: before or after the question in the user's turn, or system."""
    answer_by: AnswerBy | None = None
    """How answers to a multiple-choice question are read; None leaves it to the model."""
    temperature: Annotated[float, Field(ge=0)] = 0.0
    """Sampling temperature of reasoning, critiques and generated answers."""
    reasoning_tokens: Annotated[int, Field(gt=0)] = 256
    """Maximum length of the reasoning, in tokens."""
    critique_tokens: Annotated[int, Field(gt=0)] = 64
    """Maximum length of a critique, in tokens."""
    max_new_tokens: Annotated[int, Field(gt=0)] = 64
    """Maximum length of a generated answer to a multiple-choice question, in tokens."""
    seed: int = 0
    """Seed of the sampling; ignored at temperature 0."""
    prompts: str = "en"
    """Language of the texts, or path of a prompt pack."""

    def __post_init__(self) -> None:
        """Refuse aspects that the pack lacks, before anything is asked."""
        known = prompt_pack(self.prompts).intent.aspects
        for aspect in self.aspects:
            if aspect not in known:
                raise UnknownNameError("aspect", aspect, known)

    @property
    def seeded(self) -> bool:
        """Whether anything is sampled, which is not the case at temperature 0."""
        return self.temperature > 0

    def reading(self, model: Model) -> Reading:
        """Read answers by `answer_by`, and sample generated ones with this method's own parameters."""
        return Reading(self.answer_by, self._sampling(self.max_new_tokens))

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        """Wrap the model; the critic is loaded now.

        Raises:
            MissingAbilityError: The critic cannot write.
        """
        pack, critic, reading = prompt_pack(self.prompts), self._critic or model, self.reading(model)
        if "generate" not in critic.abilities:
            raise MissingAbilityError(f"{self.name}: the critic {critic.name} cannot generate; set another critic")

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
        """Load the critic once for this object, however often it is applied."""
        return load(self.critic) if self.critic else None

    def _sampling(self, tokens: int) -> Sampling:
        return Sampling(temperature=self.temperature, max_new_tokens=tokens, seed=self.seed)

    def _puzzled(self, pack: PromptPack, questions: Sequence[Question]) -> list[_Talk]:
        """Return the questions with the request to think about them."""
        texts = pack.moral
        return [_Talk(thinking(q, texts.instruction, texts.think, self.place), _shown(q), q) for q in questions]

    def _hold(self, model: Model, critic: Model, pack: PromptPack, talks: Sequence[_Talk], way: _Way) -> None:
        """Complete all conversations, every turn of all as one batch."""
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
    """A critic's rating on one aspect."""

    score: int
    """Score from 0 (no fault) to 4."""
    reason: str
    aspect: str = ""


def read_critique(text: str) -> Critique | None:
    """Return the score that a critique begins with and its reason, on one line; None without a readable score."""
    text = answer(text)
    found = _SCORE.match(text)
    if found is None:
        return None
    reason = " ".join(text[found.end() :].split())
    return Critique(int(found[1]), reason.lstrip(".,:;)*-–— "))


@dataclass
class _Talk:
    """The conversation about one item."""

    dialogue: Dialogue
    """The answering conversation, up to the model's next turn."""
    asked: str
    """The question as shown to the critic."""
    question: Question | None = None
    reasoning: str = ""
    given: Any = None
    """The latest answer: a `Choice` or `Reply`."""
    said: str | None = None
    """The answer as the assistant's turn; None if it is missing."""
    meant: str = ""
    """The answer as shown to the critic."""
    critiques: list[Critique] = field(default_factory=list)
    """Readable critiques of the latest answer."""
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
    """Return what a dialogue adds to the one before it; None if it does not continue that."""
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
