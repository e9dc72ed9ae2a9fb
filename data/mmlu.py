"""MMLU (Hendrycks et al. 2021, arXiv 2009.03300): subjects, categories and rows, from csv or the hub's parquet."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from evenhand.core.hashing import text_hash
from evenhand.data import mmlu_copies, mmlu_layouts
from evenhand.data.io import layouts, locate, on_disk
from evenhand.data.io.content import read_bytes
from evenhand.data.io.csv import read_csv
from evenhand.data.io.demo import demo_folder
from evenhand.data.io.rows import Refused, one_line_end
from evenhand.errors import DataError

DATASET = locate.Dataset(
    name="mmlu",
    hub="cais/mmlu",
    revision="main",
    patterns=("*/dev-*.parquet", "*/validation-*.parquet", "*/test-*.parquet"),
    licence="MIT",
    home="github.com/hendrycks/test",
)
Split = Literal["test", "val"]
LETTERS = "ABCD"
MORE_LETTERS = mmlu_copies.LETTERS
"""Maximum number of options in copies whose questions have more than four."""

_BY_CATEGORY = {
    "STEM": (
        "abstract_algebra astronomy college_biology college_chemistry college_computer_science college_mathematics "
        "college_physics computer_security conceptual_physics electrical_engineering elementary_mathematics "
        "high_school_biology high_school_chemistry high_school_computer_science high_school_mathematics "
        "high_school_physics high_school_statistics machine_learning"
    ),
    "humanities": (
        "formal_logic high_school_european_history high_school_us_history high_school_world_history international_law "
        "jurisprudence logical_fallacies moral_disputes moral_scenarios philosophy prehistory professional_law "
        "world_religions"
    ),
    "social sciences": (
        "econometrics high_school_geography high_school_government_and_politics high_school_macroeconomics "
        "high_school_microeconomics high_school_psychology human_sexuality professional_psychology public_relations "
        "security_studies sociology us_foreign_policy"
    ),
    "other": (
        "anatomy business_ethics clinical_knowledge college_medicine global_facts human_aging management marketing "
        "medical_genetics miscellaneous nutrition professional_accounting professional_medicine virology"
    ),
}
CATEGORY = {subject: category for category, subjects in _BY_CATEGORY.items() for subject in subjects.split()}
"""The category of each of the 57 subjects, as in the official repository's categories.py."""

OFFICIAL = {
    "dev": "1ecc5ccd2d66ae096c3e6b18a5cbcbec10b4225164dd64e638cfc14ca0e8c907",
    "val": "a92e5a56c40411a8d778b0edb963824be47b1f85e19b449cbb2e99c2ee247c2b",
    "test": "46fd164c085f05ed7d442b388be4fe7f47dc3f4d2693dd96965dcdbe94f06764",
}
"""`digest` of the original files, all subjects (57 subjects; 285, 1,531 and 14,042 rows)."""


class Row(NamedTuple):
    """One question with its choices."""

    subject: str
    number: int
    """Position within its subject's split, from 0; rows that were left out count."""
    question: str
    choices: tuple[str, ...]
    """Four; in MMLU-Pro 3 to 10."""
    right: int
    """Index of the right choice, from 0."""


class Loaded(NamedTuple):
    """Tested rows and demonstrations per subject, and their facts for a report."""

    rows: list[Row]
    dev: dict[str, list[Row]]
    facts: dict[str, Any]
    no_dev: str = ""
    """Why there are no demonstrations although the folder has their split, or ""."""


