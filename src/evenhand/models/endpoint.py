"""A model on an OpenAI-compatible server: `endpoint:URL#model`."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, NamedTuple

from evenhand.core import answer_cache, text_output
from evenhand.core.progress import track
from evenhand.core.stop_strings import first_stop
from evenhand.errors import MissingAbilityError, SettingsError, suggest
from evenhand.interfaces import Ability, AnswerBy, Choice, Dialogue, Model, Question, Reply, Sampling, Usage
from evenhand.models import endpoint_requests, saved
from evenhand.models.asking import CHOICE_SAMPLING, choose_by_generation, plain_sampling, sampling_from
from evenhand.models.endpoint_first_look import FirstLook, Need, needs
from evenhand.models.endpoint_preflight import Preflight, ServerCheck
from evenhand.models.endpoint_replies import Answered
from evenhand.models.endpoint_servers import CONTINUING, NEUTRAL, check_name, owner
from evenhand.models.letter_tokens import LetterReading, fault_of, first_letters
from evenhand.models.mitigated import Mitigated
from evenhand.prompting import rendering
from evenhand.prompting.thinking import THINK, is_cut

if TYPE_CHECKING:
    from evenhand.models.endpoint_client import Done, Failed

GREEDY = Sampling()
KEY_VARIABLES = ("EVENHAND_API_KEY", "OPENAI_API_KEY")
THINKS = (
    "the first token belongs to a thought, not to the answer; turn thinking off (by the option of its template, such "
    "as extra={'chat_template_kwargs': {'enable_thinking': False}}) or use answer_by='generation'"
)
TOP = 20
"""Maximum number of top log-probabilities per token on OpenAI, and on vLLM by default."""
OPTIONS = (
    *("name", "answer_by", "sampling", "extra", "server", "thinking_tokens"),
    *("concurrency", "timeout", "retries", "backoff", "key_env", "preflight"),
)


class _Request(NamedTuple):
    """A request's body and the key under which its answer is cached."""

    key: str
    body: dict[str, Any]


class SecondRequests(NamedTuple):
    """Cost of asking again when the first token did not decide the letter, thoughts included."""

    items: int = 0
    prompt_tokens: int = 0
    new_tokens: int = 0
    seconds: float = 0.0
    """Wall-clock time of the requests that the cache did not answer; several run at a time."""

    def since(self, before: SecondRequests) -> SecondRequests:
        """Return the difference from an earlier count."""
        return SecondRequests(
            self.items - before.items,
            self.prompt_tokens - before.prompt_tokens,
            self.new_tokens - before.new_tokens,
            self.seconds - before.seconds,
        )

    def line(self) -> str:
        """Return a summary in one line; "" if nothing was asked again."""
        if not self.items:
            return ""
        return (
            f"{self.items} questions were asked a second time, as their first token alone did not decide the letter: "
            f"{self.prompt_tokens} more prompt tokens, {self.new_tokens} new tokens (thoughts included), "
            f"{text_output.number(self.seconds)} s"
        )


