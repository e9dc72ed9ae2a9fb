"""Compute activation edits row by row.

Edits are computed in float32, or in float64 for rows of that type, and rounded once, to the type of the rows. Rows that
are not edited stay bit-identical.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from evenhand.errors import SettingsError
from evenhand.inference.activation_edits import LayerEdit, TokenGate

DEPENDENT = 1e-6
"""Singular values of unit directions below this fraction of the largest do not count for their span."""


class PreparedEdit(NamedTuple):
    """An edit's tensors, on the device and in the type in which rows are edited."""

    edit: LayerEdit
    basis: Tensor
    """For `add` the direction times the strength, else an orthonormal basis, [K, hidden]."""
    shift: Tensor | None
    """Vector added to every row, [hidden]: (a o.u + c) u for `project`; None is 0."""
    weight: Tensor | None
    """Weight of the gate, [hidden]; None without a gate."""

    def __call__(self, rows: Tensor) -> Tensor:
        """Return edited rows, [..., hidden]; the gate is not applied."""
        if self.edit.mode == "add":
            return rows + self.basis[0]
        removed = (rows @ self.basis.T) @ self.basis * self.edit.strength
        return rows - removed if self.shift is None else rows - removed + self.shift


def prepared(edit: LayerEdit, device: torch.device, dtype: torch.dtype) -> PreparedEdit:
    """Cast an edit's tensors once, for all rows of a type on a device.

    Args:
        edit: Edit whose tensors are combined in float64.
        device: Device of the rows.
        dtype: Type of the rows; half precision is computed in float32.
    """
    wide = torch.promote_types(dtype, torch.float32)
    directions, shift = edit.directions.double(), None
    if edit.mode == "add":
        basis = directions * edit.strength
    elif edit.mode == "ablate":
        basis = orthonormal(directions)
    else:
        basis = directions / directions.norm()
        along = 0.0 if edit.offset is None else float(edit.offset.double() @ basis[0]) * edit.strength
        shift = (along + edit.target) * basis[0] if along + edit.target else None
    weight = None if edit.gate is None else edit.gate.weight.to(device, wide)
    return PreparedEdit(edit, basis.to(device, wide), None if shift is None else shift.to(device, wide), weight)


def orthonormal(directions: Tensor) -> Tensor:
    """Return an orthonormal basis of the span of directions, [rank, hidden], float64; order and lengths do not matter.

    Raises:
        SettingsError: A direction has length 0.
    """
    given = directions.double()
    lengths = given.norm(dim=1, keepdim=True)
    if not bool((lengths > 0).all()):
        raise SettingsError("a direction has length 0, so it has no span")
    _, values, vectors = torch.linalg.svd(given / lengths, full_matrices=False)
    basis: Tensor = vectors[values > DEPENDENT * values[0]]
    return basis


def edited_rows(edits: Sequence[PreparedEdit], rows: Tensor, flagged: Tensor | None = None) -> Tensor:
    """Apply the edits of a layer to rows, in order.

    Args:
        edits: Edits prepared for the rows' device and type.
        rows: Hidden states, [..., hidden].
        flagged: Which rows are edited, [...]; None is all.

    Returns:
        New rows in the type of `rows`; those that no edit changes are bit-identical.
    """
    wide = rows.to(edits[0].basis.dtype)
    for one in edits:
        chosen = flagged
        if one.edit.gate is not None and one.weight is not None:
            open_ = below(one.edit.gate, one.weight, wide)
            chosen = open_ if chosen is None else chosen & open_
        made = one(wide)
        wide = made if chosen is None else torch.where(chosen[..., None], made, wide)
    return wide.to(rows.dtype)


def below(gate: TokenGate, weight: Tensor, rows: Tensor) -> Tensor:
    """Return whether a gate's probability is below its threshold for each row, [...]."""
    found: Tensor = torch.sigmoid(rows @ weight + gate.bias) < gate.threshold
    return found


def apply_rows(edits: Sequence[LayerEdit] | LayerEdit, rows: Tensor, flagged: Tensor | None = None) -> Tensor:
    """Apply the edits of a layer to rows; see `edited_rows`.

    Args:
        edits: One edit or several, applied in order.
        rows: Hidden states, [..., hidden], of any floating type, on any device.
        flagged: Which rows are edited, [...]; None is all.
    """
    some = [edits] if isinstance(edits, LayerEdit) else list(edits)
    if not some:
        return rows
    return edited_rows([prepared(edit, rows.device, rows.dtype) for edit in some], rows, flagged)


def unchanged_share(edits: Sequence[LayerEdit] | LayerEdit, rows: Tensor, dtype: torch.dtype | None = None) -> float:
    """Return the share of coordinates that edits leave unchanged, from 0 to 1; gates are applied.

    In bfloat16 a coordinate keeps its value if the edit changes it by less than about 2^-9 of its size. A share near
    1 means that an edit is lost in rounding: a larger strength, another layer or float32 are remedies.

    Args:
        edits: Edits of one layer.
        rows: Hidden states of that layer without the edit, [..., hidden].
        dtype: The type in which the model keeps its states; None is that of `rows`.
    """
    given = rows if dtype is None else rows.to(dtype)
    return float((apply_rows(edits, given) == given).double().mean())