def load(source: str, split: Split = "test") -> Loaded:
    """Read MMLU.

    Args:
        source: "auto", "hub", "hub:NAME", "demo" or a path with folders dev/, val/ and test/ (or the hub's layout).
        split: Which rows are tested; the demonstrations are always dev's.

    Returns:
        Rows sorted by subject, in file order. Rows that cannot be used are listed in `facts["dropped"]`.

    Raises:
        DataError: There is no data, or not one usable row.
    """
    demo = source == "demo"
    path = demo_folder("mmlu") if demo else locate.locate(DATASET, source)
    problems = locate.Problems()
    files = mmlu_layouts.files(path, split)
    folders: dict[str, Path] = {}
    published = _read(files.tested, folders, problems)
    if not published:
        raise _no_rows(path, split, problems)
    shown = _read(files.demonstrations, folders, problems)
    dev: dict[str, list[Row]] = {}
    for row in shown:
        dev.setdefault(row.subject, []).append(stripped(row))
    rows = [stripped(row) for row in published]
    sha256 = digest(published)
    official = demo or sha256 == OFFICIAL[split]
    facts: dict[str, Any] = {
        "source": "demo: the proving ground's facts, not MMLU" if demo else str(path),
        "layout": files.layout,
        "split": split,
        "rows": len(rows),
        "subjects": len({r.subject for r in rows}),
        "sha256": sha256,
        "dropped": problems.lines,
        "notes": [*([] if official else _unofficial(split, published, shown)), *_unread(path, files)],
    }
    return Loaded(rows, dev, facts, files.no_demonstrations)


def _no_rows(path: Path, split: str, problems: locate.Problems) -> DataError:
    why = problems.first
    if not problems:
        splits = mmlu_layouts.splits_found(path)
        why = f"; splits found: {splits}"
        if splits == "none":
            why += f"; known are {mmlu_layouts.KNOWN}; found: {layouts.found_in(path)}"
    return DataError(
        f"{path} holds no usable MMLU row of the split {split!r}{why}. To fetch it: evenhand data fetch mmlu"
    )


def _unofficial(split: str, tested: list[Row], shown: list[Row]) -> list[str]:
    """Notes on content that is not the official one, in which a few rows are asked twice or are demonstrations."""
    known = {_content(row) for row in tested}
    notes = [f"not the official content of the split {split!r} (SHA-256 over its rows differs)"]
    if twice := len(tested) - len(known):
        notes.append(
            f"rows that repeat another row of their file (same question and options): {twice} of {len(tested)}"
        )
    if both := sum(_content(row) in known for row in shown):
        notes.append(
            f"demonstrations that are tested rows, too, so that their answers are shown: {both} of {len(shown)}"
        )
    if untested := sorted({row.subject for row in shown} - {row.subject for row in tested}):
        notes.append(f"subjects with demonstrations but no tested row: {', '.join(untested)}")
    return notes


def _unread(path: Path, files: mmlu_layouts.Files) -> list[str]:
    """Notes on files that were left unread."""
    notes = []
    if files.unused:
        notes.append(f"one layout is read, {files.layout}; not read: {on_disk.listed(files.unused, path)}")
    if files.no_demonstrations:
        notes.append(f"no demonstrations: {files.no_demonstrations}")
    return notes


def _content(row: Row) -> tuple[str, str, tuple[str, ...]]:
    """What makes two rows the same question; blanks around texts do not."""
    row = stripped(row)
    return row.subject, row.question, row.choices


def digest(rows: list[Row]) -> str:
    """SHA-256 over the rows of a split; kinds of line breaks, in which copies differ, do not count."""
    lines = []
    for r in rows:
        cells = [cell.replace("\r\n", "\n").replace("\r", "\n") for cell in (r.question, *r.choices)]
        lines.append(json.dumps([r.subject, *cells, r.right]))
    return text_hash("\n".join(sorted(lines)))


def stripped(row: Row) -> Row:
    """Without blanks around its texts, which would tell one choice from the others; the digest is of the file's."""
    question, *choices = (one_line_end(text).strip() for text in (row.question, *row.choices))
    return row._replace(question=question, choices=tuple(choices))


def _read(tables: list[mmlu_layouts.Table], folders: dict[str, Path], problems: locate.Problems) -> list[Row]:
    """All usable rows of the tables; one that an earlier table has already is left out and counted.

    Args:
        tables: Those of one split.
        folders: The folder of each subject, to which new subjects are added.
        problems: Where rows are noted that cannot be used.

    Raises:
        DataError: A subject is in two folders, so that these are two copies or languages.
    """
    rows: list[Row] = []
    numbers: Counter[str] = Counter()
    first: dict[tuple[str, str, tuple[str, ...]], Path] = {}
    for table in tables:
        copied: Counter[Path] = Counter()
        for row in _rows_of(table, numbers, problems):
            _in_one_folder(row.subject, folders.setdefault(row.subject, table.folder), table.folder)
            earlier = first.setdefault(_content(row), table.file)
            if earlier == table.file:
                rows.append(row)
            else:
                copied[earlier] += 1
        for earlier, count in copied.items():
            problems.add(table.file, 0, f"rows left out as copies of rows of {earlier}: {count}")
    return rows


