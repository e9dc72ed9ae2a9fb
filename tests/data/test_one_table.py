"""The rows of a data set that is one table: what is kept, what is left out and named, and what is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from evenhand.data.io import rows
from evenhand.data.io.one_table import read_one
from evenhand.errors import DataError


def word(row: Mapping[str, Any]) -> str:
    return rows.text(row, "word")


def read(file: Path) -> tuple[list[str], dict[str, Any]]:
    return read_one(file, ("word",), word, what="word of ours", how_to_get="Write one")


def test_rows_come_in_file_order_and_the_others_are_named(tmp_path: Path) -> None:
    file = tmp_path / "words.csv"
    file.write_bytes(b"word,more\nb,1\n,2\na,3\n")
    found, facts = read(file)
    assert found == ["b", "a"]
    assert facts["source"] == str(file) and facts["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    [dropped] = facts["dropped"]
    assert dropped.startswith(f"{file}:3: ") and "'word' is empty" in dropped


def test_a_table_without_a_usable_row_is_refused_with_the_first_problem_and_the_remedy(tmp_path: Path) -> None:
    file = tmp_path / "words.jsonl"
    file.write_text('{"other": 1}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"no usable word of ours; first problem: .*'word' is missing\. Write one"):
        read(file)
    file = tmp_path / "words.csv"
    file.write_text("other\nb\n", encoding="utf-8")
    with pytest.raises(DataError, match="has no column 'word'"):
        read(file)
