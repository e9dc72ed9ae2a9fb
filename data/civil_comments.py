"""Civil Comments (hub google/civil_comments, CC0-1.0): comments with the share of raters who found them toxic.

Dige et al. 2024 (arXiv 2406.13551) add toxic ones to StereoSet's texts for their larger training set, TV-14k. They do
not say from which share on a comment is toxic, nor which of them were taken: 0.5 and "the first" are ours.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from itertools import islice
from typing import Any

from evenhand.data.io import rows, tables
from evenhand.errors import SHOWN, DataError, SettingsError, short

HUB = "google/civil_comments"
TEXT, TOXICITY = "text", "toxicity"
THRESHOLD = 0.5


def toxic_comments(source: str, threshold: float = THRESHOLD, count: int | None = None) -> list[str]:
    """The comments that at least a share of the raters found toxic, in file order.

    Args:
        source: A .jsonl, .csv, .tsv or .parquet file (or a folder of them) with the columns text and toxicity, or
            "datasets:NAME[@CONFIGURATION][:SPLIT]" for the hub, such as "datasets:google/civil_comments:train".
        threshold: Smallest toxicity, from 0 to 1, of a comment that is taken.
        count: At most that many, the first; None takes all.

    Raises:
        SettingsError: The threshold or the count is out of range.
        DataError: The source cannot be read, or has no such comment.
    """
    if not 0 <= threshold <= 1:
        raise SettingsError(f"toxicity={threshold} must lie between 0 and 1, such as {THRESHOLD}")
    if count is not None and count < 1:
        raise SettingsError(f"comment_count={count} must be at least 1, or None for all")
    refused: list[str] = []
    found = list(islice(_toxic(source, threshold, refused), count))
    if refused:
        warnings.warn(f"civil comments: {rows.summary(refused)}", UserWarning, stacklevel=2)
    if not found:
        raise DataError(f"{source} has no comment with a toxicity of at least {threshold}")
    return found


def _toxic(source: str, threshold: float, refused: list[str]) -> Iterator[str]:
    for place, row in tables.read(source, (TEXT, TOXICITY)):
        try:
            text, toxicity = rows.text(row, TEXT), _share(row)
        except rows.Refused as error:
            refused.append(f"{place}: {error}")
            continue
        if toxicity >= threshold:
            yield text


def _share(row: dict[str, Any]) -> float:
    value: Any = row.get(TOXICITY)
    try:
        share = float(value)
    except (TypeError, ValueError, OverflowError):
        share = -1.0
    if isinstance(value, bool) or not 0 <= share <= 1:
        raise rows.Refused(f"field {TOXICITY!r} is {short(repr(value), SHOWN)}, not a share from 0 to 1")
    return share
