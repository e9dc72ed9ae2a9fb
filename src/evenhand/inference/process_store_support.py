"""The key-value store of the processes that know each other; torch documents no way to it.

Through it one process can leave a word that others wait for, without a call that all of them have to make.
"""

from __future__ import annotations

import sys
import warnings
from datetime import timedelta
from typing import Protocol


class Store(Protocol):
    """What is used of torch's store."""

    def set(self, key: str, value: str, /) -> None:
        """Leave a word."""

    def get(self, key: str, /) -> bytes:
        """The word that was left."""

    def wait(self, keys: list[str], timeout: timedelta, /) -> None:
        """Wait until all are there; a RuntimeError where the time is over."""


def several_processes() -> bool:
    """Whether this is one of several processes that know each other (`torch.distributed`)."""
    if "torch.distributed" not in sys.modules:  # so that nobody imports torch for this
        return False
    import torch.distributed as dist

    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def process_store() -> Store | None:
    """The store of the default process group; None, with a warning, where this version of torch has it elsewhere."""
    from torch.distributed import distributed_c10d

    try:
        store: Store = distributed_c10d._get_default_store()
    except AttributeError:  # torch 2.13 has it
        warnings.warn("this version of torch does not say when the first process is done: nobody waits", stacklevel=3)
        return None
    return store
