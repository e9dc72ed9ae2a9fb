"""Answers to requests, without HTTP: a list of jobs gives one answer or one error for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from evenhand.errors import ContextTooLongError, EvenhandError, MissingAbilityError, SettingsError
from evenhand.inference import Generated, Prompt
from evenhand.inference.batching import told_apart
from evenhand.inference.listening import Listener, listening
from evenhand.inference.sampling import end_tokens, reply
from evenhand.inference.top_tokens import top_tokens
from evenhand.integrations.openai_server import texts
from evenhand.integrations.openai_server.streaming import Pieces
from evenhand.integrations.openai_server.token_lists import Shown, TokenList, token_lists
from evenhand.interfaces import Dialogue, Model, Reply, Sampling
from evenhand.models.local import LocalModel
from evenhand.models.mitigated import Mitigated
from evenhand.models.token_model import TokenModel


@dataclass(frozen=True)
class Job:
    """A reply that a client asks for."""

    asked: Dialogue | Prompt
    sampling: Sampling
    top: int | None = None
    """How many alternatives are listed: for the first token of a reply to a dialogue, for all tokens of one to a bare
    prompt. None lists nothing."""
    echo: bool = False
    """Whether a bare prompt is put before its reply, in the text and in the list."""
    echoed: str | None = None
    """The prompt as text; None if it was given in tokens."""
    tell: Callable[[str], object] | None = None
    """Takes the reply piece by piece while it is written; it may get less than the whole."""
    wanted: Callable[[], bool] | None = None
    """Whether anybody still waits for the reply; None if somebody always does."""
    writes: bool = True
    """False if a bare prompt is only listed."""


class FirstToken(NamedTuple):
    """The first token of a reply, and what else could have stood there."""

    token: str
    logprob: float
    top: list[tuple[str, float]]


class Answer(NamedTuple):
    """One reply."""

    text: str
    finished: bool
    """False if it was cut at the limit of tokens."""
    prompt_tokens: int
    new_tokens: int
    first: FirstToken | None = None
    listed: TokenList | None = None
    """All tokens of the reply to a bare prompt, if requested."""


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
        """The model in tokens, if replies are its own and not a method's; else None."""

    def prompts(self, given: Sequence[str | Sequence[int]]) -> list[Prompt]:
        """Tokenise bare prompts.

        Raises:
            MissingAbilityError: Replies are a method's or a server's, which take dialogues only.
            SettingsError: A token id is not in the vocabulary, or a prompt has no tokens.
        """
        model = self.in_tokens()
        made = [model.plain_prompt(t) if isinstance(t, str) else Prompt(tuple(t)) for t in given]
        for prompt in made:
            wrong = next((i for i in prompt.ids if not 0 <= i < model.vocabulary), None)
            if wrong is not None:
                raise SettingsError(f"token id {wrong} is not in the vocabulary, which has 0 to {model.vocabulary - 1}")
            if not prompt.ids:
                raise SettingsError("the prompt has no token; give at least one")
        return made

    def in_tokens(self) -> TokenModel:
        """Return the model that continues bare texts.

        Raises:
            MissingAbilityError: Replies are a method's, which takes dialogues only.
        """
        if self.plain is None:
            raise MissingAbilityError(f"{self.model.name} answers dialogues only: use /v1/chat/completions")
        return self.plain

    def local(self) -> LocalModel:
        """Return the model that gives the alternatives of a token.

        Raises:
            MissingAbilityError: Replies are a method's, or come from a server.
        """
        if not isinstance(self.plain, LocalModel):
            raise MissingAbilityError(
                f"{self.model.name} gives no log-probabilities of its replies; leave out logprobs"
            )
        return self.plain

    def scored(self) -> LocalModel:
        """Return the model that gives log-probabilities of texts.

        Raises:
            MissingAbilityError: A method changes scores or replies, or the model is on a server.
        """
        local, model = self.local(), self.model
        if isinstance(model, Mitigated) and "score" in model.acts_on:
            raise MissingAbilityError(
                f"{model.name} scores texts as a whole, not token by token; leave out logprobs and echo, or ask it "
                "in this process"
            )
        return local

    @property
    def context_length(self) -> int | None:
        """Context length of the model below all methods, in tokens; None if it is not known."""
        model = self.model
        while isinstance(model, Mitigated):
            model = model.base
        return model.context_length if isinstance(model, TokenModel) else None

    @property
    def streams(self) -> bool:
        """Whether replies can be sent while they are written: not those of methods, servers and thinking models."""
        return isinstance(self.plain, LocalModel) and not self.plain.writes_thoughts

    def answer(self, jobs: Sequence[Job]) -> list[Answer | Exception]:
        """Answer all jobs, those with the same sampling together; an error concerns only the job that caused it."""
        groups: dict[tuple[bool, bool, bool, Sampling], list[int]] = {}
        for i, job in enumerate(jobs):
            kind = (isinstance(job.asked, Prompt), job.top is not None, job.writes, job.sampling)
            groups.setdefault(kind, []).append(i)
        out: dict[int, Answer | Exception] = {}
        for (bare, listed, _, _), rows in groups.items():
            way = self._bare if bare else self._listed if listed else self._written
            out.update(zip(rows, _each(way, [jobs[i] for i in rows]), strict=True))
        return [out[i] for i in range(len(jobs))]

    def _written(self, jobs: list[Job]) -> list[Answer]:
        dialogues = [j.asked for j in jobs if isinstance(j.asked, Dialogue)]
        sampling = jobs[0].sampling
        heard: Listener | None = None
        if self.streams and isinstance(self.plain, LocalModel) and any(j.tell or j.wanted for j in jobs):
            prompts, limits = self.plain.dialogue_prompts(dialogues), self.plain.dialogue_sampling(sampling)
            heard = _heard(self.plain, jobs, prompts, limits, strip=True)
        with listening(heard):
            return [_of_reply(reply) for reply in self.model.generate(dialogues, sampling)]

    def _bare(self, jobs: list[Job]) -> list[Answer]:
        model, sampling = self.in_tokens(), jobs[0].sampling
        asked = [j.asked for j in jobs if isinstance(j.asked, Prompt)]
        heard: Listener | None = None
        if isinstance(model, LocalModel) and any(j.tell or j.wanted for j in jobs):
            heard = _heard(model, jobs, asked, sampling, strip=False)
        if jobs[0].writes:
            with listening(heard):
                made = model.continued(asked, sampling)
        else:
            made = [self._unwritten(prompt) for prompt in asked]
        made = [g and texts.continued(model, p, g, sampling.stop) for p, g in zip(asked, made, strict=True)]
        answers = [_of_generated(p, g, g.text if g else "") for p, g in zip(asked, made, strict=True)]
        return self._with_lists(jobs, asked, [g for g in made if g], answers)

    def _unwritten(self, prompt: Prompt) -> Generated | None:
        """Return the reply of no tokens.

        Raises:
            ContextTooLongError: The prompt alone does not fit.
        """
        context = self.in_tokens().context_length
        if len(prompt.ids) > context:
            raise ContextTooLongError(f"the prompt needs {len(prompt.ids)} tokens, the context holds {context}")
        return Generated((), "", finished=False)

    def _with_lists(
        self, jobs: list[Job], asked: list[Prompt], made: list[Generated], answers: list[Answer]
    ) -> list[Answer]:
        """Add prompts and lists of tokens to bare replies, where requested."""
        heads = [self._echo(job) if job.echo else "" for job in jobs]
        out = [answer._replace(text=head + answer.text) for head, answer in zip(heads, answers, strict=True)]
        for echo in (False, True):
            rows = [i for i, job in enumerate(jobs) if job.top is not None and job.echo == echo]
            if rows:
                top = max(jobs[i].top or 0 for i in rows)
                prompts, replies = [asked[i] for i in rows], [made[i] for i in rows]
                shown = [Shown(heads[i], out[i].text) for i in rows]
                lists = token_lists(self.scored(), prompts, replies, shown, jobs[0].sampling, top=top, echo=echo)
                for i, listed in zip(rows, lists, strict=True):
                    out[i] = out[i]._replace(listed=listed.shortened(jobs[i].top or 0))
        return out

    def _echo(self, job: Job) -> str:
        if job.echoed is not None or not isinstance(job.asked, Prompt):
            return job.echoed or ""
        return self.local().decoded(job.asked.ids)

    def _listed(self, jobs: list[Job]) -> list[Answer]:
        """Write replies, with the alternatives of their first tokens."""
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


