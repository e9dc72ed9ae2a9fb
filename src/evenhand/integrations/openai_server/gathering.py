"""One thread between many requests and a model that works on whole lists."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from itertools import islice
from threading import Condition, Thread

from evenhand.integrations.openai_server.answering import Answer, Job

Waiting = tuple[Job, "Future[Answer]"]


class FullError(Exception):
    """So many jobs wait that no more are taken."""

    def __init__(self, waiting: int, seconds: float) -> None:
        """Say how long it may take.

        Args:
            waiting: Jobs that wait or are being answered.
            seconds: What the last list of jobs took.
        """
        super().__init__(f"{waiting} replies are waiting or being written")
        self.waiting, self.seconds = waiting, seconds


WINDOW = 0.005
"""Seconds that the first of a list waits for others."""
MOST = 256
"""Most jobs in a list."""


class Gatherer:
    """Collects what waits and hands it over together; while a list is being answered the next one fills."""

    def __init__(self, answer: Callable[[list[Job]], list[Answer | Exception]], max_queue: int | None = None) -> None:
        """Start the thread.

        Args:
            answer: One outcome per job, in order. Only the thread calls it, so it need not be safe for several.
            max_queue: Most jobs that wait or are being answered; None takes any number.
        """
        self._answer, self._max_queue = answer, max_queue
        self._queue: dict[Future[Answer], Job] = {}
        self._changed = Condition()
        self._closed, self._working, self._seconds = False, 0, 0.0
        self._thread = Thread(target=self._work, name="evenhand-serving", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether anybody will answer."""
        return self._thread.is_alive()

    def submit(self, jobs: Sequence[Job]) -> list[Future[Answer]]:
        """Put jobs in line, all of them or none; one that is cancelled before its turn leaves the line.

        Raises:
            FullError: They do not fit.
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
        """Answer what is in line so far, then end."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _forget(self, future: Future[Answer]) -> None:
        """Take a job out of line that nobody waits for, with all that it holds."""
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
        except BaseException as error:  # nobody may wait for ever
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
        """What waits within the window after the first job; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closed)
            self._changed.wait_for(lambda: self._closed or len(self._queue) >= MOST, timeout=WINDOW)
            if not self._queue and self._closed:
                return None
            futures = list(islice(self._queue, MOST))
            self._working = len(futures)
            return [(self._queue.pop(future), future) for future in futures]