class EndpointModel(Model):
    """A chat model that is asked over HTTP, several requests at a time.

    `choose` parses a written reply (`answer_by="generation"`) or, if the server gives log-probabilities, reads those
    of the option letters among the 20 most probable first tokens (`"letters"`), in all forms in which a token can write
    a letter (`evenhand.models.letter_tokens`). If these have less than half of the probability, the item is
    undecided, and its note and `mass` give the amount. The server is assumed to return the model's own
    log-probabilities, before sampling settings are applied.

    A request that fails permanently leaves its item unanswered and is not cached, so that the next run repeats it;
    only a refusal that concerns all requests (key, model name, credit) ends the run.
    """

    answer_by: AnswerBy
    sampling: Sampling
    thinking_tokens: int

    def __init__(
        self,
        rest: str,
        *,
        name: str | None = None,
        answer_by: AnswerBy = "generation",
        sampling: Sampling = CHOICE_SAMPLING,
        extra: Mapping[str, Any] | None = None,
        server: str | None = None,
        thinking_tokens: int = 0,
        concurrency: int = 8,
        timeout: float = 60.0,
        retries: int = 4,
        backoff: float = 1.0,
        key_env: str | None = None,
        preflight: bool = True,
    ) -> None:
        """Create the model; nothing is sent yet.

        Args:
            rest: "URL#model". User, password and query string of the URL are sent, but neither shown nor saved.
            name: Label for tables; the model's name by default.
            answer_by: How `choose` reads the answer if a question does not specify it: "generation" or "letters".
            sampling: How `choose` generates if a question does not specify it.
            extra: Fields sent with every request, such as {"top_k": 20} or {"reasoning_effort": "low"}; they are saved
                and shown, so they must not contain secrets. The value None removes a field that would be sent.
            server: The server's software. "vllm", "sglang", "llamacpp" and "transformers" are sent neutral values for
                the sampling settings that they would otherwise fill in themselves; "other" is sent none. None uses
                the name in the server's list of models.
            thinking_tokens: Added to the limit of every written reply, for models that think first: servers count the
                thought as part of the reply. 0, the default, suits models that do not think.
            concurrency: Maximum number of requests at a time.
            timeout: Maximum time without a response from the server, in seconds.
            retries: How often a request is retried if the server is busy or fails.
            backoff: Seconds before the first retry; doubled each time, at most a minute.
            key_env: Environment variable with the API key; by default EVENHAND_API_KEY, else OPENAI_API_KEY.
            preflight: Whether a comparison checks the server before it asks anything (`look_first`). False suits a
                model that is so certain of its replies that draws do not differ.
        """
        if concurrency < 1 or timeout <= 0 or retries < 0 or backoff < 0:
            raise SettingsError("concurrency must be >= 1, timeout > 0, retries and backoff >= 0")
        if isinstance(thinking_tokens, bool) or not isinstance(thinking_tokens, int) or thinking_tokens < 0:
            raise SettingsError(f"thinking_tokens {thinking_tokens!r} must be a whole number of at least 0")
        if not isinstance(preflight, bool):
            raise SettingsError(f"preflight {preflight!r} must be True or False")
        _check_way(answer_by)
        check_name(server)
        client, (variable, key) = client_module(), api_key(key_env)
        address = client.Address(rest, key)
        self.url, self.model, self.name = address.url, address.model, name or address.model
        self.source = f"endpoint:{self.url}#{self.model}"
        self.answer_by, self.sampling, self.concurrency = answer_by, sampling, concurrency
        self.extra, self.server, self.thinking_tokens = endpoint_requests.checked_extra(extra), server, thinking_tokens
        self._looks, self._first_look = preflight, self._unlooked()
        self.second_requests = SecondRequests()
        effort = {"concurrency": concurrency, "timeout": timeout, "retries": retries, "backoff": backoff}
        self.load_options = {"name": self.name, "answer_by": answer_by, "sampling": plain_sampling(sampling), **effort}
        more = {"extra": self.extra, "server": server, "thinking_tokens": thinking_tokens, "key_env": key_env}
        self.load_options.update({name: value for name, value in more.items() if value})
        self.load_options.update({} if preflight else {"preflight": False})
        self._client = client.EndpointClient(
            address, key_variable=variable, timeout=timeout, connections=concurrency, retries=retries, backoff=backoff
        )

    def __repr__(self) -> str:
        """Show the specification, which contains no secrets."""
        return f"EndpointModel({self.source!r})"

    @property
    def abilities(self) -> frozenset[Ability]:
        """Choosing and generating; a server gives neither its weights nor the probabilities of given texts."""
        return frozenset({"choose", "generate"})

    @property
    def fingerprint(self) -> str:
        """Hash of the URL, the model's name and how it is asked. Which weights the server runs cannot be verified."""
        asking = (self.answer_by, plain_sampling(self.sampling))
        return answer_cache.key("endpoint", self.url, self.model, *asking, *self._passed)[:32]

    @property
    def _passed(self) -> tuple[dict[str, Any], ...]:
        """Options of requests beyond the sampling; empty by default, so that stored answers keep their keys."""
        passed = {"extra": self.extra, "server": self.server, "thinking_tokens": self.thinking_tokens}
        given = {name: value for name, value in passed.items() if value}
        return (given,) if given else ()

    def facts(self) -> dict[str, Any]:
        """Return where the server is and how it is asked."""
        return {
            **super().facts(),
            "source": self.source,
            "answer_by": self.answer_by,
            "sampling": plain_sampling(self.sampling),
            **(self._passed[0] if self._passed else {}),
            "prompt_format": "chat messages; the server applies its own template",
            "fingerprint_of": "url and model name",
            **({"preflight": self._first_look.found} if self._first_look.found else {}),
        }

    def save(self, folder: str | Path) -> Path:
        """Save the server's address. The key, and user, password and query of the URL, must be given again."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        saved.write(folder, {"kind": "endpoint", "source": self.source, "options": self.load_options})
        return folder

    def choose(self, questions: Sequence[Question]) -> list[Choice]:
        """Answer each question the way it asks for (`answer_by`), or by the model's default."""
        ways = [q.answer_by or self.answer_by for q in questions]
        for way in set(ways):
            _check_way(way)
        out: dict[int, Choice] = {}
        for way in ("letters", "generation"):
            rows = [i for i, w in enumerate(ways) if w == way]
            mine = [questions[i] for i in rows]
            made = self._by_letters(mine) if way == "letters" else choose_by_generation(self, mine, self.sampling)
            out.update(zip(rows, made, strict=True))
        return [out[i] for i in range(len(questions))]

    def generate(self, dialogues: Sequence[Dialogue], sampling: Sampling = GREEDY) -> list[Reply]:
        """Write the next turn of each dialogue; identical requests are sent once.

        Raises:
            EndpointError: The server refused the key or does not know the model; what it answered before is cached.
        """
        answers = self._ask([self._written(d, sampling) for d in dialogues])
        return [_reply(answer, sampling.stop) for answer in answers]

    def _by_letters(self, questions: list[Question]) -> list[Choice]:
        """Read the first token, and once more if an opening bracket or a word may stand for the letter."""
        asked = [rendering.as_dialogue(q, "letters") for q in questions]
        answers = self._ask([self._first_token(d) for d in asked])
        read = [_first(q, a) for q, a in zip(questions, answers, strict=True)]
        rows = [i for i, r in enumerate(read) if r.needs_opening]
        if rows and self._continues:
            opened = [self._first_token(asked[i].assistant(read[i].opening.text), continuing=True) for i in rows]
            for i, answer in zip(rows, self._ask_again(opened), strict=True):
                read[i] = _continued(read[i], answer)
        rows = [i for i, r in enumerate(read) if r.needs_reply]
        if rows:
            written = self._ask_again([self._written(asked[i], CHOICE_SAMPLING) for i in rows])
            for i, answer in zip(rows, written, strict=True):
                read[i] = _replied(read[i], answer)
        return [r.choice() for r in read]

    def _ask_again(self, requests: Sequence[_Request]) -> list[Answered | Failed]:
        """Ask like `_ask`, for questions that were asked before, and count the cost."""
        begun, looked = time.monotonic(), self.seconds_looked
        answers = self._ask(requests)
        seconds = time.monotonic() - begun - (self.seconds_looked - looked)
        used = sum((_usage(a) for a in answers if isinstance(a, Answered)), Usage())
        so_far = self.second_requests
        self.second_requests = SecondRequests(
            so_far.items + len(requests),
            so_far.prompt_tokens + used.prompt_tokens,
            so_far.new_tokens + used.new_tokens,
            so_far.seconds + seconds,
        )
        return answers

    @cached_property
    def _continues(self) -> bool:
        """Whether the server is known to continue a text; others may take an assistant's last turn as complete."""
        return (self.server or self._owner) in CONTINUING

    @cached_property
    def _owner(self) -> str:
        """`owned_by` in the server's list of models; "" if it is missing."""
        found = self._client.send("/models", None, lambda content: owner(content, self.model), Event(), tries=2)
        return found if isinstance(found, str) else ""

    @cached_property
    def _neutral(self) -> dict[str, Any]:
        """Fields that keep the server's own sampling settings out of written replies.

        The server's kind is stored with the answers, so that a run with all answers cached sends no requests.
        """
        store = answer_cache.active()
        name = answer_cache.key("endpoint server", self.url, self.model)
        if self.server is not None or store is None:
            return NEUTRAL.get(self._owner if self.server is None else self.server, {})
        known = store.get([name], counted=False).get(name)
        if known is None and self._owner in NEUTRAL:
            store.put({name: self._owner})
        return NEUTRAL.get(self._owner if known is None else str(known), {})

    def look_first(self, *, letters: bool = False, draws: bool = False) -> None:
        """Have the server checked before the next request that the cache does not answer; see `preflight`.

        Checks that are in the active answer cache are not repeated.

        Args:
            letters: Whether log-probabilities will be read.
            draws: Whether replies will be drawn at a temperature above 0.
        """
        if self._looks:
            self._first_look.wish(needs(letters=letters, draws=draws))

    @property
    def seconds_looked(self) -> float:
        """Duration of the check that `look_first` requested; 0 until it has run."""
        return self._first_look.seconds

    def preflight(self, *, letters: bool = False, draws: bool = False) -> Preflight:
        """Check whether the server can be used, and report what was found.

        Args:
            letters: Whether log-probabilities will be read.
            draws: Whether replies will be drawn at a temperature above 0.

        Raises:
            EndpointError: It cannot be reached or used; the message is one line with the remedy.
            SettingsError: It has no model of that name.
        """
        check = self._server_check()
        found = check.reach()
        if letters:
            check.letters()
        if draws:
            check.draws()
        return found

    def _server_check(self) -> ServerCheck:
        def body(dialogue: Dialogue, sampling: Sampling | None) -> dict[str, Any]:
            return (self._first_token(dialogue) if sampling is None else self._written(dialogue, sampling)).body

        return ServerCheck(self._client, self.url, self.model, body)

    def _unlooked(self) -> FirstLook:
        return FirstLook(
            self._server_check, self.name, lambda: answer_cache.key("endpoint preflight", self.fingerprint)
        )

    def _written(self, dialogue: Dialogue, sampling: Sampling) -> _Request:
        body = endpoint_requests.written(self.model, dialogue, sampling, self.thinking_tokens)
        draw, seed = (dialogue.draw, sampling.seed) if sampling.temperature > 0 else (0, 0)
        knobs = (sampling.temperature, sampling.top_p, sampling.max_new_tokens, sampling.stop)
        neutral = (self._neutral,) if self._neutral else ()
        key = answer_cache.key(self.fingerprint, "generate", body["messages"], draw, knobs, seed, *neutral)
        return _Request(key, endpoint_requests.with_extra(body, self._neutral, self.extra))

    def _first_token(self, dialogue: Dialogue, continuing: bool = False) -> _Request:
        messages = [m._asdict() for m in dialogue.messages]
        # Temperature 0: nothing is drawn. The token that is generated along with it is never used as a reply.
        knobs = {"temperature": 0.0, "top_p": 1.0, "max_tokens": 1, "logprobs": True, "top_logprobs": TOP}
        if continuing:
            knobs |= {"add_generation_prompt": False, "continue_final_message": True}
        body = {"model": self.model, "messages": messages, **knobs}
        key = answer_cache.key(self.fingerprint, "letters", messages, knobs)
        return _Request(key, endpoint_requests.with_extra(body, self.extra))

    def _ask(self, requests: Sequence[_Request]) -> list[Answered | Failed]:
        """Take answers from the cache; request the others, and cache them as they arrive."""
        from evenhand.models.endpoint_client import ask_all

        store = answer_cache.active()
        unique = {r.key: r.body for r in requests}
        stored: dict[str, Any] = store.get(list(unique)) if store is not None else {}
        known: dict[str, Answered | Failed] = {k: Answered(*value) for k, value in stored.items()}
        todo = [k for k in unique if k not in known]
        if todo:
            self._first_look.before(_needs([unique[k] for k in todo]))
        with track(len(todo), f"asking {self.name}") as step:

            def keep(done: Done) -> None:
                fresh = {todo[row]: outcome for row, outcome in done}
                known.update(fresh)
                good = {k: list(v) for k, v in fresh.items() if isinstance(v, Answered) and _complete(v, unique[k])}
                if store is not None and good:
                    store.put(good)
                step(len(done))

            ask_all(self._client.ask, [unique[k] for k in todo], self.concurrency, keep)
        return [known[r.key] for r in requests]


