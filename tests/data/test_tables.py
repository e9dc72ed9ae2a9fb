"""Tables of every kind give the same rows, each with its place."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pandas as pd
import pytest

from evenhand.data.io import tables
from evenhand.data.io.locate import Problems
from evenhand.errors import DataError

ROWS = [{"text": "one, two; three", "label": "a"}, {"text": "four", "label": "b"}]
LISTED = json.dumps(ROWS)
LINES = "\n".join(map(json.dumps, ROWS))
CSV = 'text,label\n"one, two; three",a\nfour,b\n'


@pytest.mark.parametrize(
    ("name", "text", "first"),
    [
        ("t.jsonl", LINES, 1),
        ("t.json", LINES, 1),
        ("t.json", LISTED, 1),
        ("t.JSON", json.dumps(ROWS, indent=1), 1),
        ("t.csv", CSV, 2),
        ("t.csv", 'text;label\n"one, two; three";a\nfour;b\n', 2),
        ("t.tsv", "text\tlabel\none, two; three\ta\nfour\tb\n", 2),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_the_rows_of_a_file_and_where_they_stand(
    tmp_path: Path, name: str, text: str, first: int, packed: bool
) -> None:
    file = tmp_path / (f"{name}.gz" if packed else name)
    file.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    expected = [(f"{file}:{n}", row) for n, row in enumerate(ROWS, start=first)]
    assert list(tables.read(str(file), ("text", "label"))) == list(tables.read(str(tmp_path))) == expected


def test_parquet_of_more_than_one_batch_is_counted_on(tmp_path: Path) -> None:
    file = tmp_path / "t.parquet"
    pd.DataFrame({"n": range(10_000)}).to_parquet(file, row_group_size=3000)
    assert list(tables.read(str(file))) == [(f"{file}:{n + 1}", {"n": n}) for n in range(10_000)]


def test_a_single_column_needs_no_delimiter(tmp_path: Path) -> None:
    file = tmp_path / "t.tsv"
    file.write_text('text\none, two\na "quote\n')
    assert [row for _, row in tables.read(str(file))] == [{"text": "one, two"}, {"text": 'a "quote'}]


def test_a_file_of_one_object_is_one_row(tmp_path: Path) -> None:
    file = tmp_path / "t.json"
    file.write_text(json.dumps(ROWS[0], indent=2))
    assert list(tables.read(str(file))) == [(f"{file}:1", ROWS[0])]


def test_what_is_no_row_is_noted_and_costs_no_other(tmp_path: Path) -> None:
    file, problems = tmp_path / "t.json", Problems()
    file.write_text(json.dumps([ROWS[0], 5, ROWS[1]]))
    assert [place for place, _ in tables.read(str(file), problems=problems)] == [f"{file}:1", f"{file}:3"]
    assert len(problems.lines) == 1 and "t.json:2" in problems.lines[0] and "not int" in problems.lines[0]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.json", "[{", "t.json is not JSON"),
        ("t.parquet", "PAR", "t.parquet is not parquet"),
        ("t.txt", "x", r"t\.txt is none of \.jsonl"),
        ("t.csv", "text\nx\n", "no column 'label'; it has text"),
    ],
)
def test_a_file_that_is_no_such_table_is_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        list(tables.read(str(tmp_path / name), ("text", "label")))
    with pytest.raises(DataError, match="no table at"):
        tables.files(tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("text", "cells"),
    [
        ('a\tb\n"He said ""no""."\t2\n', ['He said "no".', "2"]),
        ('a\tb\n"He said ""no"".\nThen"\t"2"\n', ['He said "no".\nThen', "2"]),
        ('a\tb\n"No." he said\t2\n', ['"No." he said', "2"]),
        ('a\tb\n"No."\t2\n', ['"No."', "2"]),
        ('a\tb\n""No""\t2\n', ['""No""', "2"]),
        ('a\tb\n"He ""no"""\t"open\n', ['"He ""no"""', '"open']),
    ],
)
def test_quotes_in_a_tsv_file_are_those_of_csv_only_where_they_double(
    tmp_path: Path, text: str, cells: list[str]
) -> None:
    """Excel and pandas write them so; elsewhere a quote is just a quote, and an unpaired one swallows nothing."""
    file = tmp_path / "x.tsv"
    file.write_text(text)
    assert [list(row.values()) for _, row in tables.read(str(file))] == [cells]
