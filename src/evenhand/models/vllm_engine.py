"""Token-id requests answered by a vLLM server: the verbs of `evenhand.inference.Engine` over HTTP.

Everything goes to `/v1/completions` with prompts of token ids, so that the local tokenizer decides and no text is
tokenised twice. The protocol is that of vLLM 0.33.0 (`vllm/entrypoints/openai/completion/protocol.py`, `serving.py`);
the parts used exist since 0.10.2 (`return_token_ids`), except for `logprob_token_ids`, which older servers
ignore: they are asked again for what is missing.

- Probabilities of given tokens: `prompt_logprobs=0` gives the log-probability of every token of the prompt. vLLM reads
  does not use its prefix cache for such requests (`SamplingParams.skip_reading_prefix_cache`).
- Probabilities of some next tokens (option letters): one new token with `logprobs` and `logprob_token_ids`. Prefixes
  are shared here.
- Replies: token ids are returned and decoded here, as for a local model. Draws differ from a local model's, since
  vLLM samples in its own way; they are as repeatable as the server allows (seed per prompt and draw).
"""

from __future__ import annotations

import json
import math
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import groupby
from threading import Event
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from evenhand.core import text_output
from evenhand.errors import EndpointError
from evenhand.inference import Generated, Prompt, Request
from evenhand.inference.batching import has_nan, read_once, told_apart, write_once
from evenhand.inference.cached import Emit
from evenhand.inference.requests import NOT_FINITE
from evenhand.inference.sampling import reply, row_seed
from evenhand.interfaces import Sampling
from evenhand.models.endpoint_client import EndpointClient, Failed, ask_all
from evenhand.models.endpoint_replies import UnreadableError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOP = 20
"""Number of next tokens that every server returns (the default of `--max-logprobs`)."""
CHOSEN = 128
"""Maximum number of `logprob_token_ids` in a request (vLLM's MAX_LOGPROB_TOKEN_IDS)."""
STOPS = 4
"""Maximum number of stop strings in a request (vLLM's VLLM_MAX_STOP_STRINGS); further ones are applied here."""
PLAIN = {
    "n": 1,
    "stream": False,
    "echo": False,
    "add_special_tokens": False,
    "return_token_ids": True,
    "return_tokens_as_token_ids": True,
    "top_k": -1,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
"""Fields of every request; the server would fill in missing ones from the model's generation config."""
FLOOR = -9999.0
"""Value that vLLM writes for -inf, which JSON cannot represent (`max(logprob, -9999.0)` in its `serving.py`)."""
ONE_TOKEN = {"max_tokens": 1, "temperature": 1.0, "top_p": 1.0}
"""Neutral settings: log-probabilities are the model's own even with `--logprobs-mode processed_logprobs`."""
NO_VLLM = "it must be vLLM 0.10.2 or newer; for other servers use endpoint:URL#model"

Job = TypeVar("Job")
Read = tuple[int, int]
Values = dict[Read, float]


class _Wanted(NamedTuple):
    """A prompt, and what is read from the reply."""

    row: int
    """Index of the request it belongs to."""
    ids: tuple[int, ...]
    reads: tuple[Read, ...]
    """Reads as in `Request`: either tokens of the prompt itself, or candidates for the token after it."""
    inside: bool
    """Whether the tokens read are the prompt's own."""


class VllmEngine:
    """Runs requests on one vLLM server, several at a time."""

    def __init__(
        self, client: EndpointClient, model: str, tokenizer: PreTrainedTokenizerBase, *, concurrency: int, batch: int
    ) -> None:
        """Make an engine for a server; nothing is sent yet.

        Args:
            client: Sends requests.
            model: Name of the model on the server.
            tokenizer: Tokenizer of the model.
            concurrency: Maximum number of requests at a time.
            batch: Maximum number of prompts in a request. Sampled replies are sent singly, since each has its own seed.
        """
        self._client, self._model, self._tokenizer = client, model, tokenizer
        self._concurrency, self._batch = concurrency, batch
        self._warned = False

    def read(self, requests: Sequence[Request], fingerprint: str) -> list[tuple[float, ...]]:
        """Return the log-probabilities of all requests' reads, in order; nan from the server is kept, with one warning.

        Raises:
            EndpointError: A request failed permanently; earlier answers are in the active cache.
        """
        values = read_once(requests, fingerprint, "read", self._score)
        if (broken := sum(map(has_nan, values))) and not self._warned:
            self._warned = True
            warnings.warn(
                f"{self._model} on the server: {NOT_FINITE} (nan) for {broken} of {len(values)} requests. Their items "
                "stay unanswered; start the server with --dtype bfloat16 or float32, or check the weights",
                stacklevel=3,
            )
        return values

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, fingerprint: str) -> list[Generated]:
        """Continue all prompts, in order. Greedy requests differ only in their ids, so their draws share one request.

        Raises:
            EndpointError: A request failed permanently; earlier answers are in the active cache.
        """
        prompts = told_apart(prompts, sampling)
        made = write_once(prompts, sampling, fingerprint, partial(self._continue, sampling))
        return [made[p] for p in prompts]

    # -------------------------------------------------------------------------------------------- log-probabilities

    def _score(self, todo: list[Request], emit: Emit[list[float]]) -> None:
        """Ask for all reads, then again for next tokens that an older server left out."""
        found: list[Values] = [{} for _ in todo]

        def keep(came: list[tuple[_Wanted, Values]]) -> None:
            for wanted, values in came:
                found[wanted.row].update(values)
            rows = sorted({w.row for w, _ in came if len(found[w.row]) == len(todo[w.row].reads)})
            emit(rows, [[found[i][pair] for pair in todo[i].reads] for i in rows])

        self._wanted([w for row, request in enumerate(todo) for w in _split(row, request)], keep)
        missing = [(row, r.ids, pair) for row, r in enumerate(todo) for pair in r.reads if pair not in found[row]]
        self._wanted([_Wanted(row, (*ids[: p + 1], t), ((p, t),), True) for row, ids, (p, t) in missing], keep)

    def _wanted(self, jobs: list[_Wanted], keep: Callable[[list[tuple[_Wanted, Values]]], None]) -> None:
        # sorted, so that prompts with a common beginning share the server's cache
        jobs = sorted(jobs, key=lambda w: (w.inside, () if w.inside else _tokens(w), w.ids))
        groups = [
            part
            for _, alike in groupby(jobs, key=lambda w: (w.inside, () if w.inside else _tokens(w)))
            for part in _parts(list(alike), self._batch)
        ]
        self._ask(groups, self._reading, keep)

    def _reading(self, group: list[_Wanted]) -> tuple[dict[str, Any], Callable[[bytes], list[Values] | Failed]]:
        """Return the body for a group, and the function that reads its reply."""
        body = {**PLAIN, **ONE_TOKEN, "model": self._model, "prompt": [list(w.ids) for w in group]}
        if group[0].inside:
            return {**body, "prompt_logprobs": 0}, partial(_read_inside, group)
        return {**body, "logprobs": TOP, "logprob_token_ids": list(_tokens(group[0]))}, partial(_read_next, group)

    # ------------------------------------------------------------------------------------------------------ replies

    def _continue(self, sampling: Sampling, todo: list[Prompt], emit: Emit[list[Any]]) -> None:
        rows = sorted(range(len(todo)), key=lambda i: todo[i].ids)
        groups = _parts(rows, self._batch if sampling.temperature == 0 else 1)

        def request(group: list[int]) -> tuple[dict[str, Any], Callable[[bytes], list[Generated] | Failed]]:
            asked = [todo[i] for i in group]
            return self._writing(asked, sampling), partial(self._read_replies, len(asked), sampling)

        def keep(came: list[tuple[int, Generated]]) -> None:
            emit([row for row, _ in came], [list(made) for _, made in came])

        self._ask(groups, request, keep)

    def _writing(self, asked: list[Prompt], sampling: Sampling) -> dict[str, Any]:
        end = self._tokenizer.eos_token_id
        body = {
            **PLAIN,
            "model": self._model,
            "prompt": [list(p.ids) for p in asked],
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_new_tokens,
            "stop": list(sampling.stop[:STOPS]),
            "stop_token_ids": [] if end is None else [int(end)],
        }
        if sampling.temperature > 0:
            body["seed"] = row_seed(asked[0], sampling.seed) >> 65  # servers accept 63 bits
        return body

    def _read_replies(self, count: int, sampling: Sampling, content: bytes) -> list[Generated] | Failed:
        made = []
        for choice in _choices(content, count):
            new = choice.get("token_ids")
            if new is None:
                return Failed(f"the server gave no token ids of its replies (return_token_ids): {NO_VLLM}", fatal=True)
            ended = choice.get("finish_reason") == "stop" and not isinstance(choice.get("stop_reason"), str)
            ends = frozenset(new[-1:]) if ended else frozenset()
            made.append(reply(new, ends, sampling, self._tokenizer))
        return made

    # ------------------------------------------------------------------------------------------------------- asking

    def _ask(
        self,
        groups: list[list[Job]],
        request: Callable[[list[Job]], tuple[dict[str, Any], Callable[[bytes], list[Any] | Failed]]],
        keep: Callable[[list[tuple[Job, Any]]], None],
    ) -> None:
        """Send all groups and pass on the replies; failures are raised at the end, so that no reply is lost."""
        failed: list[tuple[int, str]] = []

        def send(group: list[Job], stop: Event) -> list[Any] | Failed:
            body, read = request(group)
            return self._client.send("/completions", body, read, stop)

        def came(done: list[tuple[int, list[Any] | Failed]]) -> None:
            for at, outcome in done:
                if isinstance(outcome, Failed):
                    failed.append((len(groups[at]), outcome.note))
                else:
                    keep(list(zip(groups[at], outcome, strict=True)))

        ask_all(send, groups, self._concurrency, came)
        if failed:
            total = sum(len(group) for group in groups)
            raise EndpointError(
                f"{sum(n for n, _ in failed)} of {total} prompts were not answered, the first because {failed[0][1]}. "
                "Run again to ask for these only: with an answer cache, the answers so far are kept"
            )