def open_endpoint(rest: str, **options: Any) -> EndpointModel:
    """Open "URL#model"; called by `evenhand.load("endpoint:URL#model", ...)`.

    Args:
        rest: The text after "endpoint:".
        **options: See `EndpointModel`; `sampling` may be a dict.

    Raises:
        SettingsError: An option is unknown, or a value is invalid.
    """
    for option in options:
        if option not in OPTIONS:
            raise SettingsError(f"unknown option {option!r} for an endpoint. {suggest(option, OPTIONS)}")
    if isinstance(options.get("sampling"), dict):
        options["sampling"] = sampling_from(options["sampling"])
    return EndpointModel(rest, **options)


def client_module() -> Any:
    """Return `evenhand.models.endpoint_client`, which needs the openai package.

    Raises:
        SettingsError: It is not installed.
    """
    try:
        from evenhand.models import endpoint_client
    except ImportError as error:
        raise SettingsError("endpoints need the openai package: pip install 'evenhand[endpoint]'") from error
    return endpoint_client


def _check_way(way: str) -> None:
    if way in rendering.BY_TEXT:
        raise MissingAbilityError(
            f"an endpoint cannot answer by {way!r}: servers do not score given texts. "
            "Use answer_by='generation' or 'letters', open a vLLM server as vllm:URL#model, or load the weights here"
        )
    if way not in ("generation", "letters"):
        raise SettingsError(f"unknown answer_by {way!r}. {suggest(way, ('generation', 'letters'))}")


