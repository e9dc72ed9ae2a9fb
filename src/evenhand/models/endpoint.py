"""A model behind an OpenAI-compatible server: `endpoint:URL#model`."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, NamedTuple

from evenhand.core import answer_cache
from evenhand.core.draws import seeded_hash
from evenhand.core.progress import track
from evenhand.errors import MissingAbilityError, SettingsError, suggest
from evenhand.interfaces import Ability, AnswerBy, Choice, Dialogue, Model, Question, Reply, Sampling, Usage
from evenhand.models import saved
from evenhand.models.asking import CHOICE_SAMPLING, choose_by_generation, plain_sampling, sampling_from
from evenhand.models.letter_tokens import LetterReading, fault_of, first_letters
from evenhand.prompting import rendering

if TYPE_CHECKING:
    from evenhand.models.endpoint_client import Answered, Done, Failed

GREEDY = Sampling()
KEY_VARIABLES = ("EVENHAND_API_KEY", "OPENAI_API_KEY")
TOP = 20
"""Most log-probabilities that OpenAI, and vLLM by default, give for a token."""
CONTINUING = frozenset({"vllm", "sglang"})
"""Servers, by what their list of models says in `owned_by`, that continue a last assistant turn where a request says
`continue_final_message` (vLLM's ChatCompletionRequest; SGLang since its pull request 4226)."""
OPTIONS = ("name", "answer_by", "sampling", "concurrency", "timeout", "retries", "backoff", "key_env")


class _Request(NamedTuple):
    """What is sent, and the name under which the answer is kept."""

    key: str
    body: dict[str, Any]


class EndpointModel(Model):
    """A chat model that is asked over HTTP, several requests at a time.

    `choose` parses a written reply (`answer_by="generation"`) or, where the server gives log-probabilities, reads those
    of the option letters among the 20 most probable first tokens (`"letters"`), in all forms in which a token can write
    a letter (`evenhand.models.letter_tokens`). Where these have less than half of the probability, the item is
    undecided, and its note and `mass` say how much it was. A server is taken to give the model's own
    log-probabilities, not those after sampling settings.

    A request that fails for good leaves its item unanswered and is not cached, so that the next run asks for it again;
    only a refusal that concerns all requests (key, model name, credit) ends the run.
    """

    answer_by: AnswerBy
    sampling: Sampling

    def __init__(
        self,
        rest: str,
        *,
        name: str | None = None,
        answer_by: AnswerBy = "generation",
        sampling: Sampling = CHOICE_SAMPLING,
        concurrency: int = 8,
        timeout: float = 60.0,
        retries: int = 4,
        backoff: float = 1.0,
        key_env: str | None = None,
    ) -> None:
        """Describe the server.

        Args:
            rest: "URL#model". User, password and query string of the URL are sent, but neither shown nor saved.
            name: Label for tables; the model's name by default.
            answer_by: How `choose` reads the answer where a question does not say: "generation" or "letters".
            sampling: How `choose` generates where a question does not say.
            concurrency: Most requests at a time.
            timeout: Seconds that the server may be silent.
            retries: How often a request that met a busy or broken server is tried again.
            backoff: Seconds before the first retry; doubled each time, at most a minute.
            key_env: Environment variable with the API key; by default EVENHAND_API_KEY, else OPENAI_API_KEY.
        """
        if concurrency < 1 or timeout <= 0 or retries < 0 or backoff < 0:
            raise SettingsError("concurrency must be >= 1, timeout > 0, retries and backoff >= 0")
        _check_way(answer_by)
        client, (variable, key) = client_module(), api_key(key_env)
        address = client.Address(rest, key)
        self.url, self.model, self.name = address.url, address.model, name or address.model
        self.source = f"endpoint:{self.url}#{self.model}"
        self.answer_by, self.sampling, self.concurrency = answer_by, sampling, concurrency
        effort = {"concurrency": concurrency, "timeout": timeout, "retries": retries, "backoff": backoff}
        self.load_options = {"name": self.name, "answer_by": answer_by, "sampling": plain_sampling(sampling), **effort}
        self.load_options.update({"key_env": key_env} if key_env else {})
        self._client = client.EndpointClient(
            address, key_variable=variable, timeout=timeout, connections=concurrency, retries=retries, backoff=backoff
        )

    def __repr__(self) -> str:
        """The specification, which holds no secret."""
        return f"EndpointModel({self.source!r})"

    @property
    def abilities(self) -> frozenset[Ability]:
        """Questions and replies; a server's weights and the probabilities of given texts are out of reach."""
        return frozenset({"choose", "generate"})

    @property
    def fingerprint(self) -> str:
        """Hash of the URL, the model's name and how it is asked. What the server really runs cannot be known."""
        return answer_cache.key("endpoint", self.url, self.model, self.answer_by, plain_sampling(self.sampling))[:32]

    def facts(self) -> dict[str, Any]:
        """Where it is and how it is asked."""
        return {
            **super().facts(),
            "source": self.source,
            "answer_by": self.answer_by,
            "sampling": plain_sampling(self.sampling),
            "prompt_format": "chat messages; the server applies its own template",
            "fingerprint_of": "url and model name",
        }

    def save(self, folder: str | Path) -> Path:
        """Write where the server is. The key, and user, password and query of the URL, must be given anew."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        saved.write(folder, {"kind": "endpoint", "source": self.source, "options": self.load_options})
        return folder

    def choose(self, questions: Sequence[Question]) -> list[Choice]:
        """Answer each question the way it asks for (`answer_by`), or the model's way where it does not say."""
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
        return [_reply(answer) for answer in self._ask([self._written(d, sampling) for d in dialogues])]

    def _by_letters(self, questions: list[Question]) -> list[Choice]:
        """Read the first token, and once more where an opening bracket or a word may stand for the letter."""
        asked = [rendering.as_dialogue(q, "letters") for q in questions]
        answers = self._ask([self._first_token(d) for d in asked])
        read = [_first(q, a) for q, a in zip(questions, answers, strict=True)]
        rows = [i for i, r in enumerate(read) if r.needs_opening]
        if rows and self._continues:
            opened = [self._first_token(asked[i].assistant(read[i].opening.text), continuing=True) for i in rows]
            for i, answer in zip(rows, self._ask(opened), strict=True):
                read[i] = _continued(read[i], answer)
        rows = [i for i, r in enumerate(read) if r.needs_reply]
        if rows:
            written = self._ask([self._written(asked[i], CHOICE_SAMPLING) for i in rows])
            for i, answer in zip(rows, written, strict=True):
                read[i] = _replied(read[i], answer)
        return [r.choice() for r in read]

    @cached_property
    def _continues(self) -> bool:
        """Whether the server is known to continue a text; others may take an assistant's last turn as complete."""
        owner = self._client.send("/models", None, lambda content: _owner(content, self.model), Event())
        return owner in CONTINUING

    def _written(self, dialogue: Dialogue, sampling: Sampling) -> _Request:
        messages = [m._asdict() for m in dialogue.messages]
        body: dict[str, Any] = {
            "model": self.model,
            "messages": messages,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,  # even 1.0 is sent: some servers would take the model's own default
            "max_tokens": sampling.max_new_tokens,
        }
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        draw, seed = (dialogue.draw, sampling.seed) if sampling.temperature > 0 else (0, 0)
        if sampling.temperature > 0:
            body["seed"] = _seed(seed, draw)
        knobs = (sampling.temperature, sampling.top_p, sampling.max_new_tokens, sampling.stop)
        return _Request(answer_cache.key(self.fingerprint, "generate", messages, draw, knobs, seed), body)

    def _first_token(self, dialogue: Dialogue, continuing: bool = False) -> _Request:
        messages = [m._asdict() for m in dialogue.messages]
        # Temperature 0: nothing is drawn. The token that comes along is never used as a reply.
        knobs = {"temperature": 0.0, "top_p": 1.0, "max_tokens": 1, "logprobs": True, "top_logprobs": TOP}
        if continuing:
            knobs |= {"add_generation_prompt": False, "continue_final_message": True}
        body = {"model": self.model, "messages": messages, **knobs}
        return _Request(answer_cache.key(self.fingerprint, "letters", messages, knobs), body)

    def _ask(self, requests: Sequence[_Request]) -> list[Answered | Failed]:
        """Answers from the cache where it has them; the others are asked and put there as they come."""
        from evenhand.models.endpoint_client import Answered, ask_all

        store = answer_cache.active()
        unique = {r.key: r.body for r in requests}
        stored: dict[str, Any] = store.get(list(unique)) if store is not None else {}
        known: dict[str, Answered | Failed] = {k: Answered(*value) for k, value in stored.items()}
        todo = [k for k in unique if k not in known]
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
    """Open "URL#model"; what `evenhand.load("endpoint:URL#model", ...)` calls.

    Args:
        rest: What follows "endpoint:".
        **options: See `EndpointModel`; `sampling` may be a dict.

    Raises:
        SettingsError: An unknown option or a value that cannot be used.
    """
    for option in options:
        if option not in OPTIONS:
            raise SettingsError(f"unknown option {option!r} for an endpoint. {suggest(option, OPTIONS)}")
    if isinstance(options.get("sampling"), dict):
        options["sampling"] = sampling_from(options["sampling"])
    return EndpointModel(rest, **options)


def client_module() -> Any:
    """`evenhand.models.endpoint_client`, which needs the openai package.

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
    """The name of the variable to blame and the key; "" where there is none.

    Raises:
        SettingsError: The variable named is not set. It is not quoted: somebody may have given the key itself.
    """
    if variable is None:
        held = next((name for name in KEY_VARIABLES if os.environ.get(name)), None)
        return held or KEY_VARIABLES[0], os.environ[held].strip() if held else ""
    if not re.fullmatch(r"[A-Za-z_]\w*", variable) or not os.environ.get(variable):
        raise SettingsError(
            "key_env takes the name of an environment variable that holds the API key, and the one given is not set; "
            "export it, or leave key_env out to use " + " or ".join(KEY_VARIABLES)
        )
    return variable, os.environ[variable].strip()


def _seed(seed: int, draw: int) -> int:
    """A seed per draw, within the 31 bits that every server takes."""
    return int.from_bytes(seeded_hash(seed, draw)[:4], "big") >> 1


def _complete(answer: Answered, body: dict[str, Any]) -> bool:
    """Whether the answer holds all that was asked; a server without logprobs today may have them tomorrow."""
    return answer.top is not None or not body.get("logprobs")


def _reply(answer: Answered | Failed) -> Reply:
    from evenhand.models.endpoint_client import Failed

    if isinstance(answer, Failed):
        return Reply(None, finished=False, note=answer.note)
    return Reply(answer.text.strip(), _usage(answer), answer.finished)


def _usage(answer: Answered) -> Usage:
    return Usage(1, answer.prompt_tokens, answer.new_tokens)


def _first(question: Question, answer: Answered | Failed) -> LetterReading:
    from evenhand.models.endpoint_client import Failed

    if isinstance(answer, Failed):
        return LetterReading(question, failed=answer.note)
    fault = fault_of(answer.top)
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
    return read.replied(answer.text, answer.finished, _usage(answer))


def _owner(content: bytes, model: str) -> str:
    """What the server's list of models says of whose this one is; "" where it says nothing."""
    try:
        cards: dict[str, Any] = {str(card["id"]): card for card in json.loads(content)["data"]}
        return str(cards[model].get("owned_by"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""
