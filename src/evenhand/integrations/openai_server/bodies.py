"""Middleware that reads the body of a request, up to a limit, before anything else reads the request.

A body that is too large is refused by its Content-Length, or while it arrives, so that memory has at most the limit.
"""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from evenhand.integrations.openai_server.limits import MIB, Limits
from evenhand.integrations.openai_server.refusal import RefusedError


class _GoneError(Exception):
    """The client disconnected in the middle of its request."""


class BodyLimits:
    """Passes on requests with their bodies, if they are within the limits."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        """Wrap an application.

        Args:
            app: Application that takes the requests.
            limits: How large and how slow bodies may be.
        """
        self._app, self._limits, self._held = app, limits, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body, then pass on the request, or refuse it with status 408, 413 or 429."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body()
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                await self._read(body, _content_length(scope), receive)
        except _GoneError:
            return  # nobody would receive a reply
        except TimeoutError:
            said = f"the body did not arrive within {self._limits.body_seconds:g} seconds; send it faster or shorter"
            await RefusedError(408, said, close=True).response()(scope, receive, send)
        except RefusedError as refused:
            await refused.response()(scope, receive, send)
        else:
            await self._app(scope, body.replayed(receive), send)
        finally:
            self._held -= body.size

    async def _read(self, body: _Body, announced: int, receive: Receive) -> None:
        self._check(body, announced)
        more = True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                raise _GoneError
            chunk = message.get("body", b"")
            self._check(body, len(chunk))
            body.add(chunk)
            self._held += len(chunk)
            more = message.get("more_body", False)

    def _check(self, body: _Body, more: int) -> None:
        """Refuse a body that would exceed a limit with this many more bytes."""
        limits = self._limits
        if body.size + more > limits.body_bytes:
            said = f"the body is larger than the {limits.max_body_mib} MiB that this server takes; send less at a time"
            raise RefusedError(413, said, code="request_too_large")
        if self._held + more > limits.waiting_bytes:
            said = f"the bodies of all open requests may have {limits.waiting_bytes // MIB} MiB in all; ask again later"
            raise RefusedError(429, said, code="server_busy", retry_after=1)


class _Body:
    """The part of a body that has arrived."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self.size = 0

    def add(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        self.size += len(chunk)

    def replayed(self, receive: Receive) -> Receive:
        """Return a channel that gives the whole body as one message, and afterwards what else arrives."""
        told = False

        async def first() -> Message:
            nonlocal told
            if told:
                return await receive()
            told, content = True, b"".join(self._chunks)
            self._chunks.clear()
            return {"type": "http.request", "body": content, "more_body": False}

        return first


def _content_length(scope: Scope) -> int:
    """Return the announced length; 0 if there is none, as when the body comes in chunks."""
    given: bytes = dict(scope["headers"]).get(b"content-length", b"0")
    return int(given) if given.isdigit() else 0
