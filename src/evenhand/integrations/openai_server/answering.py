"""Requests without HTTP: whole lists of jobs in, one answer or one error each out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from evenhand.errors import EvenhandError, MissingAbilityError, SettingsError
from evenhand.inference import Generated, Prompt
from evenhand.inference.sampling import end_tokens
from evenhand.inference.top_tokens import top_tokens
from evenhand.interfaces import Dialogue, Model, Reply, Sampling
from evenhand.models.local import LocalModel
from evenhand.models.mitigated import Mitigated
from evenhand.models.token_model import TokenModel


@dataclass(frozen=True)
class Job:
    """One reply that is wanted."""

    asked: Dialogue | Prompt
    sampling: Sampling
    top: int | None = None
    """How many alternatives of the first token are listed; None lists nothing."""


class FirstToken(NamedTuple):
    """The first token of a reply, and what else could have stood there."""

    token: str
    logprob: float
    top: list[tuple[str, float]]


class Answer(NamedTuple):
    """One reply."""

    text: str
    finished: bool
    """False when it was cut at the limit of tokens."""
    prompt_tokens: int
    new_tokens: int
    first: FirstToken | None = None


class Answerer:
    """Answers lists of jobs on one model."""

    def __init__(self, model: Model) -> None:
        """Find out what the model can.

        Raises:
            MissingAbilityError: It cannot write.
        """
        if "generate" not in model.abilities:
            raise model.unsupported("generate")
        self.model = model
        self.plain = _plain(model)
        """The model in tokens, where replies are its own and not a method's; else None."""

    def prompts(self, texts: Sequence[str | Sequence[int]]) -> list[Prompt]:
        """Bare prompts in tokens.

        Raises:
            MissingAbilityError: Replies are a method's or a server's, which take dialogues only.
            SettingsError: A token id that the vocabulary does not hold, or a prompt without tokens.
        """
        model = self.in_tokens()
        made = [model.plain_prompt(t) if isinstance(t, str) else Prompt(tuple(t)) for t in texts]
        for prompt in made:
            wrong = next((i for i in prompt.ids if not 0 <= i < model.vocabulary), None)
            if wrong is not None:
                raise SettingsError(f"token id {wrong} is none of the vocabulary's 0 to {model.vocabulary - 1}")
            if not prompt.ids:
                raise SettingsError("the prompt holds no token; give at least one")
        return made

    def in_tokens(self) -> TokenModel:
        """The model that continues bare texts.

        Raises:
            MissingAbilityError: Replies are a method's, which takes dialogues only.
        """
        if self.plain is None:
            raise MissingAbilityError(f"{self.model.name} answers dialogues only: use /v1/chat/completions")
        return self.plain

    def local(self) -> LocalModel:
        """The model that knows what else could have stood where a token stands.

        Raises:
            MissingAbilityError: Replies are a method's, or come from a server.
        """
        if not isinstance(self.plain, LocalModel):
            raise MissingAbilityError(
                f"{self.model.name} gives no log-probabilities of its replies; leave out logprobs"
            )
        return self.plain

    def answer(self, jobs: Sequence[Job]) -> list[Answer | Exception]:
        """Answer all, those with the same sampling together; an error concerns only the job that it came from."""
        groups: dict[tuple[bool, bool, Sampling], list[int]] = {}
        for i, job in enumerate(jobs):
            groups.setdefault((isinstance(job.asked, Prompt), job.top is not None, job.sampling), []).append(i)
        out: dict[int, Answer | Exception] = {}
        for (bare, listed, _), rows in groups.items():
            way = self._listed if listed else self._bare if bare else self._written
            out.update(zip(rows, _each(way, [jobs[i] for i in rows]), strict=True))
        return [out[i] for i in range(len(jobs))]

    def _written(self, jobs: list[Job]) -> list[Answer]:
        replies = self.model.generate([j.asked for j in jobs if isinstance(j.asked, Dialogue)], jobs[0].sampling)
        return [_of_reply(reply) for reply in replies]

    def _bare(self, jobs: list[Job]) -> list[Answer]:
        model = self.in_tokens()
        asked = [j.asked for j in jobs if isinstance(j.asked, Prompt)]
        made = model.continued(asked, jobs[0].sampling)
        return [_of_generated(prompt, g, g.text if g else "") for prompt, g in zip(asked, made, strict=True)]

    def _listed(self, jobs: list[Job]) -> list[Answer]:
        """Replies with the alternatives of their first tokens."""
        model = self.local()
        pairs = model.written([j.asked for j in jobs if isinstance(j.asked, Dialogue)], jobs[0].sampling)
        module, tokenizer = model.engine.module, model.engine.tokenizer
        ends = end_tokens(module, tokenizer)
        also = [[g.ids[0]] if g and g.ids else sorted(ends) for _, g in pairs]
        rows = [prompt.ids for prompt, _ in pairs]
        ranked = top_tokens(module, rows, max(j.top or 0 for j in jobs) or 1, also=also, pad_id=model.engine.pad_id)

        def named(pair: tuple[int, float]) -> tuple[str, float]:
            return str(tokenizer.decode([pair[0]])), pair[1]

        out = []
        for job, (prompt, made), listed, first in zip(jobs, pairs, ranked, also, strict=True):
            token = max((pair for pair in listed if pair[0] in first), key=lambda pair: pair[1])
            top = [named(pair) for pair in listed[: job.top or 0]]
            answer = _of_generated(prompt, made, made.text.strip() if made else "")
            out.append(answer._replace(first=FirstToken(*named(token), top)))
        return out


def _plain(model: Model) -> TokenModel | None:
    while isinstance(model, Mitigated) and "generate" not in model.acts_on:
        model = model.base
    return model if isinstance(model, TokenModel) else None


def _each(way: Callable[[list[Job]], list[Answer]], jobs: list[Job]) -> list[Answer | Exception]:
    """All at once; where that fails one by one, so that a job pays for its own mistakes only."""
    try:
        return list(way(jobs))
    except Exception as error:
        if len(jobs) == 1:
            return [error]
    return [outcome for job in jobs for outcome in _each(way, [job])]


def _of_reply(reply: Reply) -> Answer:
    if reply.text is None:
        raise EvenhandError(f"the model gave no reply: {reply.note}")
    return Answer(reply.text, reply.finished, reply.usage.prompt_tokens, reply.usage.new_tokens)


def _of_generated(prompt: Prompt, made: Generated | None, text: str) -> Answer:
    if made is None:
        raise EvenhandError("the prompt and max_tokens do not fit the context")
    if made.note:
        raise EvenhandError(f"the model gave no reply: {made.note}")
    return Answer(text, made.finished, len(prompt.ids), len(made.ids))
