"""Plain texts to train on, read one by one: a file, a data set of the hub, or a registered source, such as demo."""

from __future__ import annotations

import gzip
import warnings
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from evenhand.core import registry
from evenhand.core.hashing import stream_hash
from evenhand.data.io import hub, rows
from evenhand.data.io.content import BROKEN, no_data, unpacked_head
from evenhand.data.sets import EVALUATION_ONLY, for_evaluation
from evenhand.errors import DataError, EvenhandError, SettingsError, reason
from evenhand.interfaces import TrainData

DEMO = "demo:texts"
HUB = hub.PREFIX
COLUMN = "text"


def texts(source: str, most: int | None = None) -> list[str]:
    """Read the first texts of a source.

    Args:
        source: See `stream`.
        most: Maximum number of texts; None takes all.

    Raises:
        DataError: It cannot be read, or holds no text.
        SettingsError: It is not one of the known kinds of sources.
    """
    found = list(islice(stream(source), most))
    if not found:
        raise DataError(f"no text in {source!r}")
    return found


def stream(source: str) -> Iterator[str]:
    """Yield the texts of a source, read on demand; empty ones are left out.

    Files follow the rules of `evenhand.data.io.rows`, as training files and benchmarks do: a byte order mark is not
    part of a text, all line ends are equal, and a line of blanks separates texts as an empty one does. Objects whose
    text is null or not a text are left out, with one warning that counts them.

    Args:
        source: A .txt or .txt.gz file, whose texts are parted by blank lines; a .jsonl or .jsonl.gz file of objects
            with a "text"; "datasets:NAME[@CONFIGURATION][:SPLIT[:COLUMN]]", which is streamed (SPLIT is "train" and
            COLUMN "text" where they are left out); "demo:texts"; or a plugin's source of training data that has texts.

    Raises:
        DataError: It cannot be read; file and line are named.
        SettingsError: It is none of these, or a data set that is for evaluation only.
    """
    scheme, _, rest = source.partition(":")
    if scheme in registry.training_sources:
        return iter(_registered(source, scheme, rest).texts)
    if source.startswith(HUB):
        named = hub_of(source)
        if reason := EVALUATION_ONLY.get(named.name.casefold()):
            raise for_evaluation(source, reason)
        return _kept(_of_hub(named))
    path = Path(source).expanduser()
    plain = path.with_suffix("") if path.suffix == ".gz" else path
    reader = {".txt": _paragraphs, ".jsonl": _objects}.get(plain.suffix)
    if reader is None:
        raise _no_texts(source)
    if not path.is_file():
        raise DataError(f"no text file {source!r}")
    return _kept(reader(path))


def digest(found: Iterable[str]) -> str:
    """Hash texts in order."""
    encoded = (text.encode() for text in found)
    return stream_hash(len(data).to_bytes(8, "little") + data for data in encoded)[:32]


def hub_of(source: str) -> hub.Hub:
    """Parse "datasets:NAME[@CONFIGURATION][:SPLIT[:COLUMN]]"; the column is "text" by default.

    Raises:
        SettingsError: It has no name, or more parts.
    """
    found = hub.hub_of(source, with_column=True)
    return found._replace(column=found.column or COLUMN)


def registered(scheme: str, rest: str) -> TrainData:
    """Return training data from the source that is registered as `scheme`.

    Raises:
        SettingsError: The source is a plugin that is broken or returns something else, or refuses `rest`.
        DataError: The source found its data broken.
        EvenhandError: The source failed in any other way. All of these name the source, and have its error as cause.
    """
    load = registry.training_sources.get(scheme)
    try:
        data = load(rest)
    except Exception as error:
        raise _of_source(f"{scheme}:{rest}" if rest else scheme, error) from error
    if not isinstance(data, TrainData):
        raise SettingsError(f"the training source {scheme!r} returned {type(data).__name__}, not evenhand.TrainData")
    return data


def _of_source(source: str, error: Exception) -> EvenhandError:
    """Return the error of a source's function, with the source in its message."""
    for kind in (DataError, SettingsError, EvenhandError):
        if isinstance(error, kind):
            return kind(f"the training source {source!r}: {error}")
    return EvenhandError(f"the training source {source!r} failed with {type(error).__name__}: {error}")


def _registered(source: str, scheme: str, rest: str) -> TrainData:
    data = registered(scheme, rest)
    if not data.texts:
        raise _no_texts(source)
    return data


def _no_texts(source: str) -> SettingsError:
    return SettingsError(
        f"{source!r} is not a source of texts: give a .txt or .jsonl file (or .gz of one), {DEMO!r}, or "
        f"'{HUB}NAME[:SPLIT[:COLUMN]]'"
    )


def _kept(found: Iterable[str]) -> Iterator[str]:
    return (text for text in map(str.strip, found) if text)


def _lines(path: Path) -> Iterator[str]:
    head = unpacked_head(path)
    if wrong := no_data(head, empty=True):
        raise DataError(f"{path} {wrong}")
    try:
        opened: Any = gzip.open if path.suffix == ".gz" else open
        with opened(path, "rt", encoding="utf-8-sig") as handle:
            yield from handle  # LF, CR LF and CR end a line, each read as LF; U+2028 is part of a line
    except (*BROKEN, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the text file {path}: {reason(error)}") from error


def _paragraphs(path: Path) -> Iterator[str]:
    part: list[str] = []
    found = 0
    for line in _lines(path):
        if line.strip():
            part.append(line)
        elif part:
            found += 1
            yield "".join(part)
            part = []
    if found == 0 and len(part) > 1:
        warnings.warn(
            f"{path} has no empty line between its {len(part):,} lines, so it is one text; part texts by an empty "
            f'line, or give a .jsonl file with one {{"{COLUMN}": ...}} a line',
            UserWarning,
            stacklevel=2,
        )
    yield "".join(part)


def _objects(path: Path) -> Iterator[str]:
    refused: list[str] = []
    try:
        for number, row in objects(path):
            if COLUMN not in row:
                raise DataError(f'{path}:{number}: an object with a "{COLUMN}" was expected')
            value = row[COLUMN]
            try:
                yield rows.words(value, COLUMN) if value != "" and str(value).strip() else ""
            except rows.Refused as error:
                refused.append(f"{path}:{number}: {error}")
    finally:
        warn_of(refused)


def objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects of a .jsonl or .jsonl.gz file with their line numbers; empty lines are left out.

    Raises:
        DataError: It cannot be read, or a line is not a JSON object; file and line are named.
    """
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        try:
            row = rows.from_json(line)
        except rows.Refused as error:
            raise DataError(f"{path}:{number} is not JSON: {reason(error)}") from error
        if not isinstance(row, dict):
            raise DataError(f"{path}:{number}: an object was expected, not {rows.kind(row)}")
        yield number, row


def warn_of(refused: Sequence[str]) -> None:
    """Give one warning about all refused rows of a file."""
    if refused:
        warnings.warn(f"training texts: {rows.summary(refused)}", UserWarning, stacklevel=3)


def _of_hub(named: hub.Hub) -> Iterator[str]:
    for row in hub.stream(named):
        if not isinstance(row.get(named.column), str):
            raise DataError(f"{named.name} has no column {named.column!r} of texts; it has: {', '.join(sorted(row))}")
        yield row[named.column]
