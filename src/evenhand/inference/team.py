"""Processes that answer for one model together: each has a full copy and computes a part of every list.

All run the same program, and so ask the same lists in the same order. The first process reads the answer cache and
announces what it knows; each computes its part of the rest and sends it to all as it arrives; and all continue with
the same numbers, which only the first one stores. If processes do not ask the same, all of them fail.

An error in one process is raised in all, with that process's message: in the others it arrives with the next
answers, or while they wait. After an interruption the first process still stores what the others have computed.
"""

from __future__ import annotations

import atexit
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from itertools import count
from typing import Any, NamedTuple, NoReturn

from evenhand.core.one_process import is_by_itself
from evenhand.errors import (
    ContextTooLongError,
    DataError,
    DivergedError,
    EndpointError,
    EvenhandError,
    MissingAbilityError,
    RunError,
    SettingsError,
    first_lines,
)
from evenhand.inference.process_messages import Message, Messages, StoreGoneError
from evenhand.inference.process_store_support import process_store

WAIT_SECONDS = 3600.0
"""Maximum wait for a message of another process, in seconds; a batch or a training step takes minutes at most."""
SALVAGE_SECONDS = 10.0
"""Maximum wait of an interrupted first process for what the others have computed, in seconds."""
LEAVE_SECONDS = 120.0
"""Maximum wait of other processes for the first one to finish its output, in seconds; launchers end all others as
soon as one has failed."""
TOLD_EVERY = 1.0
"""Minimum time between two messages with answers, in seconds."""
_KINDS = (
    *(SettingsError, MissingAbilityError, ContextTooLongError, DivergedError, DataError, EndpointError, RunError),
    EvenhandError,
)
_AGAIN = {kind.__name__: kind for kind in _KINDS}
"""Errors that are raised under the same name in all processes; others are raised as `EvenhandError`."""
_STOPPED = KeyboardInterrupt.__name__
_ASKS, _PART, _DONE, _AGREES, _FAILED, _ENDED, _GONE = "asks", "part", "done", "agrees", "failed", "ended", "gone"

Take = Callable[[list[int], list[Any]], None]
"""Receives answers: rows of a list, and their values."""

_active: ContextVar[Team | None] = ContextVar("evenhand_team", default=None)


class _Relayed(NamedTuple):
    """An error as processes pass it on."""

    name: str
    text: str
    rank: int
    """Rank of the process that raised it first."""