def _rows_of(table: mmlu_layouts.Table, numbers: Counter[str], problems: locate.Problems) -> Iterator[Row]:
    if table.layout == mmlu_layouts.CSV:
        return _csv_rows(table.file, locate.stem(table.file).removesuffix(f"_{table.split}"), problems)
    return _table_rows(table, numbers, problems)


def _in_one_folder(subject: str, first: Path, second: Path) -> None:
    if first != second:
        raise DataError(
            f"the subject {subject} is in {first} and in {second}, which are two languages or two copies: name one of "
            "them, or remove one"
        )


def _csv_rows(file: Path, subject: str, problems: locate.Problems) -> Iterator[Row]:
    lines = read_csv(file, read_bytes(file, empty=True), problems)
    kept = ((line, cells) for line, cells in lines if not _is_header(line, cells))
    for number, (line, cells) in enumerate(kept):
        reason = _wrong(cells)
        if reason:
            problems.add(file, line, reason)
        else:
            right = LETTERS.index(cells[5].strip())
            yield Row(subject, number, cells[0], (cells[1], cells[2], cells[3], cells[4]), right)


def _is_header(line: int, cells: list[str]) -> bool:
    """Whether a line names the columns, as some copies do; the original files have no such line."""
    names = [cell.strip().lower() for cell in cells]
    return line == 1 and len(names) == 6 and names[0] == "question" and names[5] == "answer"


def _wrong(cells: list[str]) -> str:
    """Return why a csv row cannot be used, or ""."""
    names = ("question", *LETTERS, "answer")
    if len(cells) != len(names):
        return f"{len(cells)} columns; 6 were expected: question, A, B, C, D, answer"
    for column, (name, cell) in enumerate(zip(names, cells, strict=True), start=1):
        if not cell.strip():
            return f"column {column} ({name}) is empty"
    if cells[5].strip() not in tuple(LETTERS):
        return f"column 6 (answer) is {cells[5][:20]!r}, none of A, B, C, D"
    return ""


def _table_rows(table: mmlu_layouts.Table, numbers: Counter[str], problems: locate.Problems) -> Iterator[Row]:
    """The usable rows of a table of a copy; each names its subject, or the folder does.

    `numbers` has how many rows of each subject came before, as those of one subject may be in several tables.
    """
    file, folder = table.file, table.folder.name
    try:
        for line, raw in layouts.read_table(file, read_bytes(file, empty=True), (), problems):
            subject = str(raw.get("subject") or folder)
            number = numbers[subject]
            numbers[subject] += 1
            try:
                row = mmlu_copies.plain(raw)
                subject = str(row.get("subject") or folder)
                yield row_of(row, subject, number)
            except Refused as error:
                problems.add(file, line, str(error))
    except DataError as error:
        problems.add(file, 0, str(error))


def row_of(row: Mapping[str, Any], subject: str, number: int) -> Row:
    """A row of the hub's copy, which has the columns question, choices and answer, as it was published.

    Raises:
        Refused: It cannot be used; the message names the column.
    """
    question, choices, answer = row.get("question"), row.get("choices"), row.get("answer")
    texts = [question, *(choices if isinstance(choices, list) else [])]
    more = 3 <= len(texts) - 1 <= len(MORE_LETTERS) and "options" in row
    if not (len(texts) == 5 or more) or not all(isinstance(t, str) and t.strip() for t in texts):
        raise Refused("columns question and choices must hold a text and four texts")
    if isinstance(answer, bool) or not isinstance(answer, int | float) or answer not in range(len(texts) - 1):
        raise Refused(f"column answer is {answer!r}, none of {', '.join(map(str, range(len(texts) - 1)))}")
    return Row(subject, number, texts[0], tuple(texts[1:]), int(answer))
