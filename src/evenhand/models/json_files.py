"""Read JSON files of untrusted model folders: files that are too large or nested too deep are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from evenhand.core.nesting import deeper
from evenhand.errors import EvenhandError, reason

DEEPEST = 50
"""Maximum depth of a JSON file; evenhand's own files never reach it."""
LARGEST_FILE = 64 * 2**20
"""Maximum size of a JSON file in bytes; evenhand's own files never reach it."""


def read_json(file: Path, *, unique: bool = False) -> dict[str, Any]:
    """Read an object from a JSON file.

    Args:
        file: The file.
        unique: Whether to refuse a duplicate key in an object, at any depth; else the last one counts, as in other
            libraries that read the same file.

    Raises:
        EvenhandError: The file contains no JSON object, cannot be read, or has a duplicate key.
    """
    content = read_value(file, unique=unique)
    if not isinstance(content, dict):
        raise EvenhandError(f"cannot read {file}: it does not contain a JSON object")
    return content


def read_value(file: Path, *, unique: bool = False) -> Any:
    """Read any value from a JSON file.

    Args:
        file: The file.
        unique: As for `read_json`.

    Raises:
        EvenhandError: The file is missing, not JSON, too large or nested too deep, or has a duplicate key.
    """
    try:
        if (size := file.stat().st_size) > LARGEST_FILE:
            raise EvenhandError(f"cannot read {file}: it has {size:,} bytes, more than {LARGEST_FILE:,}")
        content = json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=_once if unique else None)
    except (OSError, ValueError, RecursionError) as error:
        raise EvenhandError(f"cannot read {file}: {reason(error)}") from error
    if deeper(content, DEEPEST):
        raise EvenhandError(f"cannot read {file}: its values are nested more than {DEEPEST} levels deep")
    return content


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object, refusing duplicate keys: different readers might use different values."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key[:200]!r} occurs twice in one object; remove one of them")
        found[key] = value
    return found
