"""The key-value store of a process group, to which torch documents no access.

Through it a process can leave a value that others wait for, without a collective call.
"""

from __future__ import annotations

import sys
import warnings
from datetime import timedelta
from typing import Protocol


class Store(Protocol):
    """The parts of torch's store that are used."""

    def set(self, key: str, value: str, /) -> None:
        """Store a value."""

    def get(self, key: str, /) -> bytes:
        """Return a stored value."""

    def wait(self, keys: list[str], timeout: timedelta, /) -> None:
        """Wait until all keys exist; raise a RuntimeError after the timeout."""

    def check(self, keys: list[str], /) -> bool:
        """Return whether all keys exist."""

    def delete_key(self, key: str, /) -> bool:
        """Delete a value; return whether it existed."""


def several_processes() -> bool:
    """Return whether this process is one of several in a group (`torch.distributed`)."""
    if "torch.distributed" not in sys.modules:  # so that torch is not imported for this
        return False
    import torch.distributed as dist

    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def process_store() -> Store | None:
    """Return the store of the default process group; None, with a warning, if torch does not have it there."""
    from torch.distributed import distributed_c10d

    try:
        store: Store = distributed_c10d._get_default_store()
    except AttributeError:  # torch 2.13 has it
        warnings.warn("torch has no process store here, so processes do not wait for the first one", stacklevel=3)
        return None
    return store
