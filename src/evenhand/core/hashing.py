"""Hashes of JSON-able parts and of the files in a folder, which name cached answers, artifacts and models."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

CONTENT = ("*.safetensors", "*.bin", "*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken")
"""Files of a model folder that decide what it answers."""


def digest(*parts: Any) -> str:
    """Short hash (128 bits) of JSON-able parts."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def of_folder(folder: Path) -> str:
    """Hash of the content files directly in `folder`."""
    files = sorted({f for pattern in CONTENT for f in folder.glob(pattern) if f.is_file()})
    return digest([(f.name, _file_hash(str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns)) for f in files])


@lru_cache(maxsize=4096)
def _file_hash(path: str, size: int, modified: int) -> str:  # size and time only make the cache key
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
