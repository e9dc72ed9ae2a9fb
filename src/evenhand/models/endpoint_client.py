"""One request to an OpenAI-compatible server: secrets kept apart, failures classified, transient ones retried.

This module does not know about questions or caches. It needs the `openai` package (`pip install 'evenhand[endpoint]'`).
"""

from __future__ import annotations

import base64
import importlib
import logging
import os
import random
import time
import urllib.request
import weakref
from collections.abc import Callable, Sequence
from email.utils import parsedate_to_datetime
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Any, NamedTuple, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

import openai

from evenhand.core.redaction import Redactor
from evenhand.errors import EndpointError, SettingsError
from evenhand.models.endpoint_replies import Answered, UnreadableError, read_reply
from evenhand.models.endpoint_requests import other_limit, refused_field, sentence, wants_other_limit, without_field

LONGEST_WAIT = 60.0
"""Maximum wait before a retry, in seconds, even if a server's Retry-After asks for more."""
QUOTED = 300
"""Maximum number of characters of a server's error text that a note quotes."""

# openai 2 is built on httpx, openai 3 on httpx2: the transport must come from the one in use
_client_class = next(c for c in openai.DefaultHttpxClient.__mro__ if c.__name__ == "Client")
_http: Any = importlib.import_module(_client_class.__module__.partition(".")[0])

Body = TypeVar("Body")
Read = TypeVar("Read")


class Failed(NamedTuple):
    """A request that got no usable reply."""

    note: str
    fatal: bool = False
    """Whether every other request would fail in the same way."""
    status: int = 0
    """HTTP status of a refusal; 0 if no attempt was answered."""


