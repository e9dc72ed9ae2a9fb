"""The official files of the benchmarks: their hashes, and where each can be fetched from."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path, PurePosixPath
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
    packed = _verdicts(folder, known.packed)
    if packed and "missing" not in packed.values():
        return packed
    return _verdicts(folder, known.files)


def not_compared(folder: Path, compared: Collection[str]) -> list[str]:
    """Files of a data set's folder that have no published hash, such as those of a hub copy.

    Args:
        folder: Where the data set lies.
        compared: Paths that `check` has compared.

    Returns:
        Paths in the folder, sorted; hidden files, licences and notes are left out.
    """
    seen = set(_located(folder, compared).values())
    there = [p for p in visible(folder, "**/*") if p.name.upper() not in NOTES and p not in seen]
    return sorted(p.relative_to(folder).as_posix() for p in there)


def _verdicts(folder: Path, published: Mapping[str, str]) -> dict[str, Verdict]:
    found = _located(folder, published)
    return {path: _verdict(found.get(path), digest) for path, digest in published.items()}


def _verdict(path: Path | None, digest: str) -> Verdict:
    if path is None:
        return "missing"
    return "official" if bytes_hash(unpacked(path)) == digest else "differs"


def _located(folder: Path, published: Collection[str]) -> dict[str, Path]:
    """Where those published files lie that are there: at their paths, else deeper or renamed, as readers find them."""
    found = {path: file for path in published if (file := _in_place(folder, path))}
    elsewhere = [PurePosixPath(path) for path in published if path not in found]
    if not elsewhere:
        return found
    depth = max(len(path.parts) for path in elsewhere) + len(PLACES) - 1
    there: dict[str, list[Path]] = {}
    for file in visible(folder, *("*/" * n + "*" for n in range(depth))):  # listed once, for all that are not in place
        there.setdefault(plain_name(file.name), []).append(file)
    nearest = {str(path): _nearest(folder, path, there.get(path.name, [])) for path in elsewhere}
    return found | {path: file for path, file in nearest.items() if file}


def _in_place(folder: Path, path: str) -> Path | None:
    """A published file at its path, or gzipped."""
    return next((file for file in (folder / path, folder / f"{path}.gz") if file.is_file()), None)


def _nearest(folder: Path, path: PurePosixPath, there: Sequence[Path]) -> Path | None:
    """Choose among files of one name: fewest folders around the published folder first, then exact names."""
    ranked = []
    for file in there:
        *around, name = file.relative_to(folder).parts
        deeper = len(around) - len(path.parent.parts)
        if 0 <= deeper < len(PLACES) and tuple(around[deeper:]) == path.parent.parts:
            ranked.append((deeper, name not in (path.name, f"{path.name}.gz"), file))
    return min(ranked)[2] if ranked else None


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(Path(__file__).with_name("official.json").read_text())
    return table
