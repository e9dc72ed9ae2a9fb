"""One thread between many requests and a model that works on whole lists."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from threading import Thread

from evenhand.integrations.openai_server.answering import Answer, Job

Waiting = tuple[Job, "Future[Answer]"]

WINDOW = 0.005
"""Seconds that the first of a list waits for others."""
MOST = 256
"""Most jobs in a list."""


class Gatherer:
    """Collects what waits and hands it over together; while a list is being answered the next one fills."""

    def __init__(self, answer: Callable[[list[Job]], list[Answer | Exception]]) -> None:
        """Start the thread.

        Args:
            answer: One outcome per job, in order. Only the thread calls it, so it need not be safe for several.
        """
        self._answer = answer
        self._queue: SimpleQueue[Waiting | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name="evenhand-serving", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether anybody will answer."""
        return self._thread.is_alive()

    def submit(self, job: Job) -> Future[Answer]:
        """Put a job in line; one that is cancelled before its turn is skipped."""
        future: Future[Answer] = Future()
        self._queue.put((job, future))
        return future

    def close(self) -> None:
        """Answer what is in line so far, then end."""
        self._queue.put(None)

    def _work(self) -> None:
        while batch := self._batch():
            taken = [(job, future) for job, future in batch if future.set_running_or_notify_cancel()]
            if not taken:
                continue
            try:
                outcomes = self._answer([job for job, _ in taken])
            except BaseException as error:  # nobody may wait for ever
                for _, future in taken:
                    future.set_exception(error)
                if not isinstance(error, Exception):
                    raise
                continue
            for (_, future), outcome in zip(taken, outcomes, strict=True):
                if isinstance(outcome, Exception):
                    future.set_exception(outcome)
                else:
                    future.set_result(outcome)

    def _batch(self) -> list[Waiting]:
        """What waits within the window after the first job; nothing at the end."""
        first = self._queue.get()
        if first is None:
            return []
        batch, until = [first], time.monotonic() + WINDOW
        while len(batch) < MOST:
            try:
                more = self._queue.get(timeout=max(0.0, until - time.monotonic()))
            except Empty:
                break
            if more is None:
                self._queue.put(None)
                break
            batch.append(more)
        return batch
