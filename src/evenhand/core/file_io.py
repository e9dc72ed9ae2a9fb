"""Files that are written whole or not at all.

The content goes to a temporary file in the target's folder, which then takes the target's name. A reader sees the old
file or the new one, and a process that is killed, a full disk or a power cut leaves the old one as it was: the content
is on the disk before the name is, and the name before the call returns.

What turns out to be damaged is not deleted: `move_aside` gives it another name, so that it can be looked at.
"""

from __future__ import annotations

import errno
import glob
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path

DAMAGED = ".damaged-"
"""Between the name of what was moved aside and its number."""
LOST = frozenset(number for number, name in errno.errorcode.items() if name in ("ENOSPC", "EIO", "EDQUOT"))
"""Errors that mean that content did not reach the disk."""


def write_text(target: Path, text: str) -> None:
    """Write text in UTF-8; see `write_with`."""
    write_with(target, lambda part: part.write_text(text, encoding="utf-8"))


def write_bytes(target: Path, content: bytes) -> None:
    """Write bytes; see `write_with`."""
    write_with(target, lambda part: part.write_bytes(content))


def write_with(target: Path, write: Callable[[Path], object]) -> None:
    """Let a function write a file, which then replaces the target.

    Args:
        target: The file; its folder must exist.
        write: Writes the whole content to the path that it is given.

    Raises:
        OSError: It cannot be written. The target is as it was, and nothing is left next to it.
    """
    # A random name, as two processes may write the same file; no mkstemp, whose files others may not read.
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        write(part)
        _sync(part)
        os.replace(part, target)
        sync_folder(target.parent)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def remove(target: Path) -> None:
    """Remove a file, where it exists, and what killed processes left of it."""
    for file in (target, *target.parent.glob(f".{glob.escape(target.name)}.*.part")):
        file.unlink(missing_ok=True)


def sync_tree(folder: Path) -> None:
    """Have all files below a folder, and the folder, on the disk before this returns.

    Raises:
        OSError: The disk is full or broken.
    """
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            sync_folder(path)
        elif path.is_file():
            _sync(path)
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk; where a system cannot do so for folders, nothing happens."""
    with suppress(OSError):  # Windows opens no folder, and some network file systems sync none
        _sync(folder)


def move_aside(path: Path, into: Path | None = None) -> Path:
    """Rename what is damaged to NAME.damaged-1, or the next number that is free.

    Args:
        path: A file or folder. Where another process has moved it already, nothing happens.
        into: The folder that it goes to; None keeps it where it is.

    Returns:
        The new path.

    Raises:
        OSError: It cannot be moved.
    """
    named = ((into or path.parent) / f"{path.name}{DAMAGED}{number}" for number in count(1))
    aside = next(place for place in named if not os.path.lexists(place))
    with suppress(FileNotFoundError):
        os.rename(path, aside)
    return aside


def may_pass(error: BaseException | None) -> bool:
    """Whether an error is of the machine rather than of a file's content: no memory, or what the system refuses.

    A sound file gives these as well, and is sound again once the trouble is over.

    Args:
        error: What reading a file raised. Libraries raise OSError for damaged content, too, but without an errno.
    """
    if isinstance(error, MemoryError):
        return True
    # what is missing is lost, and a damaged file can lead to a place before its beginning
    return isinstance(error, OSError) and error.errno not in (None, errno.ENOENT, errno.EINVAL)


def _sync(path: Path) -> None:
    """Have one file or folder on the disk, where the system can; a full or broken disk is an error."""
    try:
        handle = os.open(path, os.O_RDWR)  # Windows syncs only what may be written
    except OSError:  # a folder, or a file that may only be read
        handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:  # EINVAL, EBADF: of this kind of file, or on this file system, it cannot be asked
        if error.errno in LOST:
            raise
    finally:
        os.close(handle)
