"""Artefacts that all processes of a launch make together: all train, the first one saves the result, all open it.

transformers writes whole weights in the first process only. If every process took the lock, the others would wait for
the first one, which waits for them in the training; so only the first one takes the lock and manages the folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from evenhand.core.artifacts import artefact, refuse_making
from evenhand.core.one_process import by_itself
from evenhand.errors import DivergedError, EvenhandError, SettingsError, first_lines
from evenhand.training.processes import introduced, launched_together, sharding_wanted

T = TypeVar("T")
_AGAIN = {kind.__name__: kind for kind in (SettingsError, DivergedError)}
"""Errors of the first process that the others raise under the same name; for all others they raise `EvenhandError`."""


@contextmanager
def shared_artefact(
    key: str, train: Callable[[Path], T], keep: Callable[[Path, T], None], device: Callable[[], str]
) -> Iterator[Path]:
    """Yield the folder of a finished artefact, as `evenhand.core.artifacts.artefact` does, the same for all processes.

    All processes must call this, and must see one file system; the first one's key counts. A failure during the
    training ends only its own process, since `evenhand.training.loop` makes all fail together; a failure of the first
    process before or after that ends the others too.

    Args:
        key: Names the content.
        train: Called in every process with the same folder; what it returns stays in its process.
        keep: Called in the first process, with the folder and what it has trained, to fill the folder.
        device: Returns the kind of device that is trained on; called if several processes have been launched and are
            not connected yet.

    Raises:
        SettingsError: The key cannot be a folder's name, the processes were launched in a way that cannot be used, or
            this one does not see the folder.
        RunError: The folder cannot be written.
    """
    refuse_making(key)
    if not _several(device):
        with artefact(key, lambda folder: keep(folder, train(folder))) as folder:
            yield folder
        return
    import torch.distributed as dist

    made = _made_by_first(key, train, keep) if dist.get_rank() == 0 else _made_with_first(train)
    with ExitStack() as stack:
        with by_itself():  # the first process asks what the others do not
            folder = stack.enter_context(made)
        try:
            _refuse_unseen(folder)
            yield folder
        except Exception:
            dist.barrier()  # the others wait below
            raise
        dist.barrier()  # a temporary folder is gone after this


@contextmanager
def _made_by_first(key: str, train: Callable[[Path], T], keep: Callable[[Path, T], None]) -> Iterator[Path]:
    together = False

    def make(folder: Path) -> None:
        nonlocal together
        _told(("train", str(folder)))
        together = True
        made = train(folder)
        together = False
        keep(folder, made)

    with ExitStack() as stack:
        try:
            folder = stack.enter_context(artefact(key, make))
        except Exception as error:
            if not together:
                _told((type(error).__name__, str(error) if isinstance(error, EvenhandError) else first_lines(error)))
            raise
        _told(("open", str(folder)))
        yield folder


@contextmanager
def _made_with_first(train: Callable[[Path], object]) -> Iterator[Path]:
    what, value = _told()
    if what == "train":
        train(Path(value))
        what, value = _told()
    if what != "open":
        raise _AGAIN.get(what, EvenhandError)(f"{value} (in the first process)")
    yield Path(value)


def _told(value: tuple[str, str] | None = None) -> tuple[str, str]:
    """Send what the first process says to all: what to do and in which folder, or an error's name and message."""
    import torch.distributed as dist

    box: list[Any] = [value]
    dist.broadcast_object_list(box, src=0)
    what, told = box[0]
    return str(what), str(told)


def _refuse_unseen(folder: Path) -> None:
    if not folder.is_dir():
        raise SettingsError(
            f"this process does not see {folder}, in which the first process has saved the result: keep artefacts in a "
            "folder that all machines see (`evenhand.core.artifacts.artefacts`), or set TMPDIR to one"
        )


def _several(device: Callable[[], str]) -> bool:
    """Whether several processes were launched together; if so, connect them."""
    import torch.distributed as dist

    if not launched_together():
        return False
    if not dist.is_initialized():
        sharding_wanted()  # raises if the launch cannot be used
    return introduced(lambda: device() == "cpu") > 1