SECRET_VARIABLES = ("EVENHAND_API_KEY", "OPENAI_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
"""Environment variables whose values are never stored or shown, whether or not they are sent."""
_FRAMING = frozenset({"content-encoding", "content-length", "transfer-encoding"})
"""Headers that no longer apply once the body has been decoded."""


class Address:
    """Address of a server: `url` and `model` may be shown to anyone; the rest is added to requests only."""

    def __init__(self, rest: str, key: str, scheme: str = "endpoint") -> None:
        """Parse "URL#model".

        Args:
            rest: The URL, which may contain user, password and a query string, and the model's name.
            key: The API key; "" if there is none.
            scheme: Scheme in front of the URL, for the error message.

        Raises:
            SettingsError: The text is not of that form. The message does not quote it, as it may contain a password.
        """
        address, _, self.model = rest.partition("#")
        try:
            parts = urlsplit(address.strip())
            userinfo, _, place = parts.netloc.rpartition("@")
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            usable = False
        if not usable or not self.model.strip():
            raise SettingsError(
                f"an endpoint is written {scheme}:URL#model, such as {scheme}:http://localhost:8000/v1#my-model; "
                + ("the URL cannot be read" if not usable else "the part after # (the model's name) is missing")
            )
        path = parts.path.rstrip("/").removesuffix("/chat/completions")
        self.url = urlunsplit((parts.scheme, place, path, "", ""))
        self.query = parts.query
        basic = base64.b64encode(unquote(userinfo).encode()).decode()
        self.authorization = f"Basic {basic}" if userinfo else f"Bearer {key or 'none'}"
        plain = [key, userinfo, *userinfo.split(":", 1), self.query, basic if userinfo else ""]
        plain += [value for _, value in parse_qsl(self.query)]
        through = urlsplit(_proxy(self.url) or "").netloc.rpartition("@")[0]
        plain += [through, *through.split(":", 1), *(os.environ.get(name, "").strip() for name in SECRET_VARIABLES)]
        self.redactor = Redactor(plain)
        """Masks all these secrets in what the server sends and in messages about it."""

    def redact(self, text: str) -> str:
        """Mask the secrets in a message; a short secret is replaced only where it is a whole word."""
        return self.redactor.message(text)


class _WithoutHeaders(logging.Filter):
    """Drops the log line in which the HTTP transport shows all headers of a reply, secrets included."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "receive_response_headers.complete" not in str(record.msg)


for _name in ("http11", "http2", "proxy", "socks"):  # loggers of httpcore (with httpx) or httpcore2 (with httpx2)
    logging.getLogger(f"{_http.__name__.replace('httpx', 'httpcore')}.{_name}").addFilter(_WithoutHeaders())


class _SecretTransport:
    """Adds the secrets below every layer that logs or raises, so that no library can show them.

    Replies are cleaned here as well: servers that echo a request put its key into replies, headers, errors
    and model names, all of which are stored or shown somewhere.
    """

    def __init__(self, address: Address, connections: int) -> None:
        limits = _http.Limits(max_connections=connections, max_keepalive_connections=connections)
        self._inner = _http.HTTPTransport(limits=limits, proxy=_proxy(address.url))
        self._address = address

    def handle_request(self, request: Any) -> Any:
        headers = request.headers.copy()
        headers["authorization"] = self._address.authorization
        url = request.url.copy_with(query=self._address.query.encode()) if self._address.query else request.url
        sent = _http.Request(request.method, url, headers=headers, stream=request.stream, extensions=request.extensions)
        return self._cleaned(self._inner.handle_request(sent))

    def _cleaned(self, reply: Any) -> Any:
        """Return the reply without secrets; its reason phrase follows from the status."""
        try:
            content = self._address.redactor.content(reply.read())
        finally:
            reply.close()
        headers = [(name, self._address.redact(value)) for name, value in reply.headers.multi_items()]
        kept = [(name, value) for name, value in headers if name.lower() not in _FRAMING]
        return _http.Response(reply.status_code, headers=kept, content=content)

    def close(self) -> None:
        self._inner.close()

    def __enter__(self) -> _SecretTransport:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _proxy(url: str) -> str | None:
    """Return the proxy that the environment sets; a client with a custom transport does not read it."""
    parts = urlsplit(url)
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


class EndpointClient:
    """Sends one request at a time; safe to use from several threads."""

    def __init__(
        self, address: Address, *, key_variable: str, timeout: float, connections: int, retries: int, backoff: float
    ) -> None:
        """Prepare the connection; nothing is sent yet.

        Args:
            address: Server, model and secrets.
            key_variable: Environment variable that the message names if the server refuses the key.
            timeout: Maximum time without a response from the server, in seconds.
            connections: Maximum number of requests at a time.
            retries: How often a request is retried.
            backoff: Seconds before the first retry; doubled each time.
        """
        self._address, self._key_variable = address, key_variable
        self._retries, self._backoff = retries, backoff
        self._other_limit = False  # whether the model requires max_completion_tokens
        # A redirect could send the key to another host, so it is reported and not followed.
        http = _http.Client(transport=_SecretTransport(address, connections), timeout=timeout, follow_redirects=False)
        weakref.finalize(self, http.close).atexit = False
        self._openai = openai.OpenAI(
            api_key="none", base_url=address.url, http_client=http, timeout=timeout, max_retries=0
        )

    def ask(self, body: dict[str, Any], stop: Event) -> Answered | Failed:
        """Send one chat completion until it is answered, refused or out of attempts.

        A model that does not accept `max_tokens` gets the limit as `max_completion_tokens` from then on. A field
        that a model accepts in no request ends the run: all others would be refused in the same way.
        """
        sent = other_limit(body) if self._other_limit else body
        outcome = self._asked(sent, stop)
        if isinstance(outcome, Failed) and outcome.status in _WRONG and wants_other_limit(outcome.note, sent):
            self._other_limit = True
            outcome = self._asked(other_limit(body), stop)
        if isinstance(outcome, Failed) and outcome.status in _WRONG and (name := refused_field(outcome.note, body)):
            return Failed(f"{sentence(outcome.note)} {without_field(name)}", fatal=True, status=outcome.status)
        return outcome

    def _asked(self, body: dict[str, Any], stop: Event) -> Answered | Failed:
        wants_top = bool(body.get("logprobs"))
        return self.send("/chat/completions", body, lambda content: read_reply(content, wants_top), stop)

    def send(
        self,
        path: str,
        body: dict[str, Any] | None,
        read: Callable[[bytes], Read],
        stop: Event,
        *,
        tries: int | None = None,
    ) -> Read | Failed:
        """Send one request until it is answered, refused or out of attempts; `stop` ends the waits in between.

        Args:
            path: Path below the server's URL, such as "/models".
            body: Body of a POST request; None sends a GET request.
            read: Parses a reply with status 200; if it raises `UnreadableError`, the request is retried.
            stop: Set when the reply is no longer needed.
            tries: Maximum number of attempts; None is one more than the client's `retries`.
        """
        tries = self._retries + 1 if tries is None else tries
        note, content = "", b""
        for attempt in range(tries):
            asked_for = 0.0
            try:
                content = self._once(path, body)
                return read(content)
            except openai.APIStatusError as error:
                status, note = error.status_code, self._quoted(error)
                if status in _HOPELESS or getattr(error, "code", None) == "insufficient_quota":
                    return Failed(self._fix(status, note), fatal=True, status=status)
                if status not in (408, 409, 429) and (status < 500 or status == 501):  # 501 is permanent
                    return Failed(note, status=status)
                asked_for = retry_after(error.response.headers.get("retry-after"))
            except openai.APITimeoutError:
                note = "the server did not answer in time"
            except openai.APIConnectionError as error:
                note = self._address.redact(f"no connection to {self._address.url} ({error.__cause__ or error})")
            except UnreadableError as error:
                note = f"the server sent no usable reply, {error}: {self._excerpt(content.decode(errors='replace'))}"
            if attempt < tries - 1 and stop.wait(self._pause(attempt, asked_for)):
                return Failed("stopped before it was answered")
        return Failed(f"{note} (tries: {tries})")

    def _once(self, path: str, body: dict[str, Any] | None) -> bytes:
        kind = _http.Response
        reply: Any = (
            self._openai.get(path, cast_to=kind) if body is None else self._openai.post(path, cast_to=kind, body=body)
        )
        content: bytes = reply.content
        return content

    def _pause(self, attempt: int, asked_for: float) -> float:
        """Return the seconds to wait: at least what the server asked for, with jitter so that clients spread out."""
        backoff = self._backoff * 2.0**attempt * random.uniform(0.5, 1.0)
        if asked_for:
            backoff = asked_for + self._backoff * random.uniform(0.0, 0.5)
        return min(LONGEST_WAIT, backoff)

    def _quoted(self, error: openai.APIStatusError) -> str:
        """Return the status and the server's own message, without secrets."""
        body: Any = error.body
        said = body.get("message") if isinstance(body, dict) else None
        text = said if isinstance(said, str) else error.response.text
        return f"the server answered {error.status_code}: {self._excerpt(text)}"

    def _excerpt(self, text: str) -> str:
        """Return the start of a text; it is cut after masking, so that no partial secret remains."""
        return " ".join(self._address.redact(text).split())[:QUOTED]

    def _fix(self, status: int, note: str) -> str:
        address = self._address
        if status == 401:  # the server's message is not quoted: it often contains part of the key
            return f"{address.url} refused the API key (401); set the environment variable {self._key_variable}"
        if status == 403 and "logprobs" in note:  # OpenAI's reply for models that think
            return f"{sentence(note)} {without_field('logprobs')}"
        if status == 403:
            return f"{sentence(note)} The key in {self._key_variable} may not use {address.model!r} at {address.url}"
        if status in (402, 429):
            return f"{sentence(note)} The account of {self._key_variable} has no credit left at {address.url}"
        return (
            f"{sentence(note)} Check the model name {address.model!r} and the URL {address.url}; "
            "for most servers the URL ends in /v1"
        )


_WRONG = frozenset({400, 422})
"""Statuses with which servers reject a request that they do not understand."""
_HOPELESS = frozenset({301, 302, 303, 307, 308, 401, 402, 403, 404, 405})


def retry_after(header: str | None) -> float:
    """Return the seconds that a Retry-After header asks for (a number or a date), at most `LONGEST_WAIT`."""
    if not header:
        return 0.0
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header).timestamp() - time.time()
        except ValueError:
            return 0.0
    return min(LONGEST_WAIT, seconds) if seconds > 0 else 0.0


