"""Files that are written whole or not at all.

The content goes to a temporary file in the target's folder, which then takes the target's name. A reader sees the old
file or the new one, and a process that is killed, a full disk or a power cut leaves the old one as it was: the content
is on the disk before the name is, and the name before the call returns.

Damaged files are not deleted: `move_aside` renames them, so that they can be inspected.
"""

from __future__ import annotations

import errno
import glob
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from evenhand.core.text_output import size

DAMAGED = ".damaged-"
"""Separates the name of a file that was moved aside from its number."""
PART = re.compile(r"\..+\.[0-9a-f]{8}\.part", re.DOTALL)
"""Name of a file that is being written."""
LOST = frozenset(number for number, name in errno.errorcode.items() if name in ("ENOSPC", "EIO", "EDQUOT"))
"""Errors that mean that content did not reach the disk."""
NO_SPACE = frozenset(number for number, name in errno.errorcode.items() if name in ("ENOSPC", "EDQUOT", "EFBIG"))
NO_SPACE_TEXTS = ("No space left on device", "File too large", "Disk quota exceeded", "database or disk is full")
"""Texts of these errors from libraries that drop the number."""


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
    """Remove a file, if it exists, and what killed processes left of it."""
    for file in (target, *target.parent.glob(f".{glob.escape(target.name)}.*.part")):
        file.unlink(missing_ok=True)


def remove_parts(folder: Path) -> None:
    """Remove unfinished files that killed processes left in a folder; no process may be writing there now."""
    for file in folder.glob(".*.part"):
        if PART.fullmatch(file.name) and file.is_file():
            file.unlink(missing_ok=True)


@contextmanager
def folder_for(wanted: str | Path | None) -> Iterator[Path]:
    """Yield the wanted folder, which the caller creates, or an existing temporary one if none is wanted."""
    if wanted is not None:
        yield Path(wanted)
        return
    with TemporaryDirectory(prefix="evenhand-") as place:
        yield Path(place)


def sync_tree(folder: Path) -> None:
    """Write all files below a folder, and the folder, to disk before returning.

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
    """Write the names in a folder to disk; does nothing on systems that cannot do so for folders."""
    with suppress(OSError):  # Windows opens no folder, and some network file systems sync none
        _sync(folder)


def move_aside(path: Path, into: Path | None = None) -> Path:
    """Rename a damaged file or folder to NAME.damaged-1, or the next number that is free.

    Args:
        path: A file or folder. If another process has moved it already, nothing happens.
        into: The folder to move it to; None keeps it where it is.

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


def space(folder: Path, needed: int) -> str:
    """Say how much space is needed and free, for the message about a file that could not be written.

    Args:
        folder: Folder of the file; it need not exist.
        needed: Number of bytes.
    """
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    return f"it takes about {size(needed)}, and {size(shutil.disk_usage(there).free)} are free"


def lacks_space(error: BaseException | None) -> bool:
    """Whether an error comes from a full disk, an exhausted quota or a limit on the size of files.

    Args:
        error: What writing raised; errors of other libraries are recognized by their text.
    """
    while error is not None:
        if (isinstance(error, OSError) and error.errno in NO_SPACE) or any(
            text in str(error) for text in NO_SPACE_TEXTS
        ):
            return True
        error = error.__cause__ or error.__context__
    return False


def may_pass(error: BaseException | None) -> bool:
    """Whether an error comes from the machine rather than from a file's content: no memory, or access refused.

    An intact file can raise these too, and is readable again once the trouble is over.

    Args:
        error: What reading a file raised. Libraries raise OSError for damaged content, too, but without an errno.
    """
    if isinstance(error, MemoryError):
        return True
    # a missing file is lost, and a damaged one can make a reader seek before its beginning
    return isinstance(error, OSError) and error.errno not in (None, errno.ENOENT, errno.EINVAL)


def _sync(path: Path) -> None:
    """Write one file or folder to disk, if the system can; a full or broken disk is an error."""
    try:
        handle = os.open(path, os.O_RDWR)  # Windows syncs only what may be written
    except OSError:  # a folder, or a file that may only be read
        handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:  # EINVAL, EBADF: not possible for this kind of file, or on this file system
        if error.errno in LOST:
            raise
    finally:
        os.close(handle)