def _split(row: int, request: Request) -> Iterator[_Wanted]:
    """Yield the prompts for a request: one for tokens of the request itself, and one for each position of others."""
    elsewhere: dict[int, list[int]] = defaultdict(list)
    inside: list[Read] = []
    ids, last = request.ids, len(request.ids) - 1
    for p, t in request.reads:
        if p < last and ids[p + 1] == t:
            inside.append((p, t))
        else:
            elsewhere[p].append(t)
    if inside:
        if elsewhere[last]:  # the first token after the prompt is read along with it
            inside.append((last, elsewhere[last].pop(0)))
            ids = (*ids, inside[-1][1])
        yield _Wanted(row, ids, tuple(inside), True)
    for p, tokens in elsewhere.items():
        for part in _parts(tokens, CHOSEN):
            yield _Wanted(row, request.ids[: p + 1], tuple((p, t) for t in part), False)


def _tokens(wanted: _Wanted) -> tuple[int, ...]:
    return tuple(t for _, t in wanted.reads)


def _parts(rows: list[Job], size: int) -> list[list[Job]]:
    return [rows[i : i + size] for i in range(0, len(rows), size)]


def _choices(content: bytes, count: int) -> list[dict[str, Any]]:
    """Return the choices of a completion, one per prompt, in order.

    Raises:
        UnreadableError: The reply is not a completion of that many prompts.
    """
    try:
        choices: list[dict[str, Any]] = sorted(json.loads(content)["choices"], key=lambda c: c["index"])
        indices = [choice["index"] for choice in choices]
    except (ValueError, KeyError, TypeError) as error:
        raise UnreadableError(f"{type(error).__name__} while reading it") from None
    if indices != list(range(count)):
        raise UnreadableError(f"it has the choices {indices} for {count} prompts")
    return choices


