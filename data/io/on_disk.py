"""The files of a folder as people have them: no hidden ones, under changed names, one folder deeper."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from evenhand import errors
from evenhand.errors import DataError

SHOWN = 5
"""Names that a message lists."""
COLUMNS = 12
"""Names of columns that a message lists."""
WIDTH = 40
"""Characters of a name that a message shows."""
NOTES = ("LICENSE", "LICENSE.TXT", "LICENSE.MD", "README.MD", "README", "README.TXT", "SOURCE.MD")
"""Files in capitals that describe a data set and are not part of it."""
PLACES = ("", "*/", "*/*/", "*/*/*/", "*/*/*/*/")
"""Depths at which a file is looked for, the nearest first; Windows unpacks an archive into one more folder."""
ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar")
_SYSTEM = ("__MACOSX",)
_RENAMED = re.compile(r"^Copy of |(?: ?\(\d+\)| - Copy)(?=\.|$)")
"""What browsers, Google Drive and Windows add to the name of a further copy."""


def is_visible(file: Path, folder: Path) -> bool:
    """Whether a file below a folder is one of the user's: not hidden, as .cache and ._copy are, nor the system's."""
    return not any(part.startswith(".") or part in _SYSTEM for part in file.relative_to(folder).parts)


def visible(folder: Path, *patterns: str) -> list[Path]:
    """The visible files of a folder that match one of the patterns, sorted by path."""
    found = {file for pattern in patterns for file in folder.glob(pattern) if file.is_file()}
    return sorted(file for file in found if is_visible(file, folder))


def plain_name(name: str) -> str:
    """A file's name as it was published: without " (1)", "Copy of " and the like, and without .gz."""
    return _RENAMED.sub("", name).removesuffix(".gz")


def named(folder: Path, name: str, places: Sequence[str] = PLACES) -> Path | None:
    """The file of a name, also gzipped, renamed as a copy ("name (1).csv"), or in folders within.

    Args:
        folder: Where to look.
        name: The published name.
        places: Folders as patterns, each ending in "/"; the first with such a file counts.

    Returns:
        The file; the exact name goes before a renamed one. None where there is none.

    Raises:
        DataError: Several files could be meant; the message names them.
    """
    for place in places:
        there = [file for file in visible(folder, f"{place}*") if plain_name(file.name) == name]
        for kept in (name, f"{name}.gz"):
            exact = [file for file in there if file.name == kept]
            if exact:
                there = exact
                break
        if len(there) > 1:
            raise DataError(f"{folder} has {name} in {listed(there, folder)}; keep one of them, or name it")
        if there:
            return there[0]
    return None


def without_copies(files: Sequence[Path]) -> tuple[list[Path], dict[Path, str]]:
    """Files without the renamed or packed copies of others in the same folder.

    Returns:
        The files that are kept, and of each other one the name of the file that it is a copy of, by its own name.
    """
    kept = {(file.parent, file.name) for file in files if plain_name(file.name) == file.name}
    copies = {
        file: plain_name(file.name)
        for file in files
        if plain_name(file.name) != file.name and (file.parent, plain_name(file.name)) in kept
    }
    return [file for file in files if file not in copies], copies


def further(folder: Path, names: Sequence[str], read: Collection[Path]) -> list[Path]:
    """Files of some published names, or their renamed copies, that lie in a folder and were not read."""
    found = visible(folder, *(f"{place}*" for place in PLACES)) if folder.is_dir() else []
    return [file for file in found if plain_name(file.name) in names and file not in read]


def inner(path: Path) -> Path | None:
    """The only folder in a folder, as an archive unpacks; None where anything but notes and archives is next to it."""
    if not path.is_dir():
        return None
    there = [p for p in path.iterdir() if is_visible(p, path) and p.name.upper() not in NOTES]
    there = [p for p in there if p.is_dir() or p.suffix.lower() not in ARCHIVES]
    return there[0] if len(there) == 1 and there[0].is_dir() else None


def short(name: str, width: int = WIDTH) -> str:
    """A name for a message: on one line, with its middle left out where it is long."""
    return errors.short(name, width)


def few(names: Iterable[str], most: int = SHOWN) -> str:
    """The first names for a message, with a sign that there are more."""
    every = list(names)
    return ", ".join(short(name) for name in every[:most]) + (", ..." if len(every) > most else "")


def listed(files: Sequence[Path], folder: Path) -> str:
    """The number of files and the first few names, for a message."""
    names = (str(file.relative_to(folder)) if folder in file.parents else file.name for file in files)
    return f"{len(files)} {'file' if len(files) == 1 else 'files'} ({few(names)})"


def unread(files: Sequence[Path], folder: Path, why: str) -> list[str]:
    """A note on files that could have been meant and were not read; none where there are none.

    Args:
        files: Those left unread.
        folder: The data set's.
        why: What was read in their place, such as "the official files".
    """
    return [f"not read, as {why}: {listed(files, folder)}; to read one, name it as the source"] if files else []
