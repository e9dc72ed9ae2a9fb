"""Finding and reading benchmark files. Errors name file, line and field, and tell how to get what is missing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from evenhand import errors
from evenhand.data.io import rows
from evenhand.data.io.checksums import official
from evenhand.data.io.content import EMPTY
from evenhand.data.io.on_disk import short
from evenhand.errors import DataError

FOLDER_VARIABLE = "EVENHAND_DATA"
LONGEST = 1_000
"""Maximum characters of a reason in a report."""
FIRST = 240
"""Maximum characters of a problem in an error; a report has all of them."""


class Clone(NamedTuple):
    """A folder of a repository at one commit, fetched by git because it has too many files for a hash of each."""

    url: str
    commit: str
    """Full hash; git checks the content of every file against it."""
    folder: str


class Dataset(NamedTuple):
    """A data set that a benchmark needs, and how to get it."""

    name: str
    hub: str
    """Data set on the hub; "" if there is none."""
    revision: str
    patterns: tuple[str, ...]
    """Files to take from the hub."""
    licence: str
    home: str
    gated: bool = False
    benchmark: str = ""
    """Benchmark that reads it, if its name differs."""
    clone: Clone | None = None
    """Repository folder that git fetches, if it is fetched by git."""
    prefix: str = ""
    """Prefix of a path of this data set in a benchmark's `source`, if the benchmark also reads others."""
    evaluation_only: str = ""
    """Why no method may be trained on it, such as a clause of its licence; "" if nothing forbids it."""


@dataclass
class Problems:
    """Lines left out while reading; they are always shown with the results."""

    lines: list[str] = field(default_factory=list)

    def add(self, path: Path, line: int, reason: str) -> None:
        """Note one line that cannot be used."""
        self.lines.append(f"{path}:{line}: {errors.short(reason, LONGEST)}")

    @property
    def first(self) -> str:
        """The first problem, shortened, as an addition to a message; "" if there is none."""
        return f"; first problem: {short(self.lines[0], FIRST)}" if self.lines else ""

    def __bool__(self) -> bool:
        """Whether there were any problems."""
        return bool(self.lines)


def locate(dataset: Dataset, source: str) -> Path:
    """Find the folder (or file) of a data set.

    Args:
        dataset: Which one.
        source: A path; "hub" or "hub:NAME" for the hub; "auto" for $EVENHAND_DATA/<name>, else the hub.

    Raises:
        DataError: It is not there; the message lists every way to provide it.
    """
    if source.startswith("hub"):
        return from_hub(dataset, source.partition(":")[2] or dataset.hub)
    if source != "auto":
        path = Path(source).expanduser()
        if not path.exists():
            raise DataError(f"no {dataset.name} data at {source!r}. {how_to_get(dataset)}")
        return path
    folder = folder_of(dataset)
    if folder is None:
        return from_hub(dataset, dataset.hub)
    if not folder.exists():
        raise DataError(f"{FOLDER_VARIABLE} is {str(folder.parent)!r}, but there is no {folder}. {how_to_get(dataset)}")
    return folder


def folder_of(dataset: Dataset, base: str | Path | None = None) -> Path | None:
    """Return the folder for a data set's files, whether or not it exists.

    Args:
        dataset: Which one.
        base: The folder above the data sets; None for $EVENHAND_DATA.

    Returns:
        The folder; None if neither is given.
    """
    base = base or os.environ.get(FOLDER_VARIABLE)
    return Path(base).expanduser() / dataset.name if base else None


def how_to_get(dataset: Dataset) -> str:
    """Describe every way to provide a data set."""
    ways = [f"Put the files into a folder {dataset.name}/ and set {FOLDER_VARIABLE} to the folder above it"]
    benchmark = dataset.benchmark or dataset.name
    ways.append(f"or name them: {benchmark}(source='{dataset.prefix}/path/to/{dataset.name}')")
    if dataset.hub:
        hub = f"'{dataset.prefix}hub'" if dataset.prefix else "hub"
        ways.append(f"or let them be fetched from the hub: {benchmark}(source={hub}), which takes {dataset.hub}")
    ways.append(f"or run `evenhand data fetch {dataset.name}`" if fetchable(dataset) else "or take it from its home")
    gate = " It is gated: accept its terms there and log in first." if dataset.gated else ""
    return "; ".join(ways) + f". Home: {dataset.home}; licence {dataset.licence}.{gate}"


def fetchable(dataset: Dataset) -> bool:
    """Whether `evenhand data fetch` can fetch it."""
    return bool(dataset.hub or dataset.clone or official(dataset.name).urls)


def from_hub(dataset: Dataset, name: str, folder: Path | None = None) -> Path:
    """Fetch a data set from the hub.

    Args:
        dataset: Which one.
        name: Name on the hub; any other than the data set's own is taken at its newest revision.
        folder: Target folder; None is the hub's own cache.

    Raises:
        DataError: It cannot be fetched; the message says how else to get it.
    """
    from huggingface_hub import snapshot_download

    if not name:
        raise DataError(f"no {dataset.name} data. {how_to_get(dataset)}")
    revision = dataset.revision if name == dataset.hub else None
    try:
        found = snapshot_download(
            name, repo_type="dataset", revision=revision, allow_patterns=list(dataset.patterns), local_dir=folder
        )
    except Exception as error:  # hub, network and file errors are of many kinds
        reason = short(str(error).splitlines()[0], 160) if str(error) else type(error).__name__
        raise DataError(f"cannot fetch {dataset.name} from {name} ({reason}). {how_to_get(dataset)}") from error
    return Path(found)


def read_jsonl(path: Path, content: bytes, problems: Problems) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the rows of a jsonl file with their line numbers; broken lines only go to `problems`.

    A byte order mark and the line ends of any system are not part of a row; see `evenhand.data.io.rows`.
    """
    if not content:
        problems.add(path, 1, EMPTY)
    for number, line in enumerate(rows.byte_lines(content), start=1):
        if not line.strip():
            continue
        try:
            row = rows.from_json(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            problems.add(path, number, f"not UTF-8: {error.reason} at byte {error.start}")
        except rows.Refused as error:
            problems.add(path, number, str(error))
        else:
            if isinstance(row, dict):
                yield number, row
            else:
                problems.add(path, number, f"a JSON object was expected, not {type(row).__name__}")


def stem(path: Path) -> str:
    """Return a file's name without .jsonl or .jsonl.gz."""
    return path.name.removesuffix(".gz").rpartition(".")[0]