def api_key(variable: str | None) -> tuple[str, str]:
    """Return the variable that messages name, and the key; "" if no key is set.

    Raises:
        SettingsError: The variable named is not set. The message does not quote it: it may be the key itself.
    """
    if variable is None:
        held = next((name for name in KEY_VARIABLES if os.environ.get(name)), None)
        return held or KEY_VARIABLES[0], os.environ[held].strip() if held else ""
    if not re.fullmatch(r"[A-Za-z_]\w*", variable) or not os.environ.get(variable):
        raise SettingsError(
            "key_env takes the name of an environment variable containing the API key, and the one given is not set; "
            "export it, or leave key_env out to use " + " or ".join(KEY_VARIABLES)
        )
    return variable, os.environ[variable].strip()


def _needs(bodies: Sequence[dict[str, Any]]) -> list[Need]:
    """Return what a server must support for these requests, beyond a greedy reply."""
    letters, draws = (any(body.get(field) for body in bodies) for field in ("logprobs", "temperature"))
    return needs(letters=letters, draws=draws)


def _complete(answer: Answered, body: dict[str, Any]) -> bool:
    """Whether an answer contains all that was asked; a server may give logprobs later even if it does not now."""
    return answer.top is not None or not body.get("logprobs")


def _reply(answer: Answered | Failed, stop: Sequence[str]) -> Reply:
    """Return the reply, cut at the first stop string of its answer: transformers serve does not cut it."""
    from evenhand.models.endpoint_client import Failed

    if isinstance(answer, Failed):
        return Reply(None, finished=False, note=answer.note)
    text, note = answer.text.strip(), _thought_note(answer)
    begin = 0 if note else text.rfind(THINK.closing) + 1
    cut = None if note else first_stop(text, stop, begin)
    return Reply(text[:cut].strip(), _usage(answer), answer.finished or cut is not None, note)


