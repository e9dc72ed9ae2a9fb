"""Data sets of the hub by "datasets:NAME[@CONFIGURATION][:SPLIT]", streamed row by row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from evenhand.errors import SHOWN, DataError, SettingsError, short

PREFIX = "datasets:"


class Hub(NamedTuple):
    """A data set of the hub, or a folder of one."""

    name: str
    configuration: str | None
    split: str
    column: str
    """"" where none is named."""


def hub_of(source: str, *, with_column: bool = False) -> Hub:
    """The parts of a source; the split is "train" where it is left out.

    Args:
        source: Beginning with "datasets:".
        with_column: Whether a column may be named after the split, "datasets:NAME[@CONFIGURATION][:SPLIT[:COLUMN]]".

    Raises:
        SettingsError: It has no name, or more parts.
    """
    name, *rest = source.removeprefix(PREFIX).split(":")
    if not name or len(rest) > 1 + with_column:
        more = "[:SPLIT[:COLUMN]]" if with_column else "[:SPLIT]"
        raise SettingsError(f"{short(source, SHOWN)!r}: give {PREFIX}NAME[@CONFIGURATION]{more}")
    name, _, configuration = name.partition("@")
    split, column = [*rest, "", ""][:2]
    return Hub(name, configuration or None, split or "train", column)


def stream(hub: Hub) -> Iterator[dict[str, Any]]:
    """The rows of a data set.

    Raises:
        DataError: It cannot be read.
    """
    from datasets import load_dataset

    try:
        for row in load_dataset(hub.name, hub.configuration, split=hub.split, streaming=True):
            yield dict(row)
    except Exception as error:  # datasets and the hub's client raise errors of many kinds
        raise DataError(f"cannot read the data set {hub.name!r} ({hub.split}): {error}") from error
