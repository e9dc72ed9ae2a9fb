"""Folders that only the first of several processes writes.

All processes of a launch have the same model, and all of them call `save`. The first one writes; the others wait until
the folder is complete, so that each can open it afterwards. The first one does not wait for the others: a program in
which it alone saves is not held up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextvars import ContextVar
from datetime import timedelta
from pathlib import Path

from evenhand.errors import EvenhandError, first_lines
from evenhand.inference.process_store_support import Store, process_store, several_processes

WAIT = timedelta(hours=1)
"""Maximum wait of the other processes; the largest models take some minutes."""
_DONE = "done"

_inside: ContextVar[bool] = ContextVar("evenhand_writing", default=False)
_calls: Counter[str] = Counter()
"""Number of times this process has been asked to write each folder."""


def write_in_first(folder: Path, write: Callable[[], object]) -> None:
    """Write a folder in the first process, and wait for it in the others.

    Args:
        folder: Folder to write; all processes must pass the same one and have access to it.
        write: Writes the folder. Nested calls of this function within it write directly.

    Raises:
        EvenhandError: The first process failed, or did not write this folder.
    """
    if _inside.get() or not several_processes():
        write()
        return
    import torch.distributed as dist

    _calls[str(folder)] += 1
    key = f"evenhand/{folder.resolve()}/{_calls[str(folder)]}"
    store = process_store()
    if dist.get_rank() > 0:
        if store is not None:
            _wait(store, key, folder)
        return
    token = _inside.set(True)
    said = _DONE
    try:
        write()
    except BaseException as error:
        said = first_lines(error) if isinstance(error, Exception) else type(error).__name__
        raise
    finally:
        _inside.reset(token)
        if store is not None:
            store.set(key, said)


def _wait(store: Store, key: str, folder: Path) -> None:
    try:
        store.wait([key], WAIT)
    except RuntimeError as error:
        raise EvenhandError(
            f"{folder}: the first process did not write it within {WAIT}. All processes must save to the same folder"
        ) from error
    if (said := store.get(key).decode()) != _DONE:
        raise EvenhandError(f"{said} (in the first process)")