def _thought_note(answer: Answered) -> str:
    """Return why a reply has no answer: it ends within its thought, usually at the token limit."""
    if answer.hidden:
        return (
            f"undecided: the reply was cut{f' at {answer.new_tokens} tokens' if answer.new_tokens else ''} before its "
            "first word; a thought that is not shown may have used all of them: give it room with thinking_tokens"
        )
    if not is_cut(answer.text):
        return ""
    return (
        f"undecided: the thought was cut at {answer.new_tokens} tokens; give it room with thinking_tokens"
        if answer.new_tokens
        else "undecided: the thought never ended; give it room with thinking_tokens"
    )


def _usage(answer: Answered) -> Usage:
    return Usage(1, answer.prompt_tokens, answer.new_tokens)


def _first(question: Question, answer: Answered | Failed) -> LetterReading:
    from evenhand.models.endpoint_client import Failed

    if isinstance(answer, Failed):
        return LetterReading(question, failed=answer.note)
    fault = fault_of(answer.top) or ("" if not is_cut(answer.text) else THINKS)
    if fault or answer.top is None:
        return LetterReading(question, _usage(answer), fault=fault)
    return first_letters(question, answer.top, _usage(answer))


def _continued(read: LetterReading, answer: Answered | Failed) -> LetterReading:
    from evenhand.models.endpoint_client import Failed

    if isinstance(answer, Failed):
        return replace(read, failed=answer.note)
    return read.continued(answer.top, _usage(answer))


def _replied(read: LetterReading, answer: Answered | Failed) -> LetterReading:
    from evenhand.models.endpoint_client import Failed

    if isinstance(answer, Failed):
        return replace(read, failed=answer.note)
    if answer.hidden:
        return replace(read, fault=_thought_note(answer), usage=read.usage + _usage(answer))
    return read.replied(answer.text, answer.finished, _usage(answer))


def look_first(model: Model, *, letters: bool = False, draws: bool = False) -> None:
    """Have the server of a model checked before its first request; methods may be applied to the model.

    Args:
        model: Any model; nothing is done for one without a server.
        letters: Whether log-probabilities will be read.
        draws: Whether replies will be drawn at a temperature above 0.
    """
    if (asked := _behind(model)) is not None:
        asked.look_first(letters=letters, draws=draws)


def first_look(model: Model) -> tuple[dict[str, Any], float]:
    """Return what the check of a model's server found, and its duration in seconds; ({}, 0.0) if there was none."""
    asked = _behind(model)
    return ({}, 0.0) if asked is None else (asked.facts().get("preflight", {}), asked.seconds_looked)


def second_requests(model: Model) -> SecondRequests:
    """Return the cost so far of asking a model's server again; all zeros for a model without a server."""
    asked = _behind(model)
    return SecondRequests() if asked is None else asked.second_requests


def _behind(model: Model) -> EndpointModel | None:
    while isinstance(model, Mitigated):
        model = model.base
    return model if isinstance(model, EndpointModel) else None
