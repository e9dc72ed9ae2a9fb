"""Hashes of bytes, texts, JSON-able content and the files in a folder, which name what is stored.

Every hash that is stored or compared with a published one is made here; `evenhand.core.draws` makes those that draws
depend on. Three rules turn content into bytes. Each has named stored content, so none can be replaced by another:

- `json_hash` and `digest`: JSON with sorted keys in ASCII, and `str` of what JSON does not know;
- `evenhand.core.answer_cache.key`: compact JSON with sorted keys in UTF-8, which refuses what JSON does not know;
- `evenhand.core.answer_cache.contents`: one compact JSON line per benchmark item, fields in their order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

CONTENT = ("*.safetensors", "*.bin", "*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken")
"""Files of a model folder that decide what it answers."""


def bytes_hash(*parts: bytes | memoryview) -> str:
    """SHA-256 of bytes in hexadecimal; several parts are read as one, without a copy."""
    return stream_hash(parts)


def stream_hash(parts: Iterable[bytes | memoryview]) -> str:
    """`bytes_hash` of parts that need not be in memory together."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()


def text_hash(text: str) -> str:
    """SHA-256 of a text in UTF-8, in hexadecimal; lone surrogates, which models may write, are accepted."""
    return bytes_hash(utf8(text))


def short_text_hash(text: str) -> str:
    """BLAKE2b (96 bits) of a text, in hexadecimal; cells record it for the requests that gave their answers."""
    return hashlib.blake2b(utf8(text), digest_size=12).hexdigest()


def checksum(text: str) -> str:
    """BLAKE2b (64 bits) of a text, in hexadecimal: it detects damage, but no deliberate change."""
    return hashlib.blake2b(utf8(text), digest_size=8).hexdigest()


def utf8(text: str) -> bytes:
    """Encode a text in UTF-8, lone surrogates as if they were characters."""
    return text.encode("utf-8", "surrogatepass")


def json_hash(content: Any) -> str:
    """SHA-256 of JSON-able content in hexadecimal; callers cut it to the length that they need."""
    return text_hash(json.dumps(content, sort_keys=True, default=str))


def digest(*parts: Any) -> str:
    """Short hash (128 bits) of JSON-able parts."""
    return json_hash(parts)[:32]


def of_folder(folder: Path) -> str:
    """Hash of the content files directly in `folder`."""
    files = sorted({f for pattern in CONTENT for f in folder.glob(pattern) if f.is_file()})
    return digest([(f.name, file_hash(f)) for f in files])


def file_hash(file: Path) -> str:
    """SHA-256 of a file in hexadecimal, cached until the file's size or time changes.

    Raises:
        OSError: It cannot be read.
    """
    stat = file.stat()
    return _file_hash(str(file.resolve()), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=4096)
def _file_hash(path: str, size: int, modified: int) -> str:  # size and time only make the cache key
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
