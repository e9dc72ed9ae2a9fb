"""Reads the body of a request, as far as it may go, before anything else looks at the request.

A body that is too large is refused by its Content-Length, or while it comes, so that at most the limit is ever held.
"""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from evenhand.integrations.openai_server.limits import MIB, Limits
from evenhand.integrations.openai_server.refusal import RefusedError


class _GoneError(Exception):
    """The client hung up in the middle of its request."""


class BodyLimits:
    """Hands on requests with their bodies, all within the limits."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        """Wrap an application.

        Args:
            app: What takes the requests.
            limits: How large and how slow bodies may be.
        """
        self._app, self._limits, self._held = app, limits, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body, then hand on the request; refuse it with status 408, 413 or 429."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body()
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                await self._read(body, _content_length(scope), receive)
        except _GoneError:
            return  # nobody is there to be told
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
        """Refuse what would be too much with so many bytes more."""
        limits = self._limits
        if body.size + more > limits.body_bytes:
            said = f"the body is larger than the {limits.max_body_mib} MiB that this server takes; send less at a time"
            raise RefusedError(413, said, code="request_too_large")
        if self._held + more > limits.waiting_bytes:
            said = f"the open requests have {limits.waiting_bytes // MIB} MiB together; ask again later"
            raise RefusedError(429, said, code="server_busy", retry_after=1)


class _Body:
    """What came of one body."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self.size = 0

    def add(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        self.size += len(chunk)

    def replayed(self, receive: Receive) -> Receive:
        """The whole body as one message, and afterwards what else comes."""
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
    """What the head announces; 0 where it says nothing, as where the body comes in chunks."""
    given: bytes = dict(scope["headers"]).get(b"content-length", b"0")
    return int(given) if given.isdigit() else 0
