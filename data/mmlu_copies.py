"""MMLU as copies on the hub have it: by subject or all in one, MMLU-Pro, MMLU-Redux and Global-MMLU.

Columns, as those data sets' cards give them: cais/mmlu has question, subject, choices and answer; TIGER-Lab/MMLU-Pro
has question, options, answer_index and category; edinburgh-dawg/mmlu-redux has those of MMLU and error_type;
CohereLabs/Global-MMLU has subject, question, option_a to option_d and a letter as answer, in a folder a language.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evenhand.data.io import layouts
from evenhand.data.io.rows import Refused
from evenhand.errors import DataError

HUB_SPLIT = {"dev": ("dev", "validation"), "val": ("validation", "val"), "test": ("test", "data")}
"""The names of a split's files, the first one that is there; MMLU-Pro's demonstrations are its validation split."""
ALL = "all"
NO_SUBJECTS = (ALL, "auxiliary_train")
"""Folders of the hub's copy that are no subject."""
LAYOUTS = (
    "csv files in dev/, val/ and test/, and parquet or arrow files by subject, in all/ or in data/ as in MMLU, "
    "MMLU-Pro, MMLU-Redux and Global-MMLU"
)
_LETTERS = "ABCDEFGHIJ"


def files(path: Path, split: str) -> list[Path]:
    """The tables of one split: those of the subjects, else that of all subjects together.

    Args:
        path: The data set's folder, or one table.
        split: "dev", "val" or "test".

    Raises:
        DataError: The folder has copies in several languages, of which one is to be named.
    """
    if path.is_file():
        return [path] if split == "test" and layouts.kind_of(path) in (".parquet", ".arrow", ".jsonl") else []
    for name in HUB_SPLIT[split]:
        found = [f for place in (f"{name}-*", f"{name}/*", f"*/{name}-*", f"*/{name}/*") for f in path.glob(place)]
        found = sorted(f for f in found if layouts.kind_of(f) in (".parquet", ".arrow"))
        subjects = [f for f in found if _folder(f) not in NO_SUBJECTS]
        if subjects or found:
            return _of_one_language(path, subjects or [f for f in found if _folder(f) == ALL])
    return []


def subject_of(file: Path) -> str:
    """The subject that a table's folder names."""
    return _folder(file)


def plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a copy under the names of cais/mmlu.

    Raises:
        Refused: Its authors found an error in it (MMLU-Redux), or its answer is not a letter of its options.
    """
    if row.get("error_type", "ok") != "ok":
        raise Refused(f"column error_type is {str(row['error_type'])[:40]!r}, not 'ok': its question is faulty")
    found = dict(row)
    if "options" in row and "choices" not in row:
        found |= {"choices": row["options"], "answer": row.get("answer_index", row.get("answer"))}
        found.setdefault("subject", str(row.get("category") or "").replace(" ", "_"))
    elif "option_a" in row:
        found["choices"] = [row.get(f"option_{letter}") for letter in "abcd"]
    answer = found.get("answer")
    if isinstance(answer, str) and answer.strip() in tuple(_LETTERS):
        found["answer"] = _LETTERS.index(answer.strip())
    return found


def _folder(file: Path) -> str:
    """The folder of a subject: the table's own, or the one above that of a split."""
    splits = {name for names in HUB_SPLIT.values() for name in names}
    return file.parent.parent.name if file.parent.name in splits else file.parent.name


def _of_one_language(path: Path, found: list[Path]) -> list[Path]:
    """Global-MMLU has a folder a language, "en" or "zh"; no subject has so short a name."""
    languages = sorted({_folder(f) for f in found if len(_folder(f)) == 2 and f.parent != path})
    if len(languages) > 1:
        raise DataError(
            f"{path} has MMLU in the languages {', '.join(languages)}: name one of them, as {path / languages[0]}"
        )
    return found
