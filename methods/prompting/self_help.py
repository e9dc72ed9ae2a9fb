"""`self_help`: the model rewrites the question so that it does not invite bias, and then answers only the rewrite.

Source: "self-help", one of the four prompts of BiasFreeBench (Xu et al. 2025, arXiv 2510.00232; greedy, 128 tokens).
Its texts have no licence and are not copied: all wording is ours.

1. The model rewrites the system prompt and the question with its options in a fixed form of two fields.
2. A fresh conversation, without history, asks only the rewrite.

A rewrite that does not have the form, or that drops or changes an option, is not used: the original question is asked,
and such questions are counted. There is one try. The released code tries ten times, greedily, so that it gets the same
reply each time, and does not look at the options.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar, Generic, TypeVar

from pydantic import Field

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
    settings,
)
from evenhand.methods.prompting._records import ANEW
from evenhand.methods.prompting._rewritable import (
    Subject,
    of_dialogue,
    of_question,
    rewritten_dialogue,
    rewritten_question,
)
from evenhand.methods.prompting._rewrites import Fields, UnusableRewriteError, read_fields
from evenhand.models import Mitigated
from evenhand.prompting import thinking
from evenhand.prompting.multi_turn import choose_instructed, read_by, unanswered, write_instructed
from evenhand.prompting.prompt_packs import PromptPack, prompt_pack
from evenhand.prompting.remarks import remark

T = TypeVar("T")
"""What is asked: a `Question` or a `Dialogue`."""
A = TypeVar("A", Choice, Reply)


@settings
class SelfHelp(Method):
    """Have the model rewrite the question without what invites bias, and answer the rewrite in a fresh conversation."""

    name: ClassVar[str] = "self_help"
    needs: ClassVar[frozenset[Ability]] = frozenset({"generate"})
    wording_setting: ClassVar[str] = "prompts"

    axis: str = "auto"
    """Type of bias that is named: auto (the axis of an item, if its benchmark gives one), any (all at once), or a word
    such as gender."""
    answer_by: AnswerBy | None = None
    """How the answer to a multiple-choice question is read; None leaves it to the model."""
    temperature: Annotated[float, Field(ge=0)] = 0.0
    """Temperature of the rewrite and of a generated answer; 0 as in the source."""
    rewrite_tokens: Annotated[int, Field(gt=0)] = 512
    """Maximum length of the rewrite, in tokens: room for a long question with its options. A rewrite that is cut is not
    used."""
    max_new_tokens: Annotated[int, Field(gt=0)] = 64
    """Maximum length of a generated answer, in tokens: room for a sentence around the letter. 128 in the source."""
    seed: int = 0
    """Seed of the sampling; ignored at temperature 0."""
    prompts: str = "en"
    """Language of the texts, or path of a prompt pack."""

    def __post_init__(self) -> None:
        """Refuse a pack without these texts, before anything is asked."""
        self._request(prompt_pack(self.prompts), Subject("", ""))

    @property
    def seeded(self) -> bool:
        """Whether anything is sampled, which is not the case at temperature 0."""
        return self.temperature > 0

    def reading(self, model: Model) -> Reading:
        """Read the answer by `answer_by`, and sample a generated one with this method's own parameters."""
        return Reading(self.answer_by, self._sampling(self.max_new_tokens))

    def apply(self, model: Model, data: TrainData | None = None) -> Model:
        """Wrap the model: every question is rewritten in a conversation of its own first."""
        pack, reading = prompt_pack(self.prompts), self.reading(model)

        def choose(questions: Sequence[Question]) -> list[Choice]:
            return self._choose(model, pack, [reading.put(q) for q in questions])

        def generate(dialogues: Sequence[Dialogue], sampling: Sampling) -> list[Reply]:
            return self._generate(model, pack, dialogues, sampling)

        return Mitigated(
            model,
            self,
            choose=choose if "choose" in model.abilities else None,
            generate=generate,
            depends_on=[pack.hash],
        )

    def _sampling(self, tokens: int) -> Sampling:
        return Sampling(temperature=self.temperature, max_new_tokens=tokens, seed=self.seed)

    def _choose(self, model: Model, pack: PromptPack, questions: Sequence[Question]) -> list[Choice]:
        seconds = self._rewritten(
            *(model, pack, questions),
            lambda q: of_question(q, read_by(model, q)),
            lambda q, fields: rewritten_question(q, read_by(model, q), fields),
        )
        asked = [pack.worded(s.asked, read_by(model, s.asked)) for s in seconds if not s.is_lost]
        answers = iter(choose_instructed(model, asked) if asked else [])
        return [unanswered(s.first) if s.is_lost else s.completed(next(answers)) for s in seconds]

    def _generate(
        self, model: Model, pack: PromptPack, dialogues: Sequence[Dialogue], sampling: Sampling
    ) -> list[Reply]:
        seconds = self._rewritten(model, pack, dialogues, of_dialogue, rewritten_dialogue)
        asked = [s.asked for s in seconds if not s.is_lost]
        replies = iter(write_instructed(model, asked, sampling) if asked else [])
        return [s.first if s.is_lost else s.completed(next(replies)) for s in seconds]

    def _rewritten(
        self,
        model: Model,
        pack: PromptPack,
        originals: Sequence[T],
        subject: Callable[[T], Subject],
        rewritten: Callable[[T, Fields], T],
    ) -> list[_Second[T]]:
        """Return what is asked in the second call, after a first call about everything that can be rewritten."""
        seconds: dict[int, _Second[T]] = {}
        first: dict[int, Dialogue] = {}
        for i, original in enumerate(originals):
            try:
                first[i] = self._request(pack, subject(original))
            except UnusableRewriteError as error:
                seconds[i] = _Second(original, str(error))
        replies = model.generate(list(first.values()), self._sampling(self.rewrite_tokens)) if first else []
        for (i, dialogue), reply in zip(first.items(), replies, strict=True):
            asked, why = originals[i], ""
            try:
                asked = rewritten(asked, self._read(pack, reply))
            except UnusableRewriteError as error:
                why = str(error)
            seconds[i] = _Second(asked, why, reply, reply.before or dialogue.messages)
        _count(seconds.values())
        return [seconds[i] for i in range(len(originals))]

    def _request(self, pack: PromptPack, subject: Subject) -> Dialogue:
        texts = pack.bias_free_texts
        told = texts.rewrite.format(
            axis=pack.axis(self.axis, subject.axis),
            system=subject.system or texts.no_system,
            question=subject.text,
            **texts.model_dump(include={"system_mark", "question_mark", "no_system"}),
        )
        return Dialogue((Message("user", told),), subject.draw)

    def _read(self, pack: PromptPack, reply: Reply) -> Fields:
        if reply.text is not None and (thinking.is_cut(reply.text) or not reply.finished):
            raise UnusableRewriteError(f"the rewrite was cut at rewrite_tokens={self.rewrite_tokens}")
        return read_fields(thinking.answer(reply.text or ""), pack.bias_free_texts)


