"""Which tasks of Super-NaturalInstructions the label-bias paper takes: 279, by a rule; the table of kept and dropped.

Re-implemented from what schwartz-lab-NLP/label-bias does (b72b504, scripts/extract_classification_tasks.py,
`prepare_classification_tasks_split`). It reads name, summary, category and languages in a table of all tasks; here that
is the one in tasks/README.md of allenai/natural-instructions, or a csv with the same columns. The order of the
rules is the original's, so a task is dropped for the first that it fails.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from evenhand.data.io import locate
from evenhand.data.io.content import read_bytes, text_of
from evenhand.data.io.rows import Refused, decoded, from_json
from evenhand.errors import DataError

PAPER_COUNT = 279
"""Tasks that the authors report."""
MIN_INSTANCES = 396
"""300 to be tested and 96 to be set aside as demonstrations."""
LABELS = 50
"""With so many different first outputs, or more, a task is not classification."""
OUTPUTS = 2
"""With so many outputs on average, or more, a task is not classification."""
EXCLUDED = frozenset(
    {
        "task007_mctaco_answer_generation_transient_stationary",
        "task089_swap_words_verification",
        "task563_discofuse_answer_generation",
        "task646_answer_generation",
        "task342_winomt_classification_profession_pro",
        "task343_winomt_classification_profession_anti",
        "task218_rocstories_swap_order_answer_generation",
        "task1359_numer_sense_answer_generation",
        "task302_record_classification",
    }
)
"""Tasks that pass the filters and that the authors leave out by name."""
TABLES = ("README.md", "full_task_info.csv")
"""Files with a table of all tasks, in the folder of the tasks or above it."""
_COLUMNS = ("name", "summary", "category", "input language", "output language")


class About(NamedTuple):
    """What the table of all tasks says of one."""

    name: str
    summary: str
    category: str
    input_language: str
    output_language: str


class Verdict(NamedTuple):
    """One row of the table of what was kept and dropped."""

    task: str
    kept: bool
    reason: str
    """Why it was dropped; "" where it was kept."""
    instances: int | None = None
    """None where the rule did not come to count."""
    labels: int | None = None


def choose(path: Path, files: Sequence[Path], problems: locate.Problems) -> list[Verdict]:
    """Apply the rule to all tasks of a folder.

    Args:
        path: The folder of the tasks, or the one above it.
        files: The files of the tasks.
        problems: Where files that cannot be read are noted.

    Returns:
        One verdict per file, in its order.

    Raises:
        DataError: There is no table of all tasks, or it lacks a column.
    """
    about = read_table(path if path.is_dir() else path.parent)
    return [_of_file(file, about.get(file.stem), problems) for file in files]


def chosen(files: Sequence[Path], verdicts: Iterable[Verdict]) -> list[Path]:
    """The files of the tasks that were kept."""
    kept = {v.task for v in verdicts if v.kept}
    return [file for file in files if file.stem in kept]


def count_notes(verdicts: Sequence[Verdict]) -> list[str]:
    """A note where the rule did not give the paper's number of tasks."""
    kept = sum(v.kept for v in verdicts)
    said = f"the rule keeps {kept:,} of {len(verdicts):,} tasks; the paper has {PAPER_COUNT}"
    return [] if kept == PAPER_COUNT else [said]


def candidate(about: About) -> str:
    """Why a task is not even a candidate, by what the table says of it; "" where it is one.

    Names are compared as they are written, categories and summaries without case, as in the original.
    """
    category, summary = about.category.lower(), about.summary.lower()
    if not (
        any(word in about.name for word in ("classification", "detection", "answer_generation"))
        or any(word in category for word in ("classification", "detection"))
        or any(word in summary for word in ("classification", "classify", "detect"))
    ):
        return "not called a classification, a detection or an answer generation"
    if (about.input_language, about.output_language) != ("English", "English"):
        return f"not English both ways: {about.input_language} to {about.output_language}"
    if about.name in EXCLUDED:
        return "left out by name"
    return "wrong answers are asked for" if "incorrect_answer" in about.name else ""


def counted(outputs: Sequence[Sequence[str]]) -> str:
    """Why a task is dropped for its outputs; "" where it is kept.

    Args:
        outputs: The outputs of each instance.
    """
    labels = _label_count(outputs)
    if labels >= LABELS:
        return f"{labels} different labels; fewer than {LABELS} are needed"
    mean = sum(map(len, outputs)) / len(outputs) if outputs else 0.0
    if mean >= OUTPUTS:
        return f"{mean:.2f} outputs on average; fewer than {OUTPUTS} are needed"
    if len(outputs) < MIN_INSTANCES:
        return f"{len(outputs)} instances; {MIN_INSTANCES} are needed"
    return ""


def _label_count(outputs: Sequence[Sequence[str]]) -> int:
    return len({found[0] for found in outputs if found})


def read_table(folder: Path) -> dict[str, About]:
    """What the table of all tasks says, by name.

    Raises:
        DataError: There is none in the folder, below it in tasks/, or above it; or it lacks a column.
    """
    places = [place / name for place in (folder, folder / "tasks", folder.parent) for name in TABLES]
    for file in places:
        if file.is_file():
            text = text_of(file, read_bytes(file))
            found = dict(_rows(file, text))
            if found:
                return found
    raise DataError(
        f"{folder} has no table of all tasks, by which the paper chooses: put tasks/README.md of "
        f"allenai/natural-instructions there (or one of {', '.join(TABLES)})"
    )


def _rows(file: Path, text: str) -> Iterator[tuple[str, About]]:
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""))) if file.suffix == ".csv" else _cells(text)
    except csv.Error as error:
        raise DataError(f"{file}: the table of tasks is not csv: {error}; take it again") from error
    at: dict[str, int] = {}
    for cells in lines:
        plain = [cell.strip().strip("`") for cell in cells]
        if not at:
            header = [cell.lower() for cell in plain]
            if header and header[0] == "name" and len(header) > 1:
                if missing := [c for c in _COLUMNS if c not in header]:
                    raise DataError(f"{file}: the table of tasks lacks the column {missing[0]!r}; take a newer version")
                at = {name: header.index(name) for name in _COLUMNS}
        elif len(plain) > max(at.values()) and plain[0].startswith("task"):
            found = About(*(plain[at[name]] for name in _COLUMNS))
            yield found.name, found


def _cells(text: str) -> Iterator[list[str]]:
    """The rows of the tables in a Markdown text."""
    for line in text.split("\n"):
        if "|" in line:
            yield re.split(r"\s*\|\s*", line.strip().strip("|"))


def _of_file(file: Path, about: About | None, problems: locate.Problems) -> Verdict:
    if about is None:
        return Verdict(file.stem, False, "not in the table of all tasks")
    if reason := candidate(about):
        return Verdict(file.stem, False, reason)
    try:
        outputs = _outputs(from_json(decoded(read_bytes(file))))
        reason, labels = counted(outputs), _label_count(outputs)
    except (Refused, UnicodeDecodeError, KeyError, TypeError) as error:
        problems.add(file, 0, f"cannot be counted: {type(error).__name__} {error}")
        return Verdict(file.stem, False, "its file cannot be read")
    return Verdict(file.stem, not reason, reason, len(outputs), labels)


def _outputs(raw: Mapping[str, Any]) -> list[list[str]]:
    """The outputs of each instance; a prepared file has a text instead of a list."""
    found = [instance["output"] for instance in raw["Instances"]]
    return [output if isinstance(output, list) else [output] for output in found]
