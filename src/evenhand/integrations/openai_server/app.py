"""The routes: /v1/models, /v1/chat/completions, /v1/completions, /health."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from threading import Event
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from evenhand.errors import (
    ContextTooLongError,
    EndpointError,
    EvenhandError,
    MissingAbilityError,
    SettingsError,
    suggest,
)
from evenhand.integrations.openai_server.answering import Answer, Answerer, Job
from evenhand.integrations.openai_server.bodies import BodyLimits
from evenhand.integrations.openai_server.counting import counted_route
from evenhand.integrations.openai_server.gathering import FullError, Gatherer
from evenhand.integrations.openai_server.limits import Limits
from evenhand.integrations.openai_server.live import Heard, Live
from evenhand.integrations.openai_server.protocol import (
    STREAM_END,
    ChatRequest,
    CompletionRequest,
    Writer,
    error_event,
    usage_of,
)
from evenhand.integrations.openai_server.refusal import RefusedError
from evenhand.interfaces import Model

COMPLETION_TOKENS = 16
"""Maximum number of new tokens of a completion whose request gives none, as in the protocol."""
LONGEST_RETRY = 60
"""Maximum number of seconds that a client is asked to wait before it tries again."""
CHANGED = "the tokenizer rewrote what was sent already; ask for this reply without stream"


class _ClientGoneError(Exception):
    """The client no longer waits for the reply."""


class _Server:
    """A model and the name that clients call it by."""

    def __init__(self, model: Model, name: str | None, max_tokens: int, limits: Limits) -> None:
        self.limits, self.tokenising = limits, asyncio.Lock()
        self.answerer, self.name, self.max_tokens = Answerer(model), name or model.name, max_tokens
        self.fingerprint, self.since = model.fingerprint, int(time.time())
        self.gatherer: Gatherer | None = None

    @asynccontextmanager
    async def running(self, _: FastAPI) -> AsyncIterator[None]:
        self.gatherer = Gatherer(lambda jobs: self.answerer.answer(jobs), self.limits.max_queue)
        try:
            yield
        finally:
            self.gatherer.close()

    def health(self) -> Response:
        alive = self.gatherer is not None and self.gatherer.alive
        return JSONResponse({"status": "ok" if alive else "down"}, status_code=200 if alive else 503)

    def card(self) -> dict[str, Any]:
        context = None if self.answerer.plain is None else self.answerer.plain.context_length
        card = {"id": self.name, "object": "model", "created": self.since, "owned_by": "evenhand"}
        return card if context is None or context >= 10**8 else {**card, "max_model_len": context}

    def check_name(self, asked: str) -> None:
        if asked != self.name:
            message = f"the model {asked!r} does not exist here. {suggest(asked, [self.name])}"
            raise RefusedError(404, message, code="model_not_found", param="model")

    async def chat(self, body: ChatRequest, request: Request) -> Response:
        self.check_name(body.model)
        if body.logprobs:
            self.answerer.local()
        self.check_length(body.texts, "messages")
        return await self.respond(body, body.jobs(self.max_tokens), 1, request)

    async def completion(self, body: CompletionRequest, request: Request) -> Response:
        self.check_name(body.model)
        if body.logprobs is not None or body.echo:
            self.answerer.scored()
        for prompt in body.prompts:
            self.check_length([prompt] if isinstance(prompt, str) else [], "prompt")
        async with self.tokenising:  # in a thread, so that the loop serves all others meanwhile
            prompts = await asyncio.to_thread(self.answerer.prompts, body.prompts)
        if not prompts:
            raise RefusedError(400, "give at least one prompt", param="prompt")
        return await self.respond(body, body.jobs(prompts, COMPLETION_TOKENS), len(prompts), request)

    def check_length(self, texts: Sequence[str], field: str) -> None:
        """Refuse texts far beyond the context before they are tokenised, which would take long.

        Raises:
            RefusedError: The texts are too long; the message gives both numbers.
        """
        context = self.answerer.context_length
        length, most = sum(map(len, texts)), self.limits.characters(context)
        if most is not None and length > most:
            message = (
                f"{field}: {length} characters are more than {most}, {self.limits.max_characters_per_token} for each "
                f"of the {context} tokens of the context; shorten the text"
            )
            raise RefusedError(400, message, code="context_length_exceeded", param=field)

    async def respond(
        self, body: ChatRequest | CompletionRequest, jobs: list[Job], prompts: int, request: Request
    ) -> Response:
        """Reply, whole or in pieces; pieces are sent while they are written, if the model allows it."""
        if len(jobs) > self.limits.max_queue:
            raise RefusedError(
                400, f"{len(jobs)} replies are asked for; this server takes at most {self.limits.max_queue}", param="n"
            )
        writer = Writer(self.name, self.fingerprint, chat=isinstance(body, ChatRequest))
        if body.stream and self.answerer.streams and all(job.top is None for job in jobs):
            return await self.live(writer, body, jobs, prompts, request)
        answers = await self.answers(jobs, request)
        usage = usage_of(answers, prompts)
        if body.stream:
            pieces = writer.pieces(answers, usage if body.usage_in_stream else None)
            return StreamingResponse(pieces, media_type="text/event-stream")
        return JSONResponse(writer.whole(answers, usage))

    async def live(
        self, writer: Writer, body: ChatRequest | CompletionRequest, jobs: list[Job], prompts: int, request: Request
    ) -> Response:
        """Reply with a stream that begins with the first words; an error before them is refused with a status."""
        live = Live(self.running_gatherer(), jobs)
        first = await live.first(_hung_up(request))
        if first is None:
            raise _ClientGoneError
        if isinstance(first.said, BaseException):
            live.leave()
            raise first.said
        events = _events(writer, live.rest(first), prompts, body.usage_in_stream)
        return StreamingResponse(events, media_type="text/event-stream")

    def running_gatherer(self) -> Gatherer:
        if self.gatherer is None:
            raise RefusedError(503, "the server is starting; try again")
        return self.gatherer

    async def answers(self, jobs: list[Job], request: Request) -> list[Answer]:
        """Wait for the answers; jobs of a client that disconnects leave the queue, or end where they are.

        Raises:
            _ClientGoneError: The client disconnected.
            FullError: Too many replies are waiting.
        """
        gatherer, left = self.running_gatherer(), Event()
        mine = [replace(job, wanted=lambda: not left.is_set()) for job in jobs]
        together = asyncio.gather(*map(asyncio.wrap_future, gatherer.submit(mine)))
        together.add_done_callback(_retrieved)
        gone = asyncio.ensure_future(_hung_up(request))
        either: set[asyncio.Future[Any]] = {together, gone}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            left.set()
            if not together.done():
                together.cancel()
        if together.cancelled() or not together.done():
            raise _ClientGoneError
        return together.result()


async def _events(writer: Writer, heard: AsyncIterator[Heard], prompts: int, usage_wanted: bool) -> AsyncIterator[str]:
    """Yield server-sent events of replies that are being written; choices are interleaved as their pieces arrive."""
    sent: dict[int, str] = {}
    answers: dict[int, Answer] = {}
    async for index, said in heard:
        if isinstance(said, BaseException):
            refused = _of_model(said) if isinstance(said, EvenhandError) else RefusedError(500, "the model failed")
            yield error_event(refused.body())
            yield STREAM_END
            return
        if index not in sent:
            sent[index] = ""
            yield writer.opening(index)
        if isinstance(said, str):
            sent[index] += said
            for event in writer.words(index, said):
                yield event
        elif not said.text.startswith(sent[index]):
            yield error_event(RefusedError(500, CHANGED).body())
            yield STREAM_END
            return
        else:
            answers[index] = said
            for event in writer.closing(index, said, sent[index]):
                yield event
    usage = usage_of([answers[i] for i in sorted(answers)], prompts) if usage_wanted else None
    for event in writer.end(usage):
        yield event


def _retrieved(together: asyncio.Future[Any]) -> None:
    """Retrieve the exception of jobs that nobody waits for: asyncio would log it otherwise."""
    if not together.cancelled():
        together.exception()


async def _hung_up(request: Request) -> None:
    """Wait until the client is gone; the body was read before, so no other message can come."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


