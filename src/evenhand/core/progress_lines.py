"""Progress without a terminal, as in a log: a plain line now and then, on standard error.

The first comes after `FIRST` seconds, the next ones at growing intervals of `LEAST` to `MOST` seconds, whatever happens
meanwhile: a step that takes an hour is not silent. A line names what is being done, from the outermost task to the
innermost, how much of it is done, and about how long the rest takes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Event, Lock, Thread

from evenhand.core.text_output import duration

FIRST, LEAST, MOST = 8.0, 10.0, 30.0


@dataclass
class Task:
    """A task that is being done."""

    name: str
    total: int
    began: float
    """When it began, by the clock of `ProgressLines`."""
    done: int = 0

    @property
    def share(self) -> float:
        """Fraction that is done, from 0 to 1."""
        return min(1.0, self.done / self.total)


class ProgressLines:
    """Running tasks, and lines about them; has those methods of rich's `Progress` that are called here."""

    def __init__(self, write: Callable[[str], object], clock: Callable[[], float] = time.monotonic) -> None:
        """Begin without tasks.

        Args:
            write: Takes a line, including its line end.
            clock: Returns seconds, from any origin.
        """
        self._write, self._clock = write, clock
        self._began = clock()
        self._tasks: dict[int, Task] = {}
        self._lock, self._over, self._next = Lock(), Event(), 0

    def add_task(self, name: str, total: int) -> int:
        """Begin a task within those that are running; returns its number."""
        with self._lock:
            self._next += 1
            self._tasks[self._next] = Task(name, total, self._clock())
            return self._next

    def advance(self, number: int, done: int) -> None:
        """Add units that are done to a task."""
        self._tasks[number].done += done

    def remove_task(self, number: int) -> None:
        """End a task."""
        with self._lock:
            del self._tasks[number]

    def line(self) -> str:
        """Describe the running tasks in one line."""
        with self._lock:
            tasks = list(self._tasks.values())
        now = self._clock()
        parts = [f"{task.name} {task.done:,} of {task.total:,}" for task in tasks]
        known = next((task for task in tasks if 0 < task.share < 1 and now > task.began), None)
        if known is not None:
            left = (now - known.began) * (1 - known.share) / known.share
            parts[tasks.index(known)] += f" (about {duration(left)} left)"
        return f"{' > '.join(parts) or 'working'}; {duration(now - self._began)} so far"

    def run(self) -> None:
        """Write lines until `end`."""
        wait = FIRST
        while not self._over.wait(wait):
            with suppress(OSError, ValueError):  # the reader is gone
                self._write(f"{self.line()}\n")
            wait = min(MOST, max(LEAST, 1.5 * wait))

    def end(self) -> None:
        """Write no more lines."""
        self._over.set()


@contextmanager
def progress_lines() -> Iterator[ProgressLines]:
    """Write lines on standard error, as it is at the beginning of the block, from a thread that ends with the block."""
    stream = sys.stderr

    def write(text: str) -> None:
        stream.write(text)
        stream.flush()

    lines = ProgressLines(write)
    thread = Thread(target=lines.run, name="evenhand-progress", daemon=True)
    thread.start()
    try:
        yield lines
    finally:
        lines.end()