def _read_inside(group: list[_Wanted], content: bytes) -> list[Values] | Failed:
    out: list[Values] = []
    for wanted, choice in zip(group, _choices(content, len(group)), strict=True):
        table = choice.get("prompt_logprobs")
        if table is None:
            return Failed(f"the server returned no prompt_logprobs: {NO_VLLM}", fatal=True)
        try:
            out.append({(p, t): _number(table[p + 1][str(t)]["logprob"]) for p, t in wanted.reads})
        except (IndexError, KeyError, TypeError, ValueError) as error:
            raise UnreadableError(f"{type(error).__name__} while reading its prompt_logprobs") from None
    return _no_logits(out)


def _read_next(group: list[_Wanted], content: bytes) -> list[Values] | Failed:
    """Read the wanted next tokens that are there; an older server returns only the most probable ones."""
    out: list[Values] = []
    for wanted, choice in zip(group, _choices(content, len(group)), strict=True):
        try:
            top = choice["logprobs"]["top_logprobs"][0]
            out.append({(p, t): _number(top[f"token_id:{t}"]) for p, t in wanted.reads if f"token_id:{t}" in top})
        except (IndexError, KeyError, TypeError, ValueError) as error:
            raise UnreadableError(f"{type(error).__name__} while reading its logprobs") from None
    return _no_logits(out)


def _number(value: Any) -> float:
    """Read a log-probability; impossible tokens get -inf back, and nan may be written as null."""
    number = math.nan if value is None else float(value)
    return -math.inf if number <= FLOOR else number


def _no_logits(read: list[Values]) -> list[Values] | Failed:
    largest = max((value for values in read for value in values.values() if not math.isnan(value)), default=0.0)
    if largest > 1e-3:
        return Failed(
            f"the server returned {text_output.number(largest)} as a log-probability; "
            "start it with --logprobs-mode raw_logprobs",
            fatal=True,
        )
    return read
