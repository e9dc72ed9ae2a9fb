"""Storage of what was trained, by what it was trained from, so that nothing is trained twice.

An artefact is a folder named by a key, a hash of everything that decides its content. It is made in a folder of its own
and renamed when it is finished, so that a folder under its key is always whole. A killed run leaves its unfinished
folder, from which the next one continues. Artefacts are stored within `with artefacts(folder):`, however deeply nested
the calls that train them.

Next to each is `.KEY.sha256`, with the checksums of its files, which are verified before it is opened. A damaged one
becomes KEY.damaged-1 and is made again. Those of earlier versions have no checksums, and are used as they are.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from tempfile import TemporaryDirectory

from evenhand.core import file_io, versions
from evenhand.core.checksums import damage_of_folder, seal_folder
from evenhand.core.one_process import by_itself
from evenhand.errors import EvenhandError, RunError, SettingsError, reason
from evenhand.interfaces import Model

_active: ContextVar[Path | None] = ContextVar("evenhand_artefacts", default=None)
_refused: ContextVar[str] = ContextVar("evenhand_artefacts_refused", default="")
_passing: ContextVar[Path | None] = ContextVar("evenhand_artefact_not_kept", default=None)
_KEY = re.compile(r"[\w.-]+", re.A)


@contextmanager
def artefacts(folder: str | Path | None) -> Iterator[Path | None]:
    """Store in `folder` what is trained within the block; None stores nothing."""
    root = None if folder is None else Path(folder).expanduser().absolute()
    token = _active.set(root)
    try:
        yield root
    finally:
        _active.reset(token)


@contextmanager
def nothing_made(why: str) -> Iterator[None]:
    """Refuse to make an artefact within the block: opening a saved model must not train anything."""
    token = _refused.set(why)
    try:
        yield
    finally:
        _refused.reset(token)


def active() -> Path | None:
    """Return the folder in use, or None."""
    return _active.get()


def made_with(model: Model, *, device: str | None = None, precision: str | None = "auto") -> list[str | int]:
    """Return what every key contains besides settings and data: where and how the numbers were computed.

    A copy trained in bfloat16 on a GPU differs from one trained in float32 on a CPU, even with equal settings. How
    questions are written is part of it as well: training texts are made of them.

    Args:
        model: The model that is trained or taught from; its own device counts if none is given.
        device: Device of the training, if it is another one.
        precision: The setting; "auto" is resolved as training does. None if nothing but the device decides.
    """
    model.rehash()  # its fingerprint is the next part of the key, so it must be up to date
    place = device or str(model.facts().get("device", "cpu"))
    return [versions.ANSWERS, place.partition(":")[0], resolved_precision(precision, place) if precision else ""]


def resolved_precision(precision: str, device: str) -> str:
    """Resolve "auto" for a device: bf16 on GPUs that have it, else "no"; other settings are returned as they are."""
    if precision != "auto":
        return precision
    import torch

    return "bf16" if device.startswith("cuda") and torch.cuda.is_bf16_supported() else "no"


@contextmanager
def artefact(key: str, make: Callable[[Path], None]) -> Iterator[Path]:
    """Yield the folder of a finished artefact, which is made first if it is missing or damaged.

    Without an active folder it is made in a temporary one, which is removed at the end of the block.

    Args:
        key: Names the content: a hash of everything that decides it.
        make: Fills a folder, which may contain what an unfinished attempt has left.

    Raises:
        SettingsError: The key cannot be a folder's name.
        RunError: The folder cannot be written.
    """
    refuse_making(key)
    root = _active.get()
    if root is None:
        with TemporaryDirectory(prefix="evenhand-") as folder:
            token = _passing.set(Path(folder))
            try:
                make(Path(folder))
                yield Path(folder)
            finally:
                _passing.reset(token)
        return
    if not (root / key).is_dir() or damage_of_artefact(root, key):
        _make(root, key, make)
    yield root / key


def kept_nowhere(folder: Path | None) -> bool:
    """Whether nothing in a folder is kept after the training: it is None, or a temporary one."""
    return folder is None or folder == _passing.get()


def refuse_making(key: str) -> None:
    """Refuse an invalid key, or making anything at all, before any work is done.

    Raises:
        SettingsError: The key cannot be a folder's name, or nothing may be made here (`nothing_made`).
    """
    if not _KEY.fullmatch(key) or key.startswith("."):
        raise SettingsError(f"{key!r} cannot name an artefact; give a hash")
    if why := _refused.get():
        raise SettingsError(f"{why}; get the whole folder, or apply the method to its base yourself")


def _make(root: Path, key: str, make: Callable[[Path], None]) -> None:
    from filelock import FileLock

    unfinished = root / f".{key}.part"
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = FileLock(root / f".{key}.lock")
        with lock:
            if (root / key).is_dir():
                why = damage_of_artefact(root, key)
                if not why:  # another process was faster
                    return
                _set_aside(root, key, why)
            unfinished.mkdir(exist_ok=True)
            file_io.remove_parts(unfinished)  # else they would become part of the artefact
            with by_itself():  # other processes wait for the lock
                make(unfinished)
            file_io.sync_tree(unfinished)
            seal_folder(unfinished, _checksums(root, key))
            unfinished.rename(root / key)
            file_io.sync_folder(root)
    except EvenhandError:
        raise
    except Exception as error:
        if not isinstance(error, OSError) and not file_io.lacks_space(error):  # safetensors and torch raise others
            raise
        room = file_io.space(root, sum(path.stat().st_size for path in unfinished.rglob("*") if path.is_file()))
        raise RunError(
            f"cannot keep what was trained in {root} ({reason(error)}; {room}); free some space, or name another "
            "folder, and run again: the training continues from its last checkpoint"
        ) from error


def damage_of_artefact(root: Path, key: str) -> str:
    """Describe the damage in a finished artefact; "" if all of its files are as they were written.

    Its files are hashed once per process, and their hashes serve the fingerprint of a model in it as well.
    """
    return damage_of_folder(root / key, _checksums(root, key))


def finished(root: Path) -> list[str]:
    """Return the keys of the finished artefacts in a folder."""
    folders = sorted(path for path in root.glob("[!.]*") if path.is_dir())
    return [path.name for path in folders if file_io.DAMAGED not in path.name]


def intact(root: Path) -> list[str]:
    """Return the keys of the finished artefacts in a folder; damaged ones are moved aside, with a warning.

    Args:
        root: The folder of artefacts, which nobody else writes to now.

    Raises:
        RunError: A file cannot be read now, or a damaged artefact cannot be moved.
    """
    found = []
    for key in finished(root):
        why = damage_of_artefact(root, key)
        if why:
            _set_aside(root, key, why)
        else:
            found.append(key)
    return found


def _set_aside(root: Path, key: str, why: str) -> None:
    aside = file_io.move_aside(root / key)
    _checksums(root, key).unlink(missing_ok=True)
    warnings.warn(
        f"what was trained in {root / key} is damaged ({why}): it is now {aside.name}, and is made again",
        UserWarning,
        stacklevel=5,
    )


def _checksums(root: Path, key: str) -> Path:
    return root / f".{key}.sha256"
