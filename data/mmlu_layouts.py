"""Which files of a folder are one copy of MMLU: the layouts, their splits, and what is left unread.

A folder may have several copies (csv files and parquet, all subjects in one table and by subject, a folder per
language). One layout is read; reading two would ask a question twice.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from evenhand.data.io import layouts, on_disk
from evenhand.data.io.content import read_bytes
from evenhand.data.io.locate import Problems, stem
from evenhand.errors import DataError

SPLIT_NAMES = {"dev": ("dev", "validation"), "val": ("validation", "val"), "test": ("test", "data")}
"""Names that a split's files have, the first one that is there. MMLU-Pro's demonstrations are its validation split;
`data-*` is the only split of MMLU-Redux."""
KNOWN = (
    "csv files in dev/, val/ and test/, and parquet or arrow files by subject, in all/ or in data/ as in MMLU, "
    "MMLU-Pro, MMLU-Redux and Global-MMLU"
)
CSV, DIRECT, DATA, ALL, FOLDERS = "csv files", "tables in the folder itself", "data/", "all/", "folders by subject"
_PRECEDENCE = (CSV, DIRECT, DATA, FOLDERS, ALL)
_TABLES = (".parquet", ".arrow", ".jsonl")
_NO_SUBJECT = "auxiliary_train"
_SPLIT_FOLDERS = ("dev", "validation", "val", "test", "train", _NO_SUBJECT)
_LANGUAGE = re.compile(r"[a-z]{2,3}([-_][a-z]{2,4})?", re.IGNORECASE)
"""Global-MMLU and MMMLU have folders such as en, fil and PT_BR."""
_TWO_LETTERS = re.compile(r"[a-z]{2}([-_][a-z]{2,4})?", re.IGNORECASE)
"""No subject has so short a name, while MMLU-Pro has the category law."""


class Table(NamedTuple):
    """One file with rows."""

    file: Path
    split: str
    """Split named by the file or its folder: dev, val, validation, test, or data."""
    folder: Path
    """The folder of its subject or configuration, above that of a split."""
    layout: str
    """Name of the layout, one of `_PRECEDENCE`."""


class Files(NamedTuple):
    """What is read of a folder."""

    layout: str
    """"" where the folder has no file of the split."""
    tested: list[Table]
    demonstrations: list[Table]
    no_demonstrations: str
    """Why there are none although the folder has their split, or ""."""
    unused: list[Path]
    """Files of the same splits that another layout has."""


def files(path: Path, split: str) -> Files:
    """The files of the tested split and its demonstrations, of the first layout that has the tested split.

    Args:
        path: The data set's folder, or one table, whose rows are tested as the split "test".
        split: "val" or "test".

    Raises:
        DataError: The folder has copies in several languages, one of which must be named.
    """
    found = tables(path)
    by_layout = {layout: _of_split([t for t in found if t.layout == layout], split) for layout in _PRECEDENCE}
    layout = next((layout for layout in _PRECEDENCE if by_layout[layout]), "")
    if layout == FOLDERS and _has_more_subjects(by_layout[ALL], by_layout[FOLDERS]):
        layout = ALL
    if not layout:
        nested = on_disk.inner(path)
        return Files("", [], [], "", []) if nested is None or nested.name in _SPLIT_FOLDERS else files(nested, split)
    tested = by_layout[layout]
    shown = _of_split([t for t in found if t.layout == layout], "dev")
    _one_language(path, [*tested, *shown])
    shared = {t.file for t in shown} & {t.file for t in tested}
    reason = f"the files of the demonstrations are those of the tested split {split!r}" if shared else ""
    shown = [t for t in shown if t.file not in shared]
    read = {t.file for t in (*tested, *shown)}
    unused = [t.file for t in found if t.file not in read and _left_out(t, layout, split)]
    unused += _unknown(path, {t.file for t in found}, split)
    return Files(layout, tested, shown, reason, unused)


def tables(path: Path) -> list[Table]:
    """All files of a folder that some layout knows, sorted by path; or `path` itself."""
    if path.is_file():
        known = layouts.kind_of(path) in _TABLES
        return [Table(path, "test", path.parent, DIRECT)] if known else []
    found = on_disk.visible(path, "*", "*/*", "*/*/*")
    read = (_csv(path, f) if layouts.kind_of(f) == ".csv" else _table(path, f) for f in found)
    return [table for table in read if table]


def _unknown(path: Path, known: Collection[Path], split: str) -> list[Path]:
    """Tables under names that no layout has, such as copies of a csv file; not those of splits that are not read."""
    others = {name for key, names in SPLIT_NAMES.items() if key not in (split, "dev") for name in names}
    unread = {*_SPLIT_FOLDERS, *others} - {*SPLIT_NAMES[split], "dev"}
    there = layouts.other_tables(path, known, (".csv", *_TABLES))
    return [f for f in there if not unread.intersection((*f.relative_to(path).parts[:-1], f.name.partition("-")[0]))]


def splits_found(path: Path) -> str:
    """The splits that a folder's files name, with one file each, for a message."""
    first: dict[str, Path] = {}
    for table in tables(path):
        first.setdefault(table.split, table.file)
    named = (f"{split} ({on_disk.short(str(file.relative_to(path)))})" for split, file in first.items() if file != path)
    return ", ".join(named) or "none"