Done = list[tuple[int, Answered | Failed]]


def ask_all(
    ask: Callable[[Body, Event], Read | Failed],
    bodies: Sequence[Body],
    concurrency: int,
    keep: Callable[[list[tuple[int, Read | Failed]]], None],
) -> None:
    """Ask in parallel, and pass on the outcomes in the calling thread as they arrive.

    The threads are daemons, unlike those of a ThreadPoolExecutor, for which the interpreter waits when it exits: after
    Ctrl-C or a refused key, nobody has to wait until the requests in progress time out.

    Raises:
        EndpointError: A request failed in a way in which all others would fail.
    """
    jobs: SimpleQueue[int] = SimpleQueue()
    done: SimpleQueue[tuple[int, Read | Failed | Exception]] = SimpleQueue()
    stop = Event()
    for row in range(len(bodies)):
        jobs.put(row)

    def work() -> None:
        while not stop.is_set() and (row := _next(jobs)) is not None:
            try:
                done.put((row, ask(bodies[row], stop)))
            except Exception as error:
                done.put((row, error))

    for _ in range(min(concurrency, len(bodies))):
        Thread(target=work, name="evenhand-endpoint", daemon=True).start()
    left = len(bodies)
    try:
        while left:
            came = [done.get(), *_waiting(done)]
            left -= len(came)
            _hand_over(came, keep)
            _refuse_fatal(came)
    finally:
        stop.set()
        _hand_over(_waiting(done), keep)


def _next(queue: SimpleQueue[Any]) -> Any:
    try:
        return queue.get_nowait()
    except Empty:
        return None


def _waiting(queue: SimpleQueue[Any]) -> list[Any]:
    return list(iter(lambda: _next(queue), None))


def _hand_over(came: list[tuple[int, Any]], keep: Callable[[list[tuple[int, Any]]], None]) -> None:
    usable = [(row, outcome) for row, outcome in came if not isinstance(outcome, Exception)]
    if usable:
        keep(usable)


def _refuse_fatal(came: list[tuple[int, Any]]) -> None:
    for _, outcome in came:
        if isinstance(outcome, Exception):
            raise outcome
        if isinstance(outcome, Failed) and outcome.fatal:
            raise EndpointError(outcome.note)
