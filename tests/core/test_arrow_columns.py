"""Columns of plain values: equal to pyarrow's own, and made without pandas."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from evenhand.core import arrow_columns
from evenhand.core.arrow_columns import arrow_column

TEXTS, NUMBERS = pa.list_(pa.string()), pa.list_(pa.float64())
CASES: list[tuple[list[Any], pa.DataType | None]] = [
    ([], None),
    ([None, None], None),
    (["a", None, "", "é\u2028\U0001f600"], None),
    ([1, None, -(2**63), 2**63 - 1, 0], None),
    ([1.5, None, float("inf"), -0.0], None),
    ([1, 2.5, None], None),
    ([True, None, False] * 5, None),
    ([None, None], pa.string()),
    ([None], NUMBERS),
    ([(), None, ("a", None, "b"), ["", "cc"]], TEXTS),
    ([(0.25, 1), None, [None]], NUMBERS),
    ([], TEXTS),
    ([1, 2**53], pa.float64()),
    ([np.float64(0.5), 2.0], None),
    ([1.5], pa.int64()),
    ([{"a": 1}], None),
]


@pytest.mark.parametrize(("values", "kind"), CASES, ids=lambda case: repr(case)[:40])
def test_a_column_is_pyarrows_own(values: list[Any], kind: pa.DataType | None) -> None:
    made, theirs = arrow_column(values, kind), pa.array(values, kind)
    made.validate(full=True)
    assert made.type == theirs.type
    assert made.equals(theirs)
    assert made.null_count == theirs.null_count
    assert made.to_pylist() == theirs.to_pylist()


def test_nan_is_a_number_and_not_a_gap() -> None:
    made = arrow_column([float("nan"), None])
    assert made.null_count == 1 and made[0].as_py() != made[0].as_py()


@pytest.mark.parametrize("seed", range(5))
def test_long_columns_are_pyarrows_own(seed: int) -> None:
    rng = random.Random(seed)
    draw: list[Callable[[], Any]] = [
        lambda: "x" * rng.randrange(9),
        lambda: rng.randrange(-99, 99),
        rng.random,
        lambda: rng.random() < 0.5,
    ]
    for one in draw:
        values = [None if rng.random() < 0.2 else one() for _ in range(rng.randrange(1, 200))]
        assert arrow_column(values).equals(pa.array(values))


@pytest.mark.parametrize(
    ("values", "kind"),
    [(["a", 1], None), ([1], pa.string()), ([2**63], pa.int64()), ([2**53 + 1], pa.float64())],
)
def test_what_does_not_fit_is_pyarrows_error(values: list[Any], kind: pa.DataType | None) -> None:
    with pytest.raises((pa.ArrowException, OverflowError, TypeError)) as theirs:
        pa.array(values, kind)
    with pytest.raises(theirs.type, match=r".") as ours:
        arrow_column(values, kind)
    assert str(ours.value) == str(theirs.value)


def test_more_than_32_bits_are_left_to_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrow_columns, "LONGEST", 3)
    assert arrow_column(["ab", "cd"]).equals(pa.array(["ab", "cd"]))


def test_pandas_is_not_imported() -> None:
    program = """
import sys
import pyarrow as pa
from evenhand.core.arrow_columns import arrow_column
columns = [["x", None], [1, 2], [None, None], [1.0, 2]]
made = [*map(arrow_column, columns), arrow_column([("x",), None], pa.list_(pa.string()))]
pa.table(made, list("abcde"))
assert "pandas" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
