"""Plain texts to train on, read one by one: a file, a data set of the hub, or the proving ground's."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from evenhand.data.proving_ground import practice
from evenhand.errors import DataError, SettingsError

DEMO = "demo:texts"
HUB = "datasets:"
COLUMN = "text"


class Hub(NamedTuple):
    """A data set of the hub, or a folder of one."""

    name: str
    configuration: str | None
    split: str
    column: str


def texts(source: str, most: int | None = None) -> list[str]:
    """The first texts of a source.

    Args:
        source: See `stream`.
        most: How many at most; None takes all.

    Raises:
        DataError: It cannot be read, or holds no text.
        SettingsError: It is none of the kinds that are known.
    """
    found = list(islice(stream(source), most))
    if not found:
        raise DataError(f"no text in {source!r}")
    return found


def stream(source: str) -> Iterator[str]:
    """The texts of a source, read as they are asked for; empty ones are left out.

    Args:
        source: A .txt or .txt.gz file, whose texts are parted by blank lines; a .jsonl or .jsonl.gz file of objects
            with a "text"; "datasets:NAME[@CONFIGURATION][:SPLIT[:COLUMN]]", which is streamed (SPLIT is "train" and
            COLUMN "text" where they are left out); or "demo:texts".

    Raises:
        DataError: It cannot be read; file and line are named.
        SettingsError: It is none of these.
    """
    if source == DEMO:
        return iter(practice.texts())
    if source.startswith(HUB):
        return _kept(_of_hub(hub_of(source)))
    path = Path(source).expanduser()
    plain = path.with_suffix("") if path.suffix == ".gz" else path
    reader = {".txt": _paragraphs, ".jsonl": _objects}.get(plain.suffix)
    if reader is None:
        raise SettingsError(
            f"{source!r} is no source of texts: give a .txt or .jsonl file (or .gz of one), {DEMO!r}, or "
            f"'{HUB}NAME[:SPLIT[:COLUMN]]'"
        )
    if not path.is_file():
        raise DataError(f"no text file {source!r}")
    return _kept(reader(path))


def digest(found: Iterable[str]) -> str:
    """Hash of texts in their order."""
    total = hashlib.sha256()
    for text in found:
        data = text.encode()
        total.update(len(data).to_bytes(8, "little") + data)
    return total.hexdigest()[:32]


def hub_of(source: str) -> Hub:
    """The parts of "datasets:NAME[@CONFIGURATION][:SPLIT[:COLUMN]]".

    Raises:
        SettingsError: It has no name, or more parts.
    """
    name, *rest = source.removeprefix(HUB).split(":")
    if not name or len(rest) > 2:
        raise SettingsError(f"{source!r}: give {HUB}NAME[@CONFIGURATION][:SPLIT[:COLUMN]]")
    name, _, configuration = name.partition("@")
    split, column = [*rest, "", ""][:2]
    return Hub(name, configuration or None, split or "train", column or COLUMN)


def _kept(found: Iterable[str]) -> Iterator[str]:
    return (text for text in map(str.strip, found) if text)


def _lines(path: Path) -> Iterator[str]:
    try:
        opened: Any = gzip.open if path.suffix == ".gz" else open
        with opened(path, "rt", encoding="utf-8") as handle:
            yield from handle
    except (OSError, UnicodeDecodeError, EOFError) as error:
        raise DataError(f"cannot read the text file {path}: {error}") from error


def _paragraphs(path: Path) -> Iterator[str]:
    part: list[str] = []
    for line in _lines(path):
        if line.strip():
            part.append(line)
        elif part:
            yield "".join(part)
            part = []
    yield "".join(part)


def _objects(path: Path) -> Iterator[str]:
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}:{number} is no JSON: {error}") from error
        if not isinstance(row, dict) or not isinstance(row.get(COLUMN), str):
            raise DataError(f'{path}:{number}: an object with a "{COLUMN}" was expected')
        yield row[COLUMN]


def _of_hub(hub: Hub) -> Iterator[str]:
    from datasets import load_dataset

    try:
        rows: Any = load_dataset(hub.name, hub.configuration, split=hub.split, streaming=True)
        for row in rows:
            if not isinstance(row.get(hub.column), str):
                raise DataError(f"{hub.name} has no column {hub.column!r} of texts; it has: {', '.join(sorted(row))}")
            yield row[hub.column]
    except DataError:
        raise
    except Exception as error:  # datasets and the hub's client raise errors of many kinds
        raise DataError(f"cannot read the data set {hub.name!r} ({hub.split}): {error}") from error
