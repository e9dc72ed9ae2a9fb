"""JSON files of model folders, which may be by anybody: what is too large or nested too deep is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from evenhand.core.nesting import deeper
from evenhand.errors import EvenhandError, reason

DEEPEST = 50
"""Levels of a JSON file that evenhand never reaches."""
LARGEST_FILE = 64 * 2**20
"""Bytes of a JSON file that evenhand never reaches."""


def read_json(file: Path, *, unique: bool = False) -> dict[str, Any]:
    """An object from a JSON file.

    Args:
        file: The file.
        unique: Whether a key that an object has twice is refused, at any depth; else the last one counts, as in other
            libraries that read the same file.

    Raises:
        EvenhandError: There is none in it, or a key is there twice.
    """
    content = read_value(file, unique=unique)
    if not isinstance(content, dict):
        raise EvenhandError(f"cannot read {file}: it holds no JSON object")
    return content


def read_value(file: Path, *, unique: bool = False) -> Any:
    """Any value from a JSON file.

    Args:
        file: The file.
        unique: As for `read_json`.

    Raises:
        EvenhandError: The file is missing, not JSON, too large or nested too deep, or a key is there twice.
    """
    try:
        if (size := file.stat().st_size) > LARGEST_FILE:
            raise EvenhandError(f"cannot read {file}: it has {size:,} bytes, more than {LARGEST_FILE:,}")
        content = json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=_once if unique else None)
    except (OSError, ValueError, RecursionError) as error:
        raise EvenhandError(f"cannot read {file}: {reason(error)}") from error
    if deeper(content, DEEPEST):
        raise EvenhandError(f"cannot read {file}: its values are nested more than {DEEPEST} deep")
    return content


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object none of whose keys is there twice: of two values, different readers might take different ones."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key[:200]!r} is there twice in one object; remove one of them")
        found[key] = value
    return found
