"""Checkpoints as folders, each complete or absent, with the checksums of its files.

Each is written under another name and renamed when it is complete; only then are earlier ones removed. A damaged one is
moved aside, and the previous one is used if there is one.
"""

from __future__ import annotations

import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

from evenhand.core import file_io
from evenhand.core.checksums import LIST, damage_of_folder, seal_folder
from evenhand.errors import RunError, reason

PREFIX = "checkpoint"
NAME = re.compile(rf"{PREFIX}-\d+", re.ASCII)
ASIDE = re.compile(rf"{NAME.pattern}{re.escape(file_io.DAMAGED)}\d+", re.ASCII)
"""Name of a damaged checkpoint that was moved aside."""
PART = re.compile(rf"\.{NAME.pattern}\.part", re.ASCII)
"""Name of a checkpoint that is being written."""


class CheckpointFolders:
    """The checkpoints in one folder, by number."""

    def __init__(self, folder: Path | None) -> None:
        """Use a folder.

        Args:
            folder: Folder of the checkpoints; None keeps none.
        """
        self.folder = folder

    def keep(self, number: int, size: int, write: Callable[[Path], object]) -> None:
        """Write a checkpoint next to the last one, and only then remove the earlier ones.

        Args:
            number: Such as the number of epochs; the last checkpoint is the one with the largest.
            size: Approximate size in bytes, for the message if it cannot be written.
            write: Function that fills an empty folder.

        Raises:
            RunError: It cannot be written; the previous one is unchanged.
        """
        if self.folder is None:
            return
        fresh = self.folder / f"{PREFIX}-{number:05d}"
        part = self.folder / f".{fresh.name}.part"
        try:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            write(part)
            seal(part)
            part.rename(fresh)
            file_io.sync_folder(self.folder)
        except Exception as error:  # safetensors and torch raise errors of their own when the disk is full
            shutil.rmtree(part, ignore_errors=True)
            raise RunError(
                f"cannot write the checkpoint {fresh} ({reason(error)}; {file_io.space(self.folder, size)}); free some "
                "space and run again: the training continues from the previous one"
            ) from error
        for old in self.all()[:-1]:
            shutil.rmtree(old)

    def last(self) -> Path | None:
        """Return the last checkpoint that is not damaged; later ones are moved aside, with a warning."""
        for folder in reversed(self.all()):
            why = damage_of_folder(folder, folder / LIST)
            if not why:
                return folder
            set_aside(folder, why)
        return None

    def all(self, name: re.Pattern[str] = NAME) -> list[Path]:
        """Return all checkpoints, the last one at the end.

        Args:
            name: Pattern of their names.
        """
        found = [] if self.folder is None else [path for path in self.folder.glob("*") if name.fullmatch(path.name)]
        return sorted(found, key=lambda path: int(path.name.removeprefix(".").split("-")[1].split(".")[0]))

    def remove(self) -> None:
        """Remove all checkpoints, including those moved aside and those that a killed process left incomplete."""
        for name in (NAME, ASIDE, PART):
            for folder in self.all(name):
                shutil.rmtree(folder)


def seal(folder: Path) -> None:
    """Flush a checkpoint to the disk, and write its checksums.

    Raises:
        OSError: The disk is full or broken.
    """
    file_io.sync_tree(folder)
    seal_folder(folder, folder / LIST)


def set_aside(folder: Path, why: str) -> None:
    """Rename a damaged checkpoint, with a warning."""
    aside = file_io.move_aside(folder)
    warnings.warn(
        f"the checkpoint {folder} is damaged ({why}): it is now {aside.name}, and the training continues from the "
        "previous one, or starts again",
        UserWarning,
        stacklevel=4,
    )