def _csv(path: Path, file: Path) -> Table | None:
    """A file such as test/anatomy_test.csv."""
    split = file.parent.name
    if file.parent.parent != path or split not in SPLIT_NAMES or not stem(file).endswith(f"_{split}"):
        return None
    return Table(file, split, path, CSV)


def _table(path: Path, file: Path) -> Table | None:
    """A parquet or arrow file such as anatomy/test-00000-of-00001.parquet or anatomy/test/data-00000-of-00001.arrow.

    The folder of a split counts before the file's name: `datasets` writes validation/data-*.arrow.
    """
    if layouts.kind_of(file) not in (".parquet", ".arrow"):
        return None
    folders = file.relative_to(path).parts[:-1]
    split, has_number, _ = file.name.partition("-")
    if folders and folders[-1] in _SPLIT_FOLDERS:
        split, has_number, folders = folders[-1], "-", folders[:-1]
    if not has_number or len(folders) > 1 or not any(split in names for names in SPLIT_NAMES.values()):
        return None
    name = folders[0] if folders else ""
    if name == _NO_SUBJECT:
        return None
    layout = {"": DIRECT, "data": DATA, "all": ALL}.get(name, FOLDERS)
    return Table(file, split, path / name if name else path, layout)


def _of_split(found: list[Table], split: str) -> list[Table]:
    """The tables of one split; each folder's under the first of the split's names that it has."""
    chosen: list[Table] = []
    for folder in dict.fromkeys(t.folder for t in found):
        mine = [t for t in found if t.folder == folder]
        present = [name for name in SPLIT_NAMES[split] if any(t.split == name for t in mine)]
        chosen += [t for t in mine if present and t.split == present[0]]
    return chosen


def _left_out(table: Table, layout: str, split: str) -> bool:
    """Whether an unread table would have been read in another layout, or under another name of the split."""
    names = SPLIT_NAMES[split] if table.layout == layout else (*SPLIT_NAMES[split], "dev")
    return table.split in names


def _has_more_subjects(together: list[Table], by_subject: list[Table]) -> bool:
    """Whether the tables of all subjects have one that has no folder of its own, as after a download cut short."""
    own = {t.folder.name for t in by_subject}
    found: set[str] = set()
    for table in together:
        # a table that cannot be read has no subject to offer; where its layout is read, that is reported
        with suppress(DataError):
            rows = layouts.read_table(table.file, read_bytes(table.file), (), Problems())
            found |= {str(row["subject"]).replace(" ", "_") for _, row in rows if row.get("subject")}
    return not found <= own


def _one_language(path: Path, read: list[Table]) -> None:
    """Refuse folders that are named as languages are; see `_in_one_folder` of `evenhand.data.mmlu` for other names."""
    languages = sorted({t.folder.name for t in read if t.layout == FOLDERS and _LANGUAGE.fullmatch(t.folder.name)})
    if len(languages) > 1 and any(_TWO_LETTERS.fullmatch(name) for name in languages):
        raise DataError(
            f"{path} has MMLU in the languages {on_disk.few(languages, 12)}: name one of them, as {path / languages[0]}"
        )