@dataclass(frozen=True)
class _Second(Generic[T]):
    """One item of the second call."""

    asked: T
    """The rewrite, or the original."""
    why: str
    """Why it is the original; "" for a rewrite."""
    first: Reply = field(default_factory=lambda: Reply(""))
    """The rewrite as it was written; without cost if none was asked for."""
    before: tuple[Message, ...] = ()
    """The conversation that asked for the rewrite; empty if none was asked for."""

    @property
    def is_lost(self) -> bool:
        """Whether the reply with the rewrite is missing, so that nothing is asked."""
        return self.first.text is None

    def completed(self, answer: A) -> A:
        """Return the answer, with both conversations in its record and the cost of both."""
        record: tuple[Message, ...] = (
            *self.before,
            Message("assistant", self.first.text or ""),
            Message("system", ANEW),
        )
        note = f"asked as it stands: {self.why}" if self.why else ""
        return replace(
            answer,
            before=(*record, *answer.before) if self.before else answer.before,
            usage=self.first.usage + answer.usage,
            note="; ".join(n for n in (note, answer.note) if n),
        )


def _count(seconds: Collection[_Second[T]]) -> None:
    """Report how many are asked unchanged, and why."""
    reasons = Counter(s.why for s in seconds if s.why and not s.is_lost)
    if reasons:
        listed = "; ".join(f"{count}: {why}" for why, count in sorted(reasons.items()))
        remark(
            f"self_help: {reasons.total()} of {len(seconds)} items were asked as they stand, not rewritten ({listed})"
        )
