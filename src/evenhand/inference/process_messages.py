"""Messages between the processes of a launch, through the store of their process group.

Each process has a numbered list of messages, which all others read in order. They are JSON, so floats arrive exactly,
nothing is unpickled, and no device or backend is involved.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from evenhand.errors import EvenhandError
from evenhand.inference.process_store_support import Store

PIECE = 1 << 22
"""Maximum number of characters stored at once; torch's store accepts 8 MiB."""
_MORE, _LAST = "+", "."


class Message(NamedTuple):
    """A message of a process."""

    call: int
    """Number of the sender's call."""
    kind: str
    content: Any
    """Content in JSON values."""


class StoreGoneError(EvenhandError):
    """The process that hosts the store has ended."""


class Messages:
    """Sends the messages of one process, and reads those of the others."""

    def __init__(self, store: Store, name: str, rank: int) -> None:
        """Connect to the store; nothing is sent yet.

        Args:
            store: Store of all processes.
            name: Name that all processes share, unique in the store.
            rank: Rank of this process.
        """
        self._store, self._name, self._rank = store, name, rank
        self._said: list[tuple[int, str]] = []
        """Calls and keys of this process's messages in the store."""
        self._next = 0
        self._heard: defaultdict[int, int] = defaultdict(int)
        self._begun: defaultdict[int, list[str]] = defaultdict(list)

    def say(self, call: int, kind: str, content: Any = None) -> None:
        """Send a message to all.

        Raises:
            StoreGoneError: The store is gone.
        """
        text = json.dumps([call, kind, content])
        for start in range(0, len(text), PIECE):
            key = f"{self._name}/{self._rank}/{self._next}"
            mark = _MORE if start + PIECE < len(text) else _LAST
            with _reached():
                self._store.set(key, mark + text[start : start + PIECE])
            self._said.append((call, key))
            self._next += 1

    def heard(self, rank: int) -> Message | None:
        """Return the next message of a process, or None if there is none yet.

        Raises:
            StoreGoneError: The store is gone.
        """
        while True:
            key = f"{self._name}/{rank}/{self._heard[rank]}"
            with _reached():
                if not self._store.check([key]):
                    return None
                text = self._store.get(key).decode()
            self._heard[rank] += 1
            self._begun[rank].append(text[1:])
            if text[0] == _LAST:
                return Message(*json.loads("".join(self._begun.pop(rank))))

    def forget(self, before: int) -> None:
        """Delete messages of earlier calls from the store, once all have read them.

        Args:
            before: First call whose messages are kept.
        """
        for call, key in self._said:
            if call < before:
                with _reached():
                    self._store.delete_key(key)
        self._said = [(call, key) for call, key in self._said if call >= before]


@contextmanager
def _reached() -> Iterator[None]:
    """Raise `StoreGoneError` in place of torch's own error."""
    try:
        yield
    except RuntimeError as error:
        raise StoreGoneError("the process that hosts the others' store has ended") from error
