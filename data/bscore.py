"""The B-score questions (Vo et al. 2025, arXiv 2505.18545; anvo25/b-score): 9 topics x 4 categories."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from evenhand.core.hashing import bytes_hash
from evenhand.data.bscore_prompts import LISTED, prompt_files, rows_of_prompts
from evenhand.data.io import layouts, locate, on_disk
from evenhand.data.io.content import read_bytes
from evenhand.data.io.demo import demo_folder
from evenhand.errors import DataError

Category = Literal["subjective", "random", "easy", "hard"]
CATEGORIES: tuple[str, ...] = get_args(Category)
SUFFIX = "\nYou MUST choose one and respond using double curly brackets: {{your choice}}."
"""Added to every question when it is asked (src/main.py of anvo25/b-score)."""

DATASET = locate.Dataset(
    name="bscore",
    hub="",
    revision="",
    patterns=(),
    licence="MIT",
    home="github.com/anvo25/b-score, folder src/prompts",
    benchmark="b_score",
)
_COMPOSITE, _PRIME = "3017", "3023"
"""The paper's table gives 3017 = 7 * 431 as the prime; 3023 is the one among the options."""


@dataclass(frozen=True, slots=True)
class BScoreQuestion:
    """One question that is asked over and over."""

    id: str
    topic: str
    category: str
    prompt: str
    """The question as in the file, with the options in square brackets, or without them (digits)."""
    options: tuple[str, ...]
    truth: str | None
    """The right option; None for questions of opinion and chance."""
    truth_paper: str | None
    """The answer as the paper prints it."""

    def text(self, shown: Sequence[int]) -> str:
        """The question with its options in the order `shown` (identities by position) and the suffix."""
        listed = ", ".join(self.options[i] for i in shown)
        return LISTED.sub(lambda _: f"[{listed}]", self.prompt) + SUFFIX

    @property
    def lists_options(self) -> bool:
        """Whether the prompt shows its options, so that they have an order."""
        return LISTED.search(self.prompt) is not None


class Loaded(NamedTuple):
    """Questions in file order, and their facts for a report."""

    questions: list[BScoreQuestion]
    facts: dict[str, Any]


def load_questions(source: str) -> Loaded:
    """Read the questions.

    Args:
        source: "auto", "demo" (the proving ground's, of the package) or a path: a questions.jsonl, a folder that holds
            one, or a clone of anvo25/b-score (its folder src/prompts has a text file per question).

    Returns:
        Valid questions. Lines that cannot be used are listed in `facts["dropped"]` by file, line and field.

    Raises:
        DataError: There is no data, or not one usable row.
    """
    path = demo_folder("bscore") if source == "demo" else locate.locate(DATASET, source)
    problems = locate.Problems()
    found: dict[str, BScoreQuestion] = {}
    digests: dict[str, str] = {}
    read: set[Path] = set()
    for file, number, row in _rows(path, digests, problems):
        read.add(file)
        reason = wrong(row) or (f"id {row['id']!r} occurs twice" if row["id"] in found else "")
        if reason:
            problems.add(file, number, reason)
        else:
            found[row["id"]] = _question(row)
    if not found:
        raise DataError(f"{path} holds no usable B-score question{problems.first}")
    questions = list(found.values())
    if source == "demo":
        return Loaded(questions, {"source": "demo: the proving ground's questions, not the paper's", "dropped": []})
    facts = {"source": str(path), "rows": len(questions), "files": digests, "dropped": problems.lines}
    others = layouts.other_tables(path, read, (".jsonl",))
    facts["notes"] = on_disk.unread(others, path, "one set of questions is read")
    return Loaded(questions, facts)


def _rows(path: Path, digests: dict[str, str], problems: locate.Problems) -> Iterator[tuple[Path, int, dict[str, Any]]]:
    """File, line and row of every question; the hashes of the files go to `digests`."""
    if prompts := prompt_files(path):
        for file, row, digest in rows_of_prompts(prompts, problems):
            digests[f"{file.parent.name}/{file.name}"] = digest
            yield file, 1, row
        return
    for file in _tables(path):
        content = read_bytes(file, empty=True)
        digests[file.name] = bytes_hash(content)
        for number, row in locate.read_jsonl(file, content, problems):
            yield file, number, row


def _tables(path: Path) -> list[Path]:
    """questions.jsonl, or the jsonl files of a folder that has none.

    Raises:
        DataError: There is none.
    """
    if path.is_file():
        return [path]
    published = layouts.published_tables(path, ("questions",), (".jsonl",))
    found = published or layouts.tables(path, (".jsonl",))
    if not found:
        raise DataError(f"{path} holds no .jsonl or .jsonl.gz file; found: {layouts.found_in(path)}")
    return found


def wrong(row: Mapping[str, Any]) -> str:
    """Return why a row cannot be used, or ""; names the field."""
    for name in ("id", "topic", "category", "prompt"):
        if not isinstance(row.get(name), str) or not row[name].strip():
            return f"field {name!r} is missing or not a text"
    if row["category"] not in CATEGORIES:
        return f"category {row['category']!r} is none of {', '.join(CATEGORIES)}"
    options = row.get("options")
    if not isinstance(options, list) or not all(isinstance(o, str) and o.strip() for o in options):
        return "options is not a list of texts"
    if len(options) < 2 or len(set(options)) < len(options):
        return f"options {options} must be at least two different ones"
    truth = row.get("ground_truth_paper")
    if truth is not None and truth not in options:
        return f"ground_truth_paper {truth!r} is none of the options"
    if truth is None and row["category"] in ("easy", "hard"):
        return "ground_truth_paper is missing; easy and hard questions have a right answer"
    for listed in LISTED.findall(row["prompt"]):
        if [o.strip() for o in listed.split(",")] != options:
            return f"prompt lists [{listed}], options are {options}"
    return ""


def _question(row: Mapping[str, Any]) -> BScoreQuestion:
    options, truth = tuple(row["options"]), row.get("ground_truth_paper")
    right = _PRIME if truth == _COMPOSITE and _PRIME in options and "prime" in row["prompt"] else truth
    return BScoreQuestion(row["id"], row["topic"], row["category"], row["prompt"], options, right, truth)
