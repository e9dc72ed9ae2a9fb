"""Turn what a caller passes into items with names, and one prediction per item."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from evenhand.errors import SettingsError, suggest
from evenhand.evaluation.base import RowBenchmark
from evenhand.interfaces import Benchmark


class Given(NamedTuple):
    """The items that were asked."""

    items: list[Any]
    names: list[str]
    """The caller's name of each item; its id, unless rows came as a mapping."""


@runtime_checkable
class _Array(Protocol):
    """An array, tensor or column."""

    def tolist(self) -> Any:
        """Return its values as Python's own."""


def items_of(benchmark: Benchmark, rows: Any) -> Given:
    """Return the items that were asked.

    Args:
        benchmark: Benchmark of the items.
        rows: None for all items of the benchmark; or items, their ids, or raw rows, in a sequence or a table, or a
            mapping of items or raw rows.

    Raises:
        SettingsError: They are none of these, or one occurs twice.
        DataError: A raw row cannot be used.
    """
    if rows is None:
        items = list(benchmark.load())
        _refuse_twins(benchmark, [item.id for item in items], "its data must have every id once")
        return Given(items, [item.id for item in items])
    names = [str(name) for name in rows] if isinstance(rows, Mapping) else []
    listed = list(rows.values()) if isinstance(rows, Mapping) else _listed(benchmark, rows)
    if not listed:
        raise SettingsError(f"{benchmark.name}: rows are empty; give None to take all items of the benchmark")
    items = _made(benchmark, listed)
    _refuse_twins(benchmark, [item.id for item in items])
    _refuse_twins(benchmark, names)
    return Given(items, names or [item.id for item in items])


def by_item(benchmark: Benchmark, given: Given, predictions: Any) -> list[Any]:
    """Return the prediction of each item, in order; arrays as lists, nan and `pandas.NA` as None.

    Raises:
        SettingsError: There are too many or too few, or some are for unknown items.
    """
    if isinstance(predictions, Mapping):
        return _looked_up(benchmark, given.names, {str(k): plain(v) for k, v in predictions.items()})
    _refuse_sets(benchmark, "predictions", predictions)
    if isinstance(predictions, str) or not isinstance(predictions, Iterable | _Array):
        raise SettingsError(
            f"{benchmark.name}: predictions are {_shown(predictions)}; give a list with one per row, or a mapping by id"
        )
    found = _predicted(predictions)
    if len(found) != len(given.items):
        raise SettingsError(
            f"{benchmark.name}: {len(found):,} predictions for {len(given.items):,} rows; give one per row, None where "
            "an answer is missing"
        )
    return found


def plain(value: Any) -> Any:
    """Return arrays as lists, numpy numbers as Python's, nan and `pandas.NA` as None; anything else unchanged."""
    import pandas as pd

    if isinstance(value, _Array):
        value = value.tolist()
    if value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return None
    if type(value) in (list, tuple):
        return type(value)(plain(v) for v in value)
    if type(value) is dict:
        return {k: plain(v) for k, v in value.items()}
    return value


def _listed(benchmark: Benchmark, rows: Any) -> list[Any]:
    """Return the rows of a table, array or sequence."""
    import pandas as pd

    if isinstance(rows, pd.DataFrame):
        return [plain(row) for row in rows.to_dict("records")]
    _refuse_sets(benchmark, "rows", rows)
    if isinstance(rows, str) or not isinstance(rows, Iterable):
        raise SettingsError(
            f"{benchmark.name}: rows are {_shown(rows)}; give a list of items, ids or raw rows, or None for all items"
        )
    return [plain(row) for row in rows]


def _predicted(predictions: Any) -> list[Any]:
    """Return predictions in order; a table's only column by itself."""
    import pandas as pd

    if isinstance(predictions, pd.DataFrame):
        predictions = predictions.to_numpy() if predictions.shape[1] > 1 else predictions.iloc[:, 0]
    return [plain(p) for p in (predictions.tolist() if isinstance(predictions, _Array) else predictions)]


def _made(benchmark: Benchmark, listed: Sequence[Any]) -> list[Any]:
    """Make items from what is given for them, which has to be of one kind."""
    if all(isinstance(row, str) for row in listed):
        return _chosen(benchmark, listed)
    if all(isinstance(row, Mapping) for row in listed):
        if not isinstance(benchmark, RowBenchmark):
            raise SettingsError(f"{benchmark.name}: it cannot make items of raw rows; pass items, or ids of items")
        return list(benchmark.items_of_rows(listed))
    for number, row in enumerate(listed):
        if isinstance(row, str | Mapping) or not _is_item(row):
            raise SettingsError(
                f"{benchmark.name}: row {number} is {_shown(row)}; give items throughout (with `id` and `cluster`), or "
                "ids, or raw rows as mappings"
            )
    return list(listed)


def _is_item(row: Any) -> bool:
    try:
        return isinstance(row.id, str) and isinstance(row.cluster, str)
    except AttributeError:
        return False


def _chosen(benchmark: Benchmark, ids: Sequence[str]) -> list[Any]:
    known = {item.id: item for item in benchmark.load()}
    for name in ids:
        if name not in known:
            raise SettingsError(f"{benchmark.name}: no item {name!r} in its data. {_near(name, known)}")
    return [known[name] for name in ids]


def _looked_up(benchmark: Benchmark, names: Sequence[str], found: Mapping[str, Any]) -> list[Any]:
    there = set(names)
    if unknown := [name for name in found if name not in there]:
        raise SettingsError(
            f"{benchmark.name}: predictions name {unknown[0]!r}, which no row is called. {_near(unknown[0], there)}"
        )
    if missing := [name for name in names if name not in found]:
        raise SettingsError(
            f"{benchmark.name}: no prediction for {missing[0]!r} ({len(missing):,} of {len(names):,} rows have none); "
            "give None where an answer is missing, or only the rows that were asked"
        )
    return [found[name] for name in names]


def _near(name: str, known: Iterable[str]) -> str:
    """Return the names like one, or a first few: a benchmark may have thousands."""
    names = sorted(known)
    near = suggest(name, names)
    return near if near.startswith("Did") or len(names) <= 5 else f"Names look like {', '.join(map(repr, names[:3]))}."


def _refuse_twins(benchmark: Benchmark, names: Sequence[str], remedy: str = "give every row once") -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise SettingsError(f"{benchmark.name}: item {name!r} is there twice; {remedy}")
        seen.add(name)


def _refuse_sets(benchmark: Benchmark, what: str, given: Any) -> None:
    if isinstance(given, set | frozenset):
        raise SettingsError(f"{benchmark.name}: {what} are a set, which has no order; give a list with one per row")


def _shown(value: Any) -> str:
    """Format a value for a message, short and without the texts of items."""
    return f"the text {value[:40]!r}" if isinstance(value, str) else f"of type {type(value).__name__}"
