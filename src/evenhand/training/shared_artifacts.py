"""Artefacts that all processes of a launch make together: they train, the first one keeps the result, all open it.

transformers writes whole weights in the first process only, and a lock that every process takes would make the others
wait for the first one, which waits for them in the training. So the first one alone has the lock and the folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from evenhand.core.artifacts import artefact, refuse_making
from evenhand.errors import DivergedError, EvenhandError, SettingsError, first_lines
from evenhand.training.processes import introduced, launched_together, sharding_wanted

T = TypeVar("T")
_AGAIN = {kind.__name__: kind for kind in (SettingsError, DivergedError)}
"""Errors of the first process that the others raise by the same name; of all else they raise an `EvenhandError`."""


@contextmanager
def shared_artefact(
    key: str, train: Callable[[Path], T], keep: Callable[[Path, T], None], device: Callable[[], str]
) -> Iterator[Path]:
    """The folder of a finished artefact, as `evenhand.core.artifacts.artefact` gives it, the same for all processes.

    All processes have to ask for it, and must see one file system; the first one's key counts. A process that fails
    while all train ends alone, as `evenhand.training.loop` makes all fail together; a failure of the first one
    before or after that ends the others too.

    Args:
        key: Names the content.
        train: Called in every process with the same folder; what it returns stays in its process.
        keep: Called in the first process, with the folder and what it has trained, to fill the folder.
        device: The kind of device that is trained on; asked where several processes have been launched and do not know
            each other yet.

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

    shared = _made_by_first(key, train, keep) if dist.get_rank() == 0 else _made_with_first(train)
    with shared as folder:
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
    """What the first process says, to all: what is to be done and in which folder, or an error's name and message."""
    import torch.distributed as dist

    box: list[Any] = [value]
    dist.broadcast_object_list(box, src=0)
    what, told = box[0]
    return str(what), str(told)


def _refuse_unseen(folder: Path) -> None:
    if not folder.is_dir():
        raise SettingsError(
            f"this process does not see {folder}, where the first one has what was trained: keep artefacts in a folder "
            "that all machines see (`evenhand.core.artifacts.artefacts`), or set TMPDIR to one"
        )


def _several(device: Callable[[], str]) -> bool:
    """Whether several processes were launched together; they know each other then."""
    import torch.distributed as dist

    if not launched_together():
        return False
    if not dist.is_initialized():
        sharding_wanted()  # refuses what cannot be used
    return introduced(lambda: device() == "cpu") > 1
