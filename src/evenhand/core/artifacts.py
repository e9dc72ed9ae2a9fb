"""What was trained is kept by what it was trained from, and never trained twice.

An artefact is a folder named by a key, a hash of everything that decides its content. It is made in a folder of its own
and renamed when it is finished, so that a folder under its key is always whole. A killed run leaves its unfinished
folder behind, from which the next one goes on. Artefacts are kept inside `with artefacts(folder):`, however deep they
are trained.

Next to each lies `.KEY.sha256`, with the checksums of its files, which are verified before it is opened. One that is
damaged becomes KEY.damaged-1 and is made again. Those of earlier versions have no checksums, and are taken as they are.
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
from evenhand.errors import RunError, SettingsError
from evenhand.interfaces import Model

_active: ContextVar[Path | None] = ContextVar("evenhand_artefacts", default=None)
_refused: ContextVar[str] = ContextVar("evenhand_artefacts_refused", default="")
_KEY = re.compile(r"[\w.-]+", re.A)


@contextmanager
def artefacts(folder: str | Path | None) -> Iterator[Path | None]:
    """Keep in `folder` what is trained inside; None keeps nothing."""
    root = None if folder is None else Path(folder).expanduser().absolute()
    token = _active.set(root)
    try:
        yield root
    finally:
        _active.reset(token)


@contextmanager
def nothing_made(why: str) -> Iterator[None]:
    """Refuse to make an artefact inside: as a saved model is opened, nothing may be trained."""
    token = _refused.set(why)
    try:
        yield
    finally:
        _refused.reset(token)


def active() -> Path | None:
    """The folder in use, if any."""
    return _active.get()


def made_with(model: Model, *, device: str | None = None, precision: str | None = "auto") -> list[str | int]:
    """What every key of something trained holds besides settings and data: where and how its numbers were computed.

    A copy that was trained in bfloat16 on a GPU is not the one that float32 on a CPU would have given, though all
    settings are equal. How questions are written belongs to it as well: what is trained on is made of them.

    Args:
        model: What is trained or taught from; its own device decides where none is given.
        device: Where it is trained, if elsewhere.
        precision: The setting; "auto" is resolved as training does. None where nothing but the device decides.
    """
    model.rehash()  # its fingerprint is the next part of the key: nothing is trained under one that no longer holds
    place = device or str(model.facts().get("device", "cpu"))
    return [versions.ANSWERS, place.partition(":")[0], resolved_precision(precision, place) if precision else ""]


def resolved_precision(precision: str, device: str) -> str:
    """What "auto" stands for on a device: bf16 on GPUs that have it; other settings are as they are."""
    if precision != "auto":
        return precision
    import torch

    return "bf16" if device.startswith("cuda") and torch.cuda.is_bf16_supported() else "no"


@contextmanager
def artefact(key: str, make: Callable[[Path], None]) -> Iterator[Path]:
    """The folder of a finished artefact, made first where it is not there yet or damaged.

    Without an active folder it is made in a temporary one, which is gone when the block is left.

    Args:
        key: Names the content: a hash of everything that decides it.
        make: Fills a folder, which may hold what an unfinished attempt has left.

    Raises:
        SettingsError: The key cannot be a folder's name.
        RunError: The folder cannot be written.
    """
    refuse_making(key)
    root = _active.get()
    if root is None:
        with TemporaryDirectory(prefix="evenhand-") as folder:
            make(Path(folder))
            yield Path(folder)
        return
    if not (root / key).is_dir() or damage_of_artefact(root, key):
        _make(root, key, make)
    yield root / key


def refuse_making(key: str) -> None:
    """Refuse a key, or any making, before anything is done.

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
            make(unfinished)
            file_io.sync_tree(unfinished)
            seal_folder(unfinished, _checksums(root, key))
            unfinished.rename(root / key)
            file_io.sync_folder(root)
    except OSError as error:
        raise RunError(f"cannot keep what was trained in {root}: {error}; free some space or name another") from error


def damage_of_artefact(root: Path, key: str) -> str:
    """What is damaged in a finished artefact: "" where all of its files are as they were written.

    Its files are hashed once per process, and their hashes serve the fingerprint of a model in it as well.
    """
    return damage_of_folder(root / key, _checksums(root, key))


def finished(root: Path) -> list[str]:
    """The keys of the finished artefacts in a folder."""
    folders = sorted(path for path in root.glob("[!.]*") if path.is_dir())
    return [path.name for path in folders if file_io.DAMAGED not in path.name]


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
