"""Rows of different lengths as one table: filled up on the right or on the left, with a mask of what is real.

Right padding leaves the real positions of a causal model untouched, as they see only what is before them. Generation
needs left padding: the last position of every row is then its last token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Padded(NamedTuple):
    """A table of rows."""

    values: Tensor
    """[rows, length] integers."""
    mask: Tensor
    """[rows, length] 1 for what a row has, 0 for padding."""


def right_pad(
    rows: Sequence[Sequence[int]], pad: int, *, length: int = 0, device: torch.device | None = None
) -> Padded:
    """Rows that begin at the left.

    Args:
        rows: Integers, such as token ids or labels.
        pad: What shorter rows are filled up with.
        length: Minimum length of the table; the longest row may be longer.
        device: Where the table goes; None is the CPU.
    """
    length = max(length, max(map(len, rows), default=0))
    return _table([[*row, *[pad] * (length - len(row))] for row in rows], rows, length, device, left=False)


def left_pad(rows: Sequence[Sequence[int]], pad: int, *, length: int = 0, device: torch.device | None = None) -> Padded:
    """Rows that end at the right; see `right_pad`."""
    length = max(length, max(map(len, rows), default=0))
    return _table([[*[pad] * (length - len(row)), *row] for row in rows], rows, length, device, left=True)


def _table(
    filled: list[list[int]], rows: Sequence[Sequence[int]], length: int, device: torch.device | None, *, left: bool
) -> Padded:
    values = torch.tensor(filled, dtype=torch.long, device=device).view(len(rows), length)
    sizes = torch.tensor([len(row) for row in rows], dtype=torch.long, device=device)[:, None]
    places = torch.arange(length, device=device)[None]
    real = places >= length - sizes if left else places < sizes
    return Padded(values, real.long())
