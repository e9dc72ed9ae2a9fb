"""Check inputs of the modules, since `evaluate` silently casts values to a module's features.

An integer feature would truncate .97 to 0. So labels are taken as real numbers, and anything but an integer in
range is refused by its row.
"""

from __future__ import annotations

import difflib
import json
import reprlib
from collections.abc import Iterable, Sequence, Sized
from math import isfinite, isinf, nan
from numbers import Integral
from typing import Any

import numpy as np

from evenhand.data.io.on_disk import few
from evenhand.data.io.rows import known

UNPARSED = -1
"""Stands for a reply that could not be parsed."""
TOLERANCE = 1e-3
"""Maximum deviation of probabilities from a sum of 1; float16 models deviate less."""


def shown(value: object) -> str:
    """Format a value for messages, shortened if it is long."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = 80
    return short.repr(value)


def is_number(value: Any) -> bool:
    """Whether a value is one number, of Python, NumPy or torch, or a text of one, which `evaluate` casts."""
    if isinstance(value, (list, tuple, dict, bytes)) or (isinstance(value, np.ndarray) and value.ndim):
        return False
    try:
        float(value)
    except (TypeError, ValueError, RuntimeError):
        return False
    return True


def json_rows(values: Sequence[str], source: str) -> list[dict[str, Any]]:
    """Parse rows of a benchmark's file that were passed as JSON.

    Args:
        values: As `evaluate` hands them over.
        source: Whose rows, such as "BBQ".

    Raises:
        ValueError: One of them is not JSON, or not an object.
    """
    found = []
    for row, value in enumerate(values):
        try:
            one = json.loads(value)
        except (ValueError, RecursionError):
            one = None
        if not isinstance(one, dict):
            raise ValueError(
                f"references, row {row}: {shown(value)} is not a row of {source}'s file as JSON; give json.dumps(row)"
            )
        found.append(one)
    return found


def group_names(values: Sequence[str], names: Sequence[str], what: str) -> list[str]:
    """Return the groups of rows as the data set spells them; unknown groups are kept.

    Args:
        values: Group of each row, as given.
        names: The data set's groups.
        what: Kind of group, such as "bias type".

    Raises:
        ValueError: A group is empty, or looks like a misspelt one of the data set's.
    """
    found = [known(value.strip(), names) for value in values]
    for row, name in enumerate(found):
        if not name:
            raise ValueError(f"references, row {row}: the {what} is empty; give one, such as {names[0]!r}")
        near = [] if name in names else difflib.get_close_matches(name, names, n=1, cutoff=0.75)
        if near:
            raise ValueError(f"references, row {row}: no {what} {shown(name)}; did you mean {near[0]!r}?")
    return found


def no_group(group: object, what: str, there: Iterable[str]) -> ValueError:
    """Return the error for a group that no row has; it lists the existing ones."""
    return ValueError(f"no {what} {shown(group)}; there are {few(there, 12)}")


def class_count(classes: object) -> int | None:
    """Return the number of labels, if it was given.

    Raises:
        ValueError: It is not an integer above 1.
    """
    if classes is None:
        return None
    if isinstance(classes, bool) or not isinstance(classes, Integral) or classes < 2:
        raise ValueError(f"classes={shown(classes)} is not a number of labels; give a whole number from 2, or none")
    return int(classes)


def labels(values: Sequence[float | None], what: str, classes: int | None = None) -> list[int]:
    """Return right labels as integers.

    Args:
        values: As `evaluate` hands them over.
        what: Their name in messages, such as "references".
        classes: Number of labels; None if unknown.

    Raises:
        ValueError: One of them is not a label.
    """
    found = [_whole(value) for value in values]
    for row, (value, label) in enumerate(zip(values, found, strict=True)):
        if label is None or label < 0 or (classes is not None and label >= classes):
            raise ValueError(f"{what}, row {row}: {value} is not a label; give {_range(classes)}")
    return [label for label in found if label is not None]


def predicted(values: Sequence[float | None], classes: int | None = None) -> list[int | None]:
    """Return predicted labels, None for -1 (an unparsed reply). Arguments and errors are those of `labels`."""
    found = [_whole(value) for value in values]
    for row, (value, label) in enumerate(zip(values, found, strict=True)):
        if label is None or label < UNPARSED or (classes is not None and label >= classes):
            raise ValueError(
                f"predictions, row {row}: {value} is not a label; give {_range(classes)}, or -1 where the reply could "
                "not be parsed. Probabilities and logits have to be turned into labels first"
            )
    return [None if label == UNPARSED else label for label in found]


def scores(rows: Sequence[Sequence[float | None]]) -> list[tuple[float, ...]]:
    """Return scores of texts; nan for a text that was not scored.

    Raises:
        ValueError: A score is infinite, so that it cannot be compared with another one.
    """
    for row, values in enumerate(rows):
        if any(value is not None and isinf(value) for value in values):
            raise ValueError(
                f"predictions, row {row}: {list(values)} has an infinite score; give log-probabilities, and nan where "
                "a text was not scored"
            )
    return [tuple(nan if value is None else float(value) for value in values) for values in rows]


def distributions(rows: Sequence[Sequence[float] | None], count: int, classes: int) -> Sequence[Sequence[float] | None]:
    """Return the probabilities of the labels for each item; None for an item without.

    Raises:
        ValueError: The numbers of rows and items differ, or a row is not a distribution over the labels.
    """
    if not isinstance(rows, Sized) or isinstance(rows, (str, bytes)):
        raise ValueError(f"probabilities={shown(rows)} is not a list; give one row of {classes} numbers per item")
    if len(rows) != count:
        raise ValueError(f"{len(rows)} rows of probabilities but {count} predictions; give one per item")
    for row, p in enumerate(rows):
        if p is None:
            continue
        if not isinstance(p, Sized) or isinstance(p, (str, bytes)):
            raise ValueError(f"probabilities, row {row}: {shown(p)} is not a list; give {classes} probabilities")
        strange = [x for x in p if isinstance(x, str) or not is_number(x)]
        if strange:
            raise ValueError(f"probabilities, row {row}: {shown(strange[0])} is not a number; give {classes} of them")
        if len(p) != classes or not all(isfinite(x) and x >= 0 for x in p) or abs(sum(p) - 1) > TOLERANCE:
            raise ValueError(
                f"probabilities, row {row}: {list(p)} is not a distribution over {classes} labels; give {classes} "
                "numbers from 0 that sum to 1 (classes= says how many labels there are)"
            )
    return rows


def _whole(value: float | None) -> int | None:
    return int(value) if value is not None and isfinite(value) and value == int(value) else None


def _range(classes: int | None) -> str:
    return "a whole number from 0" if classes is None else f"a whole number from 0 to {classes - 1}"
