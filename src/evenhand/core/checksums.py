"""Checksums of stored files, which are verified when they are read.

They detect damage: flipped bits, truncated files, blocks of zeros. They are not signatures: whoever alters a file on
purpose can compute a new one. Three forms, by what is stored:

- JSON: the entry `checksum`, over the other entries (`sealed`, `unsealed`);
- a folder: a list of SHA-256 in the form of `sha256sum` (`seal_folder`, `damage_of_folder`), the hash that fingerprints
  of files use as well, so that a process hashes a file once for both;
- tables: in the metadata of the file, over its columns (`evenhand.core.answer_table`, `evenhand.core.run_folder`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from evenhand.core import file_io
from evenhand.core.hashing import checksum, file_hash
from evenhand.errors import RunError, reason

NAME = "checksum"
"""Key of the checksum in JSON."""
LIST = "checksums.sha256"
"""Name of the list of checksums in a folder of its own."""
CHANGED = "its content is not what was written"
MISSING = "it is missing"
LATER = "run again when it can be; nothing was changed"
"""What to do about a file that cannot be read for now."""
DATABASE = ".sqlite"
"""In the names of databases: their rows have checksums, and SQLite writes to a file whenever it opens it."""


class Unsealed(NamedTuple):
    """JSON that was read, without its checksum."""

    content: dict[str, Any]
    verified: bool
    """Whether it had a checksum, which files of earlier versions lack."""


class FileDamage(NamedTuple):
    """A damaged file, and why it counts as damaged."""

    name: str
    """Path relative to its folder."""
    why: str

    def __str__(self) -> str:
        """Describe the damage."""
        return f"{self.name} is missing" if self.why == MISSING else f"{self.name}: {self.why}"


def sealed(content: Mapping[str, Any]) -> str:
    """Write an object as JSON with its checksum, as it is stored in a file; other values are written as their `str`."""
    plain = {name: value for name, value in content.items() if name != NAME}
    text = json.dumps(plain, indent=2, ensure_ascii=False, default=str)
    entry = f'  "{NAME}": "{checksum(_compact(json.loads(text)))}"'
    return f"{text.removesuffix('}').rstrip()}{',' * bool(plain)}\n{entry}\n}}"


def unsealed(text: str) -> Unsealed:
    """Read JSON that `sealed` wrote, and verify its checksum.

    Raises:
        ValueError: It is not JSON, not an object, or does not match its checksum.
    """
    try:
        content = json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(content, dict):
        raise ValueError("it is not a JSON object")
    stated = content.pop(NAME, None)
    if stated is not None and stated != checksum(_compact(content)):
        raise ValueError(CHANGED)
    return Unsealed(content, stated is not None)


def seal_folder(folder: Path, target: Path, names: Sequence[str] = ()) -> None:
    """Write the checksums of the files below a folder.

    Args:
        folder: A finished folder. Databases in it are left out, and so is what was moved aside as damaged.
        target: The file to write, in this folder or elsewhere.
        names: Relative names of the files; empty takes all.

    Raises:
        OSError: A file cannot be read or written.
    """
    files = {name: folder / name for name in names} or _files(folder)
    lines = "".join(f"{file_hash(file)}  {name}\n" for name, file in files.items() if file != target)
    file_io.write_bytes(target, f"{lines}# {checksum(lines)}\n".encode())


def damage_of_folder(folder: Path, listed: Path) -> str:
    """Describe the first damage in a folder, "" if every file is as it was written; see `damaged_file`."""
    found = damaged_file(folder, listed)
    return "" if found is None else str(found)


def damaged_file(folder: Path, listed: Path) -> FileDamage | None:
    """Find the first damaged file of a folder; None if every file is as it was written.

    Nothing is opened but the files that are in the folder, whatever the list names.

    Args:
        folder: Folder with the files.
        listed: File that `seal_folder` wrote. If it is missing, nothing is known, and nothing counts as damaged.

    Raises:
        RunError: The machine cannot read a file now, which says nothing about its content.
    """
    if not listed.is_file():
        return None
    try:
        known, files = _listed(listed), _files(folder)
        for name, stated in known.items():
            if name not in files:
                return FileDamage(name, MISSING)
            if file_hash(files[name]) != stated:
                return FileDamage(name, CHANGED)
    except ValueError:
        return FileDamage(listed.name, CHANGED)
    except OSError as error:
        if not file_io.may_pass(error):
            return FileDamage(listed.name, str(error))
        raise RunError(f"{folder} cannot be read ({reason(error)}); {LATER}") from error
    return None


def _listed(file: Path) -> dict[str, str]:
    lines, _, stated = file.read_bytes().decode().rpartition("# ")
    if stated != f"{checksum(lines)}\n":
        raise ValueError(CHANGED)
    # not `splitlines`, which also splits names with one of Unicode's other line ends
    parts = (line.partition("  ") for line in lines.removesuffix("\n").split("\n") if line)
    return {name: digest for digest, _, name in parts if file_io.DAMAGED not in name}


def _files(folder: Path) -> dict[str, Path]:
    """Find all files below a folder by relative name, without databases and what was moved aside."""
    found = sorted(path for path in folder.rglob("*") if path.is_file() and DATABASE not in path.name)
    named = {path.relative_to(folder).as_posix(): path for path in found}
    return {name: path for name, path in named.items() if file_io.DAMAGED not in name}


def _compact(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))
