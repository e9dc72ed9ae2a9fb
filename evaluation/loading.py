"""Helpers of benchmarks for reading data: items and facts, names selected by a setting, halves to fit on."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from evenhand.core.hashing import bytes_hash
from evenhand.data.io import locate
from evenhand.data.io.content import read_bytes
from evenhand.data.io.delimited import read_delimited
from evenhand.data.parts import Part, clusters_of
from evenhand.errors import DataError, SettingsError, suggest
from evenhand.interfaces import Item

T = TypeVar("T")
ItemT = TypeVar("ItemT", bound=Item)


class Loaded(NamedTuple, Generic[T]):
    """The items of a benchmark, and the facts about them for reports."""

    items: list[T]
    facts: dict[str, Any]
    """JSON values, such as the source, its hash, what was left out ("dropped"), and warnings ("notes")."""


class FilledRow(dict[str, Any]):
    """A row of a file in which `row["field"]` has to be filled; `row.get("field")` may be empty."""

    def __getitem__(self, name: str) -> Any:
        """Return the value of a field.

        Raises:
            KeyError: The field is missing.
            ValueError: The value is null, nan or a text without a visible character.
        """
        value = super().__getitem__(name)
        if value is None or value != value or (isinstance(value, str) and not value.strip()):
            raise ValueError(f"field {name!r} is empty")
        return value


def read_rows(
    source: str | Path, make: Callable[[dict[str, Any]], ItemT], columns: Sequence[str] = ()
) -> Loaded[ItemT]:
    """Read the rows of your own file; unusable rows are left out and reported, and do not affect the others.

    Rows that `make` refuses, rows whose item has no id or cluster, and further rows with the same id are left out.

    Args:
        source: A file in JSON lines (.jsonl, .jsonl.gz) or with a header line (.csv, .tsv).
        make: Turns a row into an item. A `KeyError`, `ValueError`, `TypeError`, `DataError` or `SettingsError` in it
            refuses the row, and so does reading an empty field as `row["field"]`; `row.get("field")` may be empty.
        columns: Columns that a .csv or .tsv must have.

    Raises:
        DataError: The file cannot be read, or none of its rows can be used.
    """
    file = Path(source).expanduser()
    problems, found = locate.Problems(), dict[str, tuple[int, ItemT]]()
    content = read_bytes(file, empty=True)
    for line, row in _rows(file, content, columns, problems):
        try:
            item = make(FilledRow(row))
        except KeyError as error:
            problems.add(file, line, f"field {error} is missing")
        except (ValueError, TypeError, DataError, SettingsError) as error:
            problems.add(file, line, str(error))
        else:
            if reason := unnamed(item):
                problems.add(file, line, f"the item has {reason}")
            elif item.id in found:
                problems.add(file, line, f"id {item.id!r} already occurs in line {found[item.id][0]}")
            else:
                found[item.id] = line, item
    items = [item for _, item in found.values()]
    if not items:
        raise DataError(f"{file} has no usable row{problems.first}")
    facts = {"source": str(file), "sha256": bytes_hash(content), "items": len(items), "dropped": problems.lines}
    return Loaded(items, facts)


def unnamed(item: Item) -> str:
    """Return which of its names an item lacks, with the value found, such as "cluster=''"; "" if it has both."""
    names: dict[str, Callable[[], object]] = {"id": lambda: item.id, "cluster": lambda: item.cluster}
    for field, read in names.items():
        try:
            value = read()
        except AttributeError:
            value = ""
        if not isinstance(value, str) or not value:
            return f"{field}={value!r}"
    return ""


def _rows(
    file: Path, content: bytes, columns: Sequence[str], problems: locate.Problems
) -> Iterator[tuple[int, dict[str, Any]]]:
    kind = file.name.removesuffix(".gz").rpartition(".")[2]
    if kind in ("csv", "tsv"):
        yield from read_delimited(file, content, columns, problems, delimiter="," if kind == "csv" else "\t")
    elif kind == "jsonl":
        yield from locate.read_jsonl(file, content, problems)
    else:
        raise DataError(f"{file} cannot be read in rows, since it is neither .jsonl nor .csv nor .tsv")


def known_names(benchmark: str, what: str, wanted: Iterable[str], present: Iterable[str], where: object) -> None:
    """Refuse names that a setting selects but the data does not contain.

    Args:
        benchmark: Its name.
        what: What is selected, such as "bias type".
        wanted: The setting.
        present: The names in the data.
        where: Where the data came from.

    Raises:
        SettingsError: A name does not occur in the data; the message lists those that do.
    """
    there = sorted(set(present))
    for name in wanted:
        if name not in there:
            near = suggest(name, there)
            all_names = "" if near.startswith("Known") else f" There are {', '.join(there)}."
            raise SettingsError(f"{benchmark}: no {what} {name!r} in {where}. {near}{all_names}")


def first_names(keyed: Iterable[tuple[Hashable, str]]) -> list[str]:
    """Return cluster names for items that are not independent if they share a key: the first name with each key.

    Args:
        keyed: For each item its key, such as a question's text, and its own name.
    """
    first: dict[Hashable, str] = {}
    return [first.setdefault(key, name) for key, name in keyed]


def in_part(part: Part, items: Sequence[ItemT], stratum: Callable[[ItemT], str]) -> list[ItemT]:
    """Return the items of a part, keeping clusters whole; see `evenhand.data.parts`.

    Args:
        part: "all", "fit" or "test".
        items: All items.
        stratum: Returns the stratum within which an item's cluster is assigned to a part.
    """
    wanted = clusters_of(part, ((stratum(item), item.cluster) for item in items))
    return [item for item in items if item.cluster in wanted]
