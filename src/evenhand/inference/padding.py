"""Pad rows of different lengths to one table, on the right or on the left, with a mask of the real entries.

Right padding does not affect the real positions of a causal model, which see only what is before them. Generation
needs left padding: the last position of every row is then its last token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Padded(NamedTuple):
    """A table of padded rows."""

    values: Tensor
    """Integers, [rows, length]."""
    mask: Tensor
    """Mask, [rows, length]: 1 for entries of a row, 0 for padding."""


def right_pad(
    rows: Sequence[Sequence[int]], pad: int, *, length: int = 0, device: torch.device | None = None
) -> Padded:
    """Pad rows on the right.

    Args:
        rows: Integers, such as token ids or labels.
        pad: Value with which shorter rows are padded.
        length: Minimum length of the table; the longest row may be longer.
        device: Device of the table; None is the CPU.
    """
    length = max(length, max(map(len, rows), default=0))
    return _table([[*row, *[pad] * (length - len(row))] for row in rows], rows, length, device, left=False)


def left_pad(rows: Sequence[Sequence[int]], pad: int, *, length: int = 0, device: torch.device | None = None) -> Padded:
    """Pad rows on the left; see `right_pad`."""
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
