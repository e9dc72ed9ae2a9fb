"""Columns of Arrow tables from lists of plain values, without pandas.

`pyarrow.array` imports pandas to check whether it was given pandas objects, which takes longer than writing a small
table. Lists of texts, whole numbers, floats and flags are put into Arrow's buffers here instead; the columns are equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from types import NoneType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

LONGEST = 2**31 - 1
"""Maximum bytes of a column of texts, and items of a column of lists: their offsets are 32-bit numbers."""
EXACT = 2**53
"""Up to this magnitude every whole number is exactly a float."""


def arrow_column(values: Sequence[Any], kind: pa.DataType | None = None) -> pa.Array:
    """Make the column that `pyarrow.array` would make of the values.

    Args:
        values: Values; None stands for a missing one.
        kind: The type of the column; None infers it.

    Raises:
        pyarrow.ArrowException: The values do not fit the type, or have none in common.
    """
    import pyarrow as pa

    kind = kind or _kind(values)
    made = None if kind is None else _made(values, kind)
    return pa.array(values, kind) if made is None else made


def _kind(values: Sequence[Any]) -> pa.DataType | None:
    """Infer the type of plain values; None if pyarrow has to infer it."""
    import pyarrow as pa

    types = set(map(type, values)) - {NoneType}
    if not types:
        return pa.null()
    if types == {int, float}:
        return pa.float64()
    known = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    return known.get(next(iter(types))) if len(types) == 1 else None


def _made(values: Sequence[Any], kind: pa.DataType) -> pa.Array | None:
    """Make the column from buffers; None if the values are not of the Python types that are handled for its type."""
    import pyarrow as pa

    types = set(map(type, values)) - {NoneType}
    if kind == pa.null():
        return None if types else pa.nulls(len(values))
    if kind == pa.string():
        return _texts(values, kind) if types <= {str} else None
    if pa.types.is_list(kind):
        return _lists(values, kind) if types <= {list, tuple} else None
    if kind in (pa.int64(), pa.float64(), pa.bool_()):
        return _numbers(values, kind, types)
    return None


def _numbers(values: Sequence[Any], kind: pa.DataType, types: set[type]) -> pa.Array | None:
    import numpy as np
    import pyarrow as pa

    if kind == pa.bool_():
        bits = np.packbits(np.fromiter(map(bool, values), bool, len(values)), bitorder="little")
        return _filled(values, kind, [bits]) if types <= {bool} else None
    if kind == pa.int64():
        fits = types <= {int} and all(v is None or -(2**63) <= v < 2**63 for v in values)
        plain = np.array([v or 0 for v in values], dtype=np.int64) if fits else None
    else:
        fits = types <= {int, float} and all(type(v) is not int or abs(v) <= EXACT for v in values)
        plain = np.array([0.0 if v is None else v for v in values], dtype=np.float64) if fits else None
    return None if plain is None else _filled(values, kind, [plain])


def _texts(values: Sequence[str | None], kind: pa.DataType) -> pa.Array | None:
    parts = [b"" if value is None else value.encode() for value in values]
    places = _places(parts)
    return None if places is None else _filled(values, kind, [places, b"".join(parts)])


def _lists(values: Sequence[Sequence[Any] | None], kind: pa.DataType) -> pa.Array | None:
    parts = [value or () for value in values]
    places = _places(parts)
    return (
        None if places is None else _filled(values, kind, [places], arrow_column(list(chain(*parts)), kind.value_type))
    )


def _places(parts: Sequence[Any]) -> Any:
    """Return where each part begins and the last one ends; None if 32 bits are too few for that."""
    import numpy as np

    ends = np.cumsum([0, *map(len, parts)])
    return ends.astype(np.int32) if ends[-1] <= LONGEST else None


def _filled(values: Sequence[Any], kind: pa.DataType, buffers: Sequence[Any], *children: pa.Array) -> pa.Array:
    """Make a column from buffers, with a bitmap of missing values if there are any."""
    import numpy as np
    import pyarrow as pa

    there = np.fromiter((value is not None for value in values), bool, len(values))
    missing = len(values) - int(there.sum())
    bits = pa.py_buffer(np.packbits(there, bitorder="little")) if missing else None
    whole = [bits, *map(pa.py_buffer, buffers)]
    return pa.Array.from_buffers(kind, len(values), whole, missing, children=list(children) or None)
