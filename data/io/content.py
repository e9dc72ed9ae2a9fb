"""The content of a file in bytes, unpacked."""

from __future__ import annotations

import gzip
from pathlib import Path

from evenhand.errors import DataError


def read_bytes(path: Path) -> bytes:
    """The content of a file, unpacked where its name ends in .gz.

    Raises:
        DataError: It cannot be read or unpacked.
    """
    try:
        raw = path.read_bytes()
        return gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (OSError, EOFError, gzip.BadGzipFile) as error:
        raise DataError(f"cannot read {path}: {error}") from error
