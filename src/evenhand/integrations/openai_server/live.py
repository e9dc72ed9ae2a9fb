"""Replies that are sent while they are written: from the thread that writes them to the event loop that sends them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from functools import partial
from threading import Event
from typing import Any, NamedTuple

from evenhand.integrations.openai_server.answering import Answer, Job
from evenhand.integrations.openai_server.gathering import Gatherer


class Heard(NamedTuple):
    """A part of one of several replies."""

    choice: int
    said: str | Answer | BaseException
    """A piece of its text, the whole reply, or the error in its place."""


class Live:
    """The replies to some jobs, as they are written."""

    def __init__(self, gatherer: Gatherer, jobs: Sequence[Job]) -> None:
        """Add the jobs to the queue; called from a running event loop.

        Raises:
            FullError: They do not fit into the queue.
        """
        self._loop, self._queue = asyncio.get_running_loop(), asyncio.Queue[Heard]()
        self._left = Event()
        self._futures = gatherer.submit(
            [
                replace(job, tell=partial(self._hear, index), wanted=lambda: not self._left.is_set())
                for index, job in enumerate(jobs)
            ]
        )
        for index, future in enumerate(self._futures):
            future.add_done_callback(partial(self._finished, index))

    async def first(self, gone: Coroutine[Any, Any, None]) -> Heard | None:
        """Return what arrives first; None if the client disconnects before.

        Args:
            gone: Ends when the client is gone.
        """
        came, left = asyncio.ensure_future(self._queue.get()), asyncio.ensure_future(gone)
        either: set[asyncio.Future[Any]] = {came, left}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            left.cancel()
            if not came.done():
                came.cancel()
                self.leave()
        return came.result() if came.done() and not came.cancelled() else None

    async def rest(self, first: Heard) -> AsyncIterator[Heard]:
        """Yield everything from the first on, until every job has its reply or its error."""
        heard, left = first, len(self._futures)
        try:
            while True:
                left -= not isinstance(heard.said, str)
                yield heard
                if not left:
                    return
                heard = await self._queue.get()
        finally:
            self.leave()

    def leave(self) -> None:
        """Remove the jobs that are not being worked on from the queue, and end the others where they are."""
        self._left.set()
        for future in self._futures:
            future.cancel()

    def _hear(self, index: int, said: str | Answer | BaseException) -> None:
        with suppress(RuntimeError):  # the loop is closed, and nobody waits any longer
            self._loop.call_soon_threadsafe(self._queue.put_nowait, Heard(index, said))

    def _finished(self, index: int, future: Future[Answer]) -> None:
        if future.cancelled():
            return
        error = future.exception()
        self._hear(index, future.result() if error is None else error)