class Team:
    """One process's part in a team of processes that ask together."""

    def __init__(self, messages: Messages, rank: int, count: int) -> None:
        """Create the team; nothing has been asked yet.

        Args:
            messages: Messages to and from the others.
            rank: Rank of this process.
            count: Number of processes.
        """
        self.rank, self.count, self.first = rank, count, rank == 0
        self._others = [other for other in range(count) if other != rank]
        self._messages, self._call = messages, 0
        self._open: set[int] = set()
        """Processes that may still send answers of the current list."""
        self._cause: tuple[BaseException, _Relayed] | None = None
        """Error that was raised here because of another process."""
        self.first_ended = False
        """Whether the first process has announced its end."""

    def told(self, label: str, digest: int, known: Callable[[], dict[int, Any]]) -> dict[int, Any]:
        """Begin a list that all processes ask.

        Args:
            label: Kind of list.
            digest: Hash of the list, which must be equal in all processes.
            known: Returns the answers that are already known, by row; called in the first process only.

        Returns:
            Answers that the first process knows.

        Raises:
            RunError: The processes do not ask the same.
        """
        self._call += 1
        with self._telling():
            found = known() if self.first else {}
        self._messages.say(self._call, _ASKS, [label, digest, [*found.items()]])
        for other in self._others:
            kind, said = self._next(other)
            if kind != _ASKS or said[:2] != [label, digest]:
                self._refuse_other_way(other, kind, said, f"{label} of a list")
            if other == 0:
                found = {int(row): value for row, value in said[2]}
        self._messages.forget(self._call - 1)  # all have begun the last list; one that broke it off may be reading it
        self._open = set(self._others)
        return found

    def share(self, work: Callable[[Take], None], take: Take) -> None:
        """Compute a part, send it to all, and receive theirs.

        Args:
            work: Computes this process's part and emits it.
            take: Receives answers of any process: rows of the whole list, and their values.
        """
        part: list[list[Any]] = [[], []]
        told = time.monotonic()

        def tell() -> None:
            nonlocal told
            if part[0]:
                self._messages.say(self._call, _PART, part)
            part[0], part[1], told = [], [], time.monotonic()

        def emit(rows: list[int], values: list[Any]) -> None:
            take(rows, values)
            part[0] += rows
            part[1] += values
            if time.monotonic() - told >= TOLD_EVERY:
                tell()
            for other in tuple(self._open):
                self._listen(other, take, wait=False)

        with self._salvaging(take), self._telling(last=tell):
            work(emit)
            tell()
            self._messages.say(self._call, _DONE)
            for other in sorted(self._open):
                self._listen(other, take, wait=True)

    def agree(self, what: str, note: str = "") -> None:
        """Check that all processes have reached the same point in the same way.

        Args:
            what: Name of the point, which must be equal in all processes.
            note: What went wrong before this point, or "".

        Raises:
            RunError: Another process is at another point; the message is its note, if it has one.
        """
        self._call += 1
        self._messages.say(self._call, _AGREES, [what, note])
        for other in self._others:
            kind, said = self._next(other)
            if kind != _AGREES or said[0] != what:
                self._refuse_other_way(other, kind, said, what, note)
        self._messages.forget(self._call - 1)

    def first_says(self, value: Any = None) -> Any:
        """Return a JSON value of the first process in all of them; the others pass none."""
        return self.told("a value", 0, lambda: {0: value})[0]

    def end(self, error: BaseException) -> None:
        """Announce that this process asks nothing any more, and why.

        Processes other than the first wait for its end, so that the run ends with its message.
        """
        with suppress(StoreGoneError):
            self._messages.say(self._call, _ENDED, self._relayed(error))
        if not self.first:
            atexit.register(self._wait_for, _GONE)
            if not self.first_ended:
                self._wait_for(_ENDED)

    def leave(self) -> None:
        """Announce, in the first process, that all output is finished."""
        with suppress(StoreGoneError):
            self._messages.say(self._call, _GONE)

    # ------------------------------------------------------------------------------------------------ internals

    def _next(self, other: int) -> tuple[str, Any]:
        """Return a process's next message about the current call, and skip those of calls that were broken off."""
        deadline, pause = time.monotonic() + WAIT_SECONDS, 0.0005
        while True:
            message = self._messages.heard(other)
            if message is None:
                if time.monotonic() > deadline:
                    raise RunError(
                        f"rank {other} has sent nothing for {WAIT_SECONDS:g} seconds: all processes of a launch must "
                        "run the same program to its end"
                    )
                time.sleep(pause)
                pause = min(0.05, pause * 1.5)
            elif self._concerns(other, message):
                return message.kind, message.content

    def _concerns(self, other: int, message: Message) -> bool:
        """Return whether a message belongs to the current call; an error of that process is raised."""
        if message.kind == _ENDED or (message.kind == _FAILED and message.call == self._call):
            self._open.discard(other)
            self.first_ended |= other == 0 and message.kind == _ENDED
            self._raise(_Relayed(*message.content))
        if message.call > self._call:
            self._refuse_other_way(other, message.kind, message.content, "an earlier list")
        return message.call == self._call

    def _listen(self, other: int, take: Take, *, wait: bool) -> None:
        """Receive a process's part: until it is done, or only what has arrived."""
        while other in self._open:
            if wait:
                kind, said = self._next(other)
            else:
                message = self._messages.heard(other)
                if message is None:
                    return
                if not self._concerns(other, message):
                    continue
                kind, said = message.kind, message.content
            if kind == _DONE:
                self._open.discard(other)
            else:
                take(*said)

    @contextmanager
    def _telling(self, last: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Report an error that ends a list here to all.

        Args:
            last: Called before that.
        """
        try:
            yield
        except BaseException as error:
            with suppress(StoreGoneError):
                last()
                self._messages.say(self._call, _FAILED, self._relayed(error))
            raise

    @contextmanager
    def _salvaging(self, take: Take) -> Iterator[None]:
        """In the first process, collect what the others computed before a list was broken off."""
        try:
            yield
        except BaseException:
            if self.first:
                self._salvage(take)
            raise

    def _salvage(self, take: Take) -> None:
        until = time.monotonic() + SALVAGE_SECONDS
        with suppress(EvenhandError):  # for example if the original error was that the cache cannot be written
            while self._open and time.monotonic() < until:
                for other in tuple(self._open):
                    message = self._messages.heard(other)
                    if message is None:
                        time.sleep(0.01)
                    elif message.kind == _PART and message.call == self._call:
                        take(*message.content)
                    elif message.call == self._call or message.kind == _ENDED:
                        self._open.discard(other)

    def _relayed(self, error: BaseException) -> _Relayed:
        """Return an error as it is passed on; one of another process keeps that process's wording."""
        if self._cause is not None and self._cause[0] is error:
            return self._cause[1]
        if not isinstance(error, Exception):
            return _Relayed(type(error).__name__, "", self.rank)
        name = next((kind.__name__ for kind in _KINDS if isinstance(error, kind)), "")
        text = str(error) if name else f"{type(error).__name__}: {first_lines(error)}"
        return _Relayed(name, text, self.rank)

    def _raise(self, told: _Relayed) -> NoReturn:
        text = told.text or f"stopped by {told.name}"
        error = (
            KeyboardInterrupt()
            if told.name == _STOPPED
            else _AGAIN.get(told.name, EvenhandError)(f"{text} (on rank {told.rank})")
        )
        self._cause = error, told
        raise error

    def _refuse_other_way(self, other: int, kind: str, said: Any, mine: str, note: str = "") -> NoReturn:
        theirs = str(said[1]) if kind == _AGREES and said[1] else ""
        if theirs:
            self._raise(_Relayed(RunError.__name__, theirs, other))
        if note:
            raise RunError(note)
        point = said[0] if isinstance(said, list) and said else kind
        raise RunError(
            f"rank {self.rank} has reached {mine!r}, but rank {other} {point!r}: all processes of a launch must run "
            "the same program with the same files, settings and versions"
        )

    def _wait_for(self, kind: str) -> None:
        """Wait until the first process has sent a message of this kind, or is gone."""
        until = time.monotonic() + LEAVE_SECONDS
        with suppress(StoreGoneError):
            while time.monotonic() < until:
                message = self._messages.heard(0)
                if message is None:
                    time.sleep(0.01)
                elif message.kind in (kind, _GONE):
                    self.first_ended = True
                    return


def active() -> Team | None:
    """Return the team over which requests are split; None if this process answers everything."""
    return None if is_by_itself() else _active.get()


@contextmanager
def asking_as(team: Team) -> Iterator[Team]:
    """Split requests within the block over processes, all of which must enter and leave it together.

    Raises:
        RunError: Another process leaves after different work.
    """
    token = _active.set(team)
    if team.first:
        atexit.register(team.leave)
    try:
        yield team
        team.agree("the end")
    except BaseException as error:
        team.end(error)
        raise
    finally:
        _active.reset(token)


_teams = count()
"""Numbers the teams of this process, and equally of all others, for their names in the store."""
_latest: Team | None = None


def latest() -> Team | None:
    """Return the last team that this process was in; None if it was in none."""
    return _latest


def new_team() -> Team:
    """Form a team of the processes of the group.

    Raises:
        RunError: This version of torch has no store for messages between processes.
    """
    import torch.distributed as dist

    store = process_store()
    if store is None:
        raise RunError("this version of torch has no store for messages between processes: launch a single process")
    name, rank = f"evenhand/team/{next(_teams)}", dist.get_rank()
    global _latest
    _latest = Team(Messages(store, name, rank), rank, dist.get_world_size())
    return _latest
