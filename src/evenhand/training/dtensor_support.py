"""Sharded parameters (DTensor): whole copies of them, shards of whole tensors, and which rows are on this rank.

torch gives the rows in an undocumented function, `compute_local_shape_and_global_offset` of
`torch.distributed.tensor._utils`. `supported` checks once whether it exists. If it does not, the rows are computed as
documented for `Shard(0)`: in chunks of ceil(rows / ranks), as `torch.chunk` makes them.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed.tensor import DTensor

Rows = tuple[int, int]
"""First row of a shard in a parameter's first dimension, and last row + 1."""


@cache
def supported() -> bool:
    """Whether this version of torch has the undocumented function."""
    try:
        from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
    except ImportError:
        return False
    return callable(compute_local_shape_and_global_offset)


def rows_here(p: Tensor) -> Rows:
    """Return which rows of a parameter are on this rank: all of them if it is not sharded.

    Args:
        p: A parameter, sharded along its first dimension or whole.
    """
    from torch.distributed.tensor import DTensor

    size = p.shape[0] if p.dim() else 1
    if not isinstance(p, DTensor):
        return 0, size
    if not supported():
        return chunk(size, p.device_mesh.size(), p.device_mesh.get_local_rank())
    return _told(p, size)


def chunk(size: int, ranks: int, rank: int) -> Rows:
    """Return the rows of a rank when `size` rows are divided over `ranks`; the last ranks may have fewer, or none."""
    each = -(-size // ranks)
    return min(rank * each, size), min((rank + 1) * each, size)


def _told(p: DTensor, size: int) -> Rows:
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    shape, offset = compute_local_shape_and_global_offset(p.shape, p.device_mesh, p.placements)
    first = min(offset[0], size) if shape[0] else size
    return first, first + shape[0]


def whole(tensor: Tensor, keep: bool = True) -> Tensor:
    """Copy the whole tensor to the CPU; if it is sharded, all ranks must call this together.

    Args:
        tensor: Sharded or whole.
        keep: False only takes part in the gathering, and returns an empty tensor.
    """
    import torch
    from torch.distributed.tensor import DTensor

    tensor = tensor.detach()
    gathered = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return gathered.cpu().clone().contiguous() if keep else torch.empty(0)


def laid_out_as(tensor: Tensor, like: Tensor) -> Tensor:
    """Return this rank's rows of a whole tensor, laid out as another tensor of its shape.

    Args:
        tensor: The whole tensor, the same on every rank.
        like: Sharded along its first dimension, or whole.
    """
    from torch.distributed.tensor import DTensor

    if not isinstance(like, DTensor):
        return tensor.to(like.device)
    first, last = rows_here(like)
    rows = tensor[first:last].to(like.to_local().device, copy=True)
    return DTensor.from_local(
        rows, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
    )
