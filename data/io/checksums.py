"""The official files of the benchmarks: their hashes, and where each can be fetched from."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from evenhand.core.hashing import bytes_hash
from evenhand.data.io.content import unpacked
from evenhand.data.io.on_disk import NOTES, PLACES, plain_name, visible

RAW = "https://raw.githubusercontent.com"

Verdict = Literal["official", "differs", "missing"]


class Official(NamedTuple):
    """The files of one data set as published."""

    files: Mapping[str, str]
    """Path in the data set's folder to the SHA-256 of its content (unpacked, where the copy is gzipped)."""
    urls: Mapping[str, str]
    """Path to the address that it is fetched from, without the host; empty where there is none."""
    packed: Mapping[str, str] = MappingProxyType({})
    """Files, with their SHA-256, of a copy that has the content of all others in another form."""


@cache
def official(name: str) -> Official:
    """What is known of a data set's files; nothing for one that keeps no public hashes (GPQA, on purpose)."""
    facts = _table().get(name, {})
    files = dict(facts.get("files", {}))
    if "repository" not in facts:
        return Official(files, {})
    base = f"/{facts['repository']}/{facts['commit']}/{facts['folder']}"
    renamed = facts.get("renamed", {})
    urls = {path: base + renamed.get(path, path) for path in files}
    return Official(files, urls, dict(facts.get("packed", {})))


def check(name: str, folder: Path) -> dict[str, Verdict]:
    """Compare a data set's files with the published ones.

    Args:
        name: The data set.
        folder: Where it lies; a file may be gzipped (its name then ends in .gz), renamed as a copy ("name (1).csv") or
            up to four folders deeper than published.

    Returns:
        Verdict by path, of every published file; of the packed form alone where the folder has that one.
    """
    known = official(name)
    packed = {path: _verdict(_located(folder, path), digest) for path, digest in known.packed.items()}
    if packed and "missing" not in packed.values():
        return packed
    return {path: _verdict(_located(folder, path), digest) for path, digest in known.files.items()}


def not_compared(folder: Path, compared: Collection[str]) -> list[str]:
    """Files of a data set's folder that have no published hash, such as those of a hub copy.

    Args:
        folder: Where the data set lies.
        compared: Paths that `check` has compared.

    Returns:
        Paths in the folder, sorted; hidden files, licences and notes are left out.
    """
    seen = {_located(folder, path) for path in compared}
    there = [p for p in visible(folder, "**/*") if p.name.upper() not in NOTES and p not in seen]
    return sorted(p.relative_to(folder).as_posix() for p in there)


def _verdict(path: Path | None, digest: str) -> Verdict:
    if path is None:
        return "missing"
    return "official" if bytes_hash(unpacked(path)) == digest else "differs"


def _located(folder: Path, path: str) -> Path | None:
    """Where a published file lies: at its path, else deeper or renamed, as the readers find it; None where nowhere."""
    parent, _, name = path.rpartition("/")
    exact = (name, f"{name}.gz")
    for kept in exact:
        if (folder / parent / kept).is_file():
            return folder / parent / kept
    for place in PLACES:
        pattern = f"{place}{parent}/*" if parent else f"{place}*"
        found = [file for file in visible(folder, pattern) if plain_name(file.name) == name]
        if found:
            return min(found, key=lambda f: (f.name not in exact, f))
    return None


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(Path(__file__).with_name("official.json").read_text())
    return table
