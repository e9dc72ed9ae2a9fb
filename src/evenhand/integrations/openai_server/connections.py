"""Connections that close on clients that send or read too slowly: uvicorn by itself waits for these for ever."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from starlette.types import ASGIApp
from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol

from evenhand.integrations.openai_server.limits import Limits

SHUTDOWN_SECONDS = 5
"""Seconds that open requests may take after the server is asked to end."""
REST_SECONDS = 5.0
"""Seconds for which the rest of a body is discarded after its request was refused: a client that keeps sending would
otherwise find the connection reset, and never read the refusal."""


def configured(app: ASGIApp, limits: Limits) -> Config:
    """Configure uvicorn to run an application on connections within limits.

    Args:
        app: Application that takes the requests.
        limits: How long heads and reading clients may take, and how many connections there may be.
    """

    class Limited(_Connection):
        bounds = limits

    return Config(
        app, http=Limited, ws="none", log_level="warning", access_log=False, timeout_graceful_shutdown=SHUTDOWN_SECONDS
    )


class _Connection(H11Protocol):
    """One connection, with a timer for each way in which a client can keep it waiting."""

    bounds: Limits

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._head: asyncio.TimerHandle | None = None
        self._rest: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the head of the first request; refuse the connection if there are too many."""
        super().connection_made(transport)
        if len(self.connections) > self.bounds.max_connections:
            transport.abort()
            return
        transport.set_write_buffer_limits(high=0)  # otherwise up to 64 KiB that a client leaves unread go unnoticed
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Pass on what arrived, and wait for the rest of a head."""
        if self._head is None and self._between_requests:
            self._await_head()
        super().data_received(data)
        if not self._between_requests:
            self._head = _stopped(self._head)
        if self.conn.their_state is not h11.SEND_BODY:
            self._rest = _stopped(self._rest)

    def on_response_complete(self) -> None:
        """Discard for a while what still arrives of a request that was answered before its end."""
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY and self._rest is None:
            self._rest = self.loop.call_later(REST_SECONDS, self.transport.abort)

    def pause_writing(self) -> None:
        """Start a timer for a client that does not read."""
        super().pause_writing()
        if self._unread is None:
            self._unread = self.loop.call_later(self.bounds.read_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop the timer: the client has read everything."""
        self._unread = _stopped(self._unread)
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all timers."""
        self._head, self._rest, self._unread = map(_stopped, (self._head, self._rest, self._unread))
        super().connection_lost(exc)
        self._unset_keepalive_if_required()

    @property
    def _between_requests(self) -> bool:
        return self.conn.their_state is h11.IDLE

    def _await_head(self) -> None:
        self._head = self.loop.call_later(self.bounds.head_seconds, self.transport.abort)


def _stopped(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """Cancel a timer, and return None in its place."""
    if timer is not None:
        timer.cancel()
    return None