def _heard(
    model: LocalModel, jobs: Sequence[Job], prompts: Sequence[Prompt], sampling: Sampling, *, strip: bool
) -> Listener:
    """Return a listener that hands each job the pieces of its reply; several jobs may ask for the same one.

    A reply ends when none of these jobs is wanted any longer.
    """
    tokenizer, ends = model.engine.tokenizer, end_tokens(model.engine.module, model.engine.tokenizer)

    def text_of(prompt: Prompt, new: Sequence[int]) -> str:
        made = reply(new, ends, sampling, tokenizer)
        return made.text if strip else texts.continued(model, prompt, made, sampling.stop).text

    waiting: dict[Prompt, list[tuple[Job, Pieces | None]]] = {}
    for job, prompt in zip(jobs, told_apart(prompts, sampling), strict=True):
        pieces = Pieces(job.tell, partial(text_of, prompt), sampling.stop, strip=strip) if job.tell else None
        waiting.setdefault(prompt, []).append((job, pieces))

    def heard(prompt: Prompt, new: Sequence[int]) -> bool:
        mine = waiting.get(prompt, [])
        for job, pieces in mine:
            if pieces is not None and _is_wanted(job):
                pieces.grow(new)
        return not mine or any(_is_wanted(job) for job, _ in mine)

    return heard


def _is_wanted(job: Job) -> bool:
    return job.wanted is None or job.wanted()


def _each(way: Callable[[list[Job]], list[Answer]], jobs: list[Job]) -> list[Answer | Exception]:
    """Answer all at once; if that fails, one by one, so that a job fails by its own error only."""
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
