"""A queue between many requests and a model that works on whole lists, served by one thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from itertools import islice
from threading import Condition, Thread

from evenhand.integrations.openai_server.answering import Answer, Job

Waiting = tuple[Job, "Future[Answer]"]


class FullError(Exception):
    """The queue is full, and no more jobs are taken."""

    def __init__(self, waiting: int, seconds: float) -> None:
        """Describe how full the queue is.

        Args:
            waiting: Number of jobs that wait or are being answered.
            seconds: Time that the last list of jobs took.
        """
        super().__init__(f"{waiting} replies are waiting or being written")
        self.waiting, self.seconds = waiting, seconds


WINDOW = 0.005
"""Seconds for which the first job of a list waits for others."""
MOST = 256
"""Maximum number of jobs in a list."""


class Gatherer:
    """Collects waiting jobs into lists; while one list is being answered, the next one fills."""

    def __init__(self, answer: Callable[[list[Job]], list[Answer | Exception]], max_queue: int | None = None) -> None:
        """Start the thread.

        Args:
            answer: Returns one outcome per job, in order. Only this thread calls it, so it need not be thread-safe.
            max_queue: Maximum number of jobs that wait or are being answered; None takes any number.
        """
        self._answer, self._max_queue = answer, max_queue
        self._queue: dict[Future[Answer], Job] = {}
        self._changed = Condition()
        self._closed, self._working, self._seconds = False, 0, 0.0
        self._thread = Thread(target=self._work, name="evenhand-serving", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread that answers is running."""
        return self._thread.is_alive()

    def submit(self, jobs: Sequence[Job]) -> list[Future[Answer]]:
        """Add jobs to the queue, all of them or none; one that is cancelled before its turn leaves the queue.

        Raises:
            FullError: They do not fit into the queue.
        """
        made: dict[Future[Answer], Job] = {Future(): job for job in jobs}
        with self._changed:
            before = len(self._queue) + self._working
            if self._max_queue is not None and before + len(made) > self._max_queue:
                raise FullError(before, self._seconds)
            self._queue.update(made)
            self._changed.notify()
        for future in made:
            future.add_done_callback(self._forget)
        return list(made)

    def close(self) -> None:
        """Answer what is in the queue so far, then end."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _forget(self, future: Future[Answer]) -> None:
        """Remove a job that nobody waits for from the queue, which frees its memory."""
        if future.cancelled():
            with self._changed:
                self._queue.pop(future, None)

    def _work(self) -> None:
        while (batch := self._batch()) is not None:
            begun = time.monotonic()
            taken = [(job, future) for job, future in batch if future.set_running_or_notify_cancel()]
            if taken:
                self._answer_to(taken)
            del batch, taken
            with self._changed:
                self._working, self._seconds = 0, time.monotonic() - begun

    def _answer_to(self, taken: Sequence[Waiting]) -> None:
        try:
            outcomes = self._answer([job for job, _ in taken])
        except BaseException as error:  # otherwise the clients would wait for ever
            for _, future in taken:
                future.set_exception(error)
            if not isinstance(error, Exception):
                raise
            return
        for (_, future), outcome in zip(taken, outcomes, strict=True):
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

    def _batch(self) -> list[Waiting] | None:
        """Return the jobs that arrive within the window after the first one; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closed)
            self._changed.wait_for(lambda: self._closed or len(self._queue) >= MOST, timeout=WINDOW)
            if not self._queue and self._closed:
                return None
            futures = list(islice(self._queue, MOST))
            self._working = len(futures)
            return [(self._queue.pop(future), future) for future in futures]
