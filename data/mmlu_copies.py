"""Rows of MMLU as copies on the hub have them: MMLU itself, MMLU-Pro, MMLU-Redux and Global-MMLU.

Columns, as those data sets' cards give them: cais/mmlu has question, subject, choices and answer; TIGER-Lab/MMLU-Pro
has question, options, answer_index and category; edinburgh-dawg/mmlu-redux has those of MMLU and error_type;
CohereLabs/Global-MMLU has subject, question, option_a to option_d and a letter as answer, in one folder per language.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evenhand.data.io.rows import Refused

LETTERS = "ABCDEFGHIJ"
"""Letters of MMLU-Pro (Wang et al. 2024, arXiv 2406.01574), whose questions have up to ten options."""


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
    if isinstance(answer, str) and answer.strip() in tuple(LETTERS):
        found["answer"] = LETTERS.index(answer.strip())
    return found