class _KeyCheck:
    """Refuses requests without the key before anything else of them is read; /health is open to all."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app, self._key = app, key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] != "/health":
            scheme, _, given = dict(scope["headers"]).get(b"authorization", b"").partition(b" ")
            right = hmac.compare_digest(given.strip(), self._key)
            if not right or scheme.lower() != b"bearer":
                message = "the API key is missing or wrong; send it as 'Authorization: Bearer KEY'"
                await RefusedError(401, message, code="invalid_api_key").response()(scope, receive, send)
                return
        await self._app(scope, receive, send)


def build_app(
    model: Model,
    *,
    name: str | None = None,
    key: str | None = None,
    max_tokens: int = 256,
    limits: Limits | None = None,
) -> FastAPI:
    """Make an ASGI application that serves a model.

    Args:
        model: The model that answers; it must be able to write.
        name: Name that clients use; the model's own name by default.
        key: Key that clients must send as bearer token; None lets everyone in.
        max_tokens: Maximum number of new tokens of a chat reply whose request gives none.
        limits: How much a request, and all together, may take; None is the defaults of `Limits`. Connections are
            limited by `connections.configured` only, with which `serve` runs the application.

    Raises:
        MissingAbilityError: The model cannot write.
    """
    limits = limits or Limits()
    server = _Server(model, name, max_tokens, limits)
    # strict: a page in a browser may send plain text to this machine without asking, but not JSON
    app = FastAPI(lifespan=server.running, openapi_url=None, strict_content_type=True)
    routes = APIRouter(prefix="/v1", route_class=counted_route(limits))
    app.add_middleware(BodyLimits, limits=limits)
    if key is not None:
        app.add_middleware(_KeyCheck, key=key)

    @routes.get("/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [server.card()]}

    @routes.get("/models/{asked:path}")
    async def one_model(asked: str) -> dict[str, Any]:
        server.check_name(asked)
        return server.card()

    @routes.post("/chat/completions")
    async def chat(body: ChatRequest, request: Request) -> Response:
        return await server.chat(body, request)

    @routes.post("/completions")
    async def completions(body: CompletionRequest, request: Request) -> Response:
        return await server.completion(body, request)

    app.get("/health")(server.health)
    app.include_router(routes)
    _handle_errors(app)
    return app


def _handle_errors(app: FastAPI) -> None:
    """Send every error in the protocol's form, and none with a traceback."""

    @app.exception_handler(RefusedError)
    async def refused(_: Request, error: RefusedError) -> Response:
        return error.response()

    @app.exception_handler(_ClientGoneError)
    async def gone(_: Request, __: Exception) -> Response:
        return Response(status_code=499)

    @app.exception_handler(FullError)
    async def full(_: Request, error: FullError) -> Response:
        message = f"{error}, and this server takes no more; ask again later"
        wait = min(LONGEST_RETRY, error.seconds)
        return RefusedError(429, message, code="server_busy", retry_after=wait).response()

    @app.exception_handler(HTTPException)
    async def no_route(request: Request, error: HTTPException) -> Response:
        return RefusedError(error.status_code, f"{request.method} {request.url.path}: {error.detail}").response()

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, error: RequestValidationError) -> Response:
        return _malformed(error).response()

    @app.exception_handler(EvenhandError)
    async def ours(_: Request, error: EvenhandError) -> Response:
        return _of_model(error).response()

    @app.exception_handler(Exception)
    async def broken(_: Request, error: Exception) -> Response:
        return RefusedError(500, "the model failed; the server's log says why").response()


def _malformed(error: RequestValidationError) -> RefusedError:
    """Name the first fields that are wrong, without quoting their values."""
    found = []
    for detail in error.errors():
        place = ".".join(str(part) for part in detail["loc"][1:] if not str(part).startswith(("list[", "str")))
        message = str(detail["msg"]).removeprefix("Value error, ")
        found.append((place, f"{place}: {message}" if place else message))
    return RefusedError(400, "; ".join(text for _, text in found[:3]), param=found[0][0] or None)


def _of_model(error: EvenhandError) -> RefusedError:
    """Convert an error of the model to a refusal with an HTTP status."""
    if isinstance(error, ContextTooLongError):
        said = str(error).split(";")[0]
        message = f"{said} (prompt and max_tokens together); shorten the messages or lower max_tokens"
        return RefusedError(400, message, code="context_length_exceeded")
    if isinstance(error, SettingsError | MissingAbilityError):
        return RefusedError(400, str(error))
    return RefusedError(502 if isinstance(error, EndpointError) else 500, str(error))
