"""The content of a file in bytes, unpacked; placeholders of files that were never downloaded are refused."""

from __future__ import annotations

import gzip
import re
import zlib
from pathlib import Path

from evenhand.data.io.rows import decoded
from evenhand.errors import DataError, reason

BROKEN = (OSError, EOFError, zlib.error)
"""Errors of reading a file, including packed ones."""
HEAD = 1024
"""Number of bytes that identify a file; a pointer of git-lfs is shorter."""
EMPTY = "is empty (0 bytes); download it again"
_POINTER = re.compile(rb"version https://git-lfs\.github\.com/spec/v\d")
_POINTER_SIZE = re.compile(rb"^size (\d+)", re.MULTILINE)
_PAGE = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype\s+html|html)\b", re.IGNORECASE)

_UTF_16 = "is not UTF-8 but UTF-16, as Excel and PowerShell write it; save it as UTF-8"
_OTHERS = {
    b"\xff\xfe": _UTF_16,
    b"\xfe\xff": _UTF_16,
    b"\x1f\x8b": "is packed by gzip; add .gz to its name",
    b"PK\x03\x04": "is a zip archive (or an Excel sheet), not data; unpack it, or save the sheet as csv",
}
"""Beginnings of files that are not data, with the reason to refuse them."""


def read_bytes(path: Path, *, empty: bool = False) -> bytes:
    """Read a data file, unpacked if its name ends in .gz.

    Args:
        path: The file.
        empty: Whether a file without content is given to the caller, which then reports it as one of several problems.

    Raises:
        DataError: It cannot be read or unpacked, or is not data (see `no_data`).
    """
    content = unpacked(path)
    if reason := no_data(content[:HEAD], empty=empty):
        raise DataError(f"{path} {reason}")
    return content


def unpacked(path: Path) -> bytes:
    """Read any file, unpacked if its name ends in .gz.

    Raises:
        DataError: It cannot be read or unpacked.
    """
    try:
        raw = path.read_bytes()
        packed = path.suffix == ".gz" and not _POINTER.match(raw)  # git-lfs keeps the name of what it points to
        return gzip.decompress(raw) if packed else raw
    except BROKEN as error:
        raise DataError(_why(path, error)) from error


def text_of(path: Path, content: bytes) -> str:
    """Decode the content of a text file; see `evenhand.data.io.rows.decoded`.

    Raises:
        DataError: It is not UTF-8; the message names the line.
    """
    try:
        return decoded(content)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}:{line}: not UTF-8: {error.reason} at byte {error.start}") from error


def unpacked_head(path: Path) -> bytes:
    """Read the first `HEAD` bytes of a file, unpacked as in `unpacked`; for files that are read piece by piece.

    Raises:
        DataError: It cannot be read or unpacked.
    """
    try:
        with path.open("rb") as handle:
            head = handle.read(HEAD)
        if path.suffix != ".gz" or _POINTER.match(head):
            return head
        with gzip.open(path, "rb") as handle:
            return handle.read(HEAD)
    except BROKEN as error:
        raise DataError(_why(path, error)) from error


def _why(path: Path, error: Exception) -> str:
    """Return why a file cannot be read, with the remedy for a packed one."""
    if isinstance(error, gzip.BadGzipFile) and "Not a gzipped file" in str(error):
        return f"cannot read {path}: not packed by gzip; take .gz off its name, or download it again"
    if isinstance(error, EOFError | zlib.error | gzip.BadGzipFile):
        return f"cannot read {path}: the packed content is broken ({reason(error)}); download it again"
    return f"cannot read {path}: {error}"


def no_data(head: bytes, *, empty: bool = False) -> str:
    """Return why a file is not the data that its name promises, with the remedy; "" if it may be.

    Args:
        head: The beginning of its content, `HEAD` bytes or all of it.
        empty: Whether a file without content is accepted.

    Returns:
        The rest of a sentence that begins with the file's name.
    """
    if _POINTER.match(head):
        size = _POINTER_SIZE.search(head)
        of = f"a file of {int(size[1]):,} bytes" if size and len(size[1]) < 20 else "a file"
        return f"is a pointer of git-lfs to {of}, not the file itself; run `git lfs pull` in its repository"
    for mark, why in _OTHERS.items():
        if head.startswith(mark):
            return why
    if _PAGE.match(head):
        return "is a web page (html), not data: such as a login or preview page; download the raw file again"
    return "" if head or empty else EMPTY
