"""What benchmarks share in reading their data: items and facts, the names that a setting selects, halves to fit on."""

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
    """The items of a benchmark, and what a report says of them."""

    items: list[T]
    facts: dict[str, Any]
    """JSON values, such as the source, its hash, what was left out ("dropped") and what to warn of ("notes")."""


class FilledRow(dict[str, Any]):
    """A row of a file, of which `row["field"]` must be filled; `row.get("field")` may be empty."""

    def __getitem__(self, name: str) -> Any:
        """The value of a field.

        Raises:
            KeyError: The field is missing.
            ValueError: It is null, nan or a text without a character that can be seen.
        """
        value = super().__getitem__(name)
        if value is None or value != value or (isinstance(value, str) and not value.strip()):
            raise ValueError(f"field {name!r} is empty")
        return value


def read_rows(
    source: str | Path, make: Callable[[dict[str, Any]], ItemT], columns: Sequence[str] = ()
) -> Loaded[ItemT]:
    """Read the rows of a file of your own; what cannot be used is left out and reported, and costs no other row.

    Left out are rows that `make` refuses, rows whose item has no id or cluster, and every further row with the same id.

    Args:
        source: A file in JSON lines (.jsonl, .jsonl.gz) or with a header line (.csv, .tsv).
        make: From a row to an item. A `KeyError`, `ValueError`, `TypeError`, `DataError` or `SettingsError` in it
            refuses the row, and so does reading an empty field as `row["field"]`; `row.get("field")` may be empty.
        columns: Columns that a .csv or .tsv must have.

    Raises:
        DataError: The file cannot be read, or not one of its rows can be used.
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
                problems.add(file, line, f"id {item.id!r} is that of line {found[item.id][0]} already")
            else:
                found[item.id] = line, item
    items = [item for _, item in found.values()]
    if not items:
        raise DataError(f"{file} has no usable row{problems.first}")
    facts = {"source": str(file), "sha256": bytes_hash(content), "items": len(items), "dropped": problems.lines}
    return Loaded(items, facts)


def unnamed(item: Item) -> str:
    """Which of its names an item lacks, with what stands there, such as "cluster=''"; "" where it has both."""
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
        raise DataError(f"{file} is neither .jsonl nor .csv nor .tsv, and so cannot be read in rows")


def known_names(benchmark: str, what: str, wanted: Iterable[str], present: Iterable[str], where: object) -> None:
    """Refuse names that a setting selects and the data does not have.

    Args:
        benchmark: Its name.
        what: What is selected, such as "bias type".
        wanted: The setting.
        present: The names in the data.
        where: Where the data came from.

    Raises:
        SettingsError: A name is not there; the message lists those that are.
    """
    there = sorted(set(present))
    for name in wanted:
        if name not in there:
            near = suggest(name, there)
            all_names = "" if near.startswith("Known") else f" There are {', '.join(there)}."
            raise SettingsError(f"{benchmark}: no {what} {name!r} in {where}. {near}{all_names}")


def first_names(keyed: Iterable[tuple[Hashable, str]]) -> list[str]:
    """The clusters of items that are not independent where they share a key: of each the first name with its key.

    Args:
        keyed: Per item what it shares with its likes, such as a question's text, and its own name.
    """
    first: dict[Hashable, str] = {}
    return [first.setdefault(key, name) for key, name in keyed]


def in_part(part: Part, items: Sequence[ItemT], stratum: Callable[[ItemT], str]) -> list[ItemT]:
    """The items of a part, whole clusters at a time; see `evenhand.data.parts`.

    Args:
        part: "all", "fit" or "test".
        items: All items.
        stratum: Within what an item's cluster is assigned to a part.
    """
    wanted = clusters_of(part, ((stratum(item), item.cluster) for item in items))
    return [item for item in items if item.cluster in wanted]
