"""Ctrl-C and SIGTERM: the command ends within two seconds whatever it is doing, and says how to continue.

The first signal raises `KeyboardInterrupt` in the main thread, so that finished work is written and temporary files are
removed. Python raises it only between two of its own steps, which may be much later, as in a product of large
matrices, while threads are joined, or where a library swallows the exception. So a thread, which the system wakes at
once, waits for `GRACE` seconds and then ends the process, as `kill -9` would: every file is whole or absent. A
second signal ends it at once. Forked processes, such as those of multiprocessing, have the handlers of before.
"""

from __future__ import annotations

import _thread
import atexit
import math
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from evenhand.cli import launched
from evenhand.errors import visible

GRACE = 1.5
"""Seconds from a signal until the process is ended, whatever it is doing."""
AGAIN = 0.05
"""Seconds after which a signal that could not stop the main thread is raised there again."""
HEARD = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM"))


class TerminatedError(KeyboardInterrupt):
    """Raised on SIGTERM, and handled like Ctrl-C."""


@dataclass
class _Heard:
    """Signals received so far, and the state of the reaction to them."""

    number: int = 0
    """The first signal; 0 until there is one."""
    raised: bool = False
    """Whether the exception was raised in the main thread."""
    postponed: int = 0
    """A signal to raise again in the main thread; 0 if there is none."""
    place: Path | None = None
    """Run folder, with which the same command continues."""
    told: bool = False
    """Whether the message has been printed."""
    handlers: dict[int, Any] = field(default_factory=dict)
    """The caller's handlers, by signal."""


_heard = _Heard()


def exit_status() -> int:
    """Return the exit status of a stopped command, as shells count it: 130 after Ctrl-C, 143 after SIGTERM."""
    return 128 + (_heard.number or signal.SIGINT)


def terminated() -> bool:
    """Whether SIGTERM was received first."""
    return _heard.number == signal.SIGTERM


def message() -> str:
    """Return the message that says how to continue the stopped command."""
    if _heard.place is None:
        return "stopped"
    if not _heard.place.is_dir():
        return "stopped before anything was asked"
    return f"stopped. What was answered is kept in {_heard.place}: run the same command again to continue"


def stop() -> NoReturn:
    """Print `message` on standard error and exit with `exit_status`."""
    if not launched.is_silent():
        sys.stderr.write(_line())  # without rich, whose import may take longer than there is time
    _heard.told = True
    sys.exit(exit_status())


def _line() -> str:
    return f"error: {visible(message())}\n"


@contextmanager
def working_in(place: Path | str) -> Iterator[None]:
    """End the command with a message that names a run folder if the block is interrupted.

    Args:
        place: The folder; it does not exist if nothing was asked yet.
    """
    before, _heard.place = _heard.place, Path(place)
    try:
        yield
    except KeyboardInterrupt:
        stop()
    finally:
        if not _heard.number:
            _heard.place = before


@contextmanager
def heard() -> Iterator[None]:
    """Handle Ctrl-C and SIGTERM within the block; does nothing outside the main thread.

    A signal that the caller has ignored, as shells do for background jobs, stays ignored. After a signal, the process
    is also ended if the interpreter takes too long to exit.
    """
    global _heard
    if threading.current_thread() is not threading.main_thread() or any(map(_is_ours, HEARD)):
        yield
        return
    _heard = _Heard()
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    handlers = _heard.handlers = {number: signal.getsignal(number) for number in HEARD}
    descriptor = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    atexit.register(_leave)  # registered first, so that it runs last
    threading.Thread(target=_watch, args=(reading,), name="evenhand-signals", daemon=True).start()
    try:
        for number, handler in handlers.items():
            if handler != signal.SIG_IGN:
                signal.signal(number, _interrupt)
        yield
    finally:
        if not _heard.number:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(descriptor)
            os.close(writing)  # which ends the thread
            atexit.unregister(_leave)


def _is_ours(number: int) -> bool:
    return signal.getsignal(number) is _interrupt


def _leave_to_parent() -> None:
    """Give a forked process the caller's handlers; with ours, a signal to it would also end its parent by the pipe."""
    if not any(map(_is_ours, HEARD)):
        return
    signal.set_wakeup_fd(-1)
    for number in filter(_is_ours, HEARD):
        signal.signal(number, _heard.handlers[number])


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Stop the main thread at once, or soon after if it is where Python would ignore an exception."""
    if _heard.raised:
        _end()
    _heard.number = _heard.number or number
    if _in_finalizer(frame):
        _heard.postponed = number
        return
    _heard.raised = True
    raise TerminatedError if number == signal.SIGTERM else KeyboardInterrupt


def _in_finalizer(frame: FrameType | None) -> bool:
    """Whether a frame is within a `__del__`, whose exceptions are printed and lost."""
    while frame is not None:
        if frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False


def _watch(reading: int) -> None:
    """End the process `GRACE` seconds after the first signal, or at the second; return once the pipe is closed."""
    ends, own = math.inf, 0
    while True:
        left = None if ends == math.inf else min(AGAIN, ends - time.monotonic())
        if left is not None and left <= 0:
            _end()
        if not select.select([reading], [], [], left)[0]:
            if number := _heard.postponed:
                _heard.postponed, own = 0, 0
                _thread.interrupt_main(signal.Signals(number))
            continue
        numbers = [number for number in os.read(reading, 64) if number in HEARD]
        if not numbers:
            os.close(reading)
            return
        # uvicorn's handlers raise a signal again for ours when they are done: only signals that reach ours are counted
        own += sum(map(_is_ours, numbers))
        _heard.number = _heard.number or numbers[0]
        if own > 1:
            _end()
        ends = min(ends, time.monotonic() + GRACE)


def _leave() -> None:
    """End an interrupted process once all is closed: freeing torch object by object takes seconds."""
    if _heard.told:
        with suppress(OSError, ValueError):  # the reader is gone
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(exit_status())


def _end() -> NoReturn:
    """End the process now, without Python's own shutdown."""
    if not _heard.told and not launched.is_silent():
        os.write(2, _line().encode(errors="backslashreplace"))
    os._exit(exit_status())
