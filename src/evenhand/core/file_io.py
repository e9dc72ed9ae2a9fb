"""Files that are written whole or not at all.

The content goes to a temporary file in the target's folder, which then takes the target's name. A reader sees the old
file or the new one, and a process that is killed, or a full disk, leaves the old one as it was.
"""

from __future__ import annotations

import glob
import os
import secrets
from collections.abc import Callable
from pathlib import Path


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
        os.replace(part, target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def remove(target: Path) -> None:
    """Remove a file, where it exists, and what killed processes left of it."""
    for file in (target, *target.parent.glob(f".{glob.escape(target.name)}.*.part")):
        file.unlink(missing_ok=True)
