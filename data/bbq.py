"""BBQ (Parrish et al. 2022, nyu-mll/BBQ): reading its rows from a folder, a file, the hub, or the generated sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from evenhand.data import sources
from evenhand.data.official import official
from evenhand.data.proving_ground.files import demo_folder
from evenhand.errors import DataError

DATASET = sources.Dataset(
    name="bbq",
    hub="heegyu/bbq",
    revision="main",
    patterns=("*.jsonl", "data/*.jsonl"),
    licence="CC-BY-4.0",
    home="github.com/nyu-mll/BBQ, folder data",
)


class Loaded(NamedTuple):
    """Rows as they stand in the files, and what a report says of them."""

    rows: list[dict[str, Any]]
    facts: dict[str, Any]


def load_rows(source: str) -> Loaded:
    """Read BBQ rows.

    Args:
        source: "auto", "hub", "hub:NAME", "demo" (the proving ground's, of the package) or a path.

    Returns:
        Valid rows in file order. Lines that cannot be used are listed in `facts["dropped"]` by file and line.

    Raises:
        DataError: There is no data, or not one usable row.
    """
    demo = source == "demo"
    path = demo_folder("bbq") if demo else sources.locate(DATASET, source)
    problems, published = sources.Problems(), official(DATASET.name).files
    rows, files = [], {}
    seen: set[tuple[str, Any]] = set()
    for file in sources.jsonl_files(path, [name.removesuffix(".jsonl") for name in published]):
        content = sources.read_bytes(file)
        digest = sources.sha256(content)
        name = sources.stem(file)
        expected = published.get(f"{name}.jsonl")
        verdict = "unknown file" if expected is None else "official" if digest == expected else "differs from official"
        files[name] = {"sha256": digest, "is": verdict}
        for number, row in sources.read_jsonl(file, content, problems):
            reason = wrong(row) or _duplicate(row, seen)
            if reason:
                problems.add(file, number, reason)
            else:
                rows.append(row)
    if not rows:
        first = f"; first problem: {problems.lines[0]}" if problems else ""
        raise DataError(f"{path} holds no usable BBQ row{first}")
    changed = [name for name, facts in files.items() if facts["is"] == "differs from official"]
    if demo:  # the names of the files are BBQ's, the content is ours
        facts = {"source": "demo: the proving ground's questions, not BBQ", "rows": len(rows), "dropped": []}
        return Loaded(rows, facts)
    notes = [f"{', '.join(changed)}: not the official content (SHA-256 differs)"] if changed else []
    facts = {"source": str(path), "rows": len(rows), "files": files, "dropped": problems.lines, "notes": notes}
    return Loaded(rows, facts)


def wrong(row: Mapping[str, Any]) -> str:
    """What keeps a row from being used, or ""."""
    needed = ("example_id", "question_index", "question_polarity", "context_condition", "category", "answer_info")
    for name in (*needed, "additional_metadata", "context", "question", "ans0", "ans1", "ans2", "label"):
        if name not in row:
            return f"field {name!r} is missing"
    if row["question_polarity"] not in ("neg", "nonneg"):
        return f"question_polarity {row['question_polarity']!r} is neither 'neg' nor 'nonneg'"
    if row["context_condition"] not in ("ambig", "disambig"):
        return f"context_condition {row['context_condition']!r} is neither 'ambig' nor 'disambig'"
    if row["label"] not in (0, 1, 2):
        return f"label {row['label']!r} is none of 0, 1, 2"
    info = row["answer_info"]
    if not isinstance(info, Mapping) or any(not isinstance(info.get(f"ans{i}"), list) for i in range(3)):
        return "answer_info holds no lists ans0, ans1, ans2"
    if not isinstance(row["additional_metadata"], Mapping):
        return "additional_metadata is no object"
    return ""


def _duplicate(row: Mapping[str, Any], seen: set[tuple[str, Any]]) -> str:
    name = (str(row["category"]), row["example_id"])
    if name in seen:
        return f"example_id {row['example_id']!r} occurs twice in {row['category']}"
    seen.add(name)
    return ""
