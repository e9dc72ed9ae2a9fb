"""The official files of the benchmarks: their hashes, and where each can be fetched from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from evenhand.core.hashing import bytes_hash
from evenhand.data.io.content import read_bytes

RAW = "https://raw.githubusercontent.com"

Verdict = Literal["official", "differs", "missing"]


class Official(NamedTuple):
    """The files of one data set as published."""

    files: Mapping[str, str]
    """Path in the data set's folder to the SHA-256 of its content (unpacked, where the copy is gzipped)."""
    urls: Mapping[str, str]
    """Path to the address that it is fetched from, without the host; empty where there is none."""


@cache
def official(name: str) -> Official:
    """What is known of a data set's files; nothing for one that keeps no public hashes (GPQA, on purpose)."""
    facts = _table().get(name, {})
    files = dict(facts.get("files", {}))
    if "repository" not in facts:
        return Official(files, {})
    base = f"/{facts['repository']}/{facts['commit']}/{facts['folder']}"
    renamed = facts.get("renamed", {})
    return Official(files, {path: base + renamed.get(path, path) for path in files})


def check(name: str, folder: Path) -> dict[str, Verdict]:
    """Compare a data set's files with the published ones.

    Args:
        name: The data set.
        folder: Where it lies; a file may be gzipped (its name then ends in .gz).

    Returns:
        Verdict by path, of every published file.
    """
    return {path: _verdict(folder / path, digest) for path, digest in official(name).files.items()}


def _verdict(path: Path, digest: str) -> Verdict:
    found = next((p for p in (path, path.with_name(f"{path.name}.gz")) if p.is_file()), None)
    if found is None:
        return "missing"
    return "official" if bytes_hash(read_bytes(found)) == digest else "differs"


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(Path(__file__).with_name("official.json").read_text())
    return table
