"""Sharded parameters (DTensor): whole copies of them, shards of whole tensors, and which rows lie on this rank.

torch tells the rows in a function that it does not document. `supported` looks for
`torch.distributed.tensor._utils.compute_local_shape_and_global_offset` once. Where it is missing, the rows are computed
as `Shard(0)` is documented: in chunks of ceil(rows / ranks), as `torch.chunk` makes them.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed.tensor import DTensor

Rows = tuple[int, int]
"""First and last + 1 place of a shard in a parameter's first dimension."""


@cache
def supported() -> bool:
    """Whether this version of torch has the function."""
    try:
        from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
    except ImportError:
        return False
    return callable(compute_local_shape_and_global_offset)


def rows_here(p: Tensor) -> Rows:
    """Which rows of a parameter lie on this rank: all of one that is whole.

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
    """The rows of a rank, of `size` rows over `ranks`; the last ranks may have fewer, or none."""
    each = -(-size // ranks)
    return min(rank * each, size), min((rank + 1) * each, size)


def _told(p: DTensor, size: int) -> Rows:
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    shape, offset = compute_local_shape_and_global_offset(p.shape, p.device_mesh, p.placements)
    first = min(offset[0], size) if shape[0] else size
    return first, first + shape[0]


def whole(tensor: Tensor, keep: bool = True) -> Tensor:
    """A copy of the whole tensor on the CPU; where it is sharded, all ranks have to ask for it together.

    Args:
        tensor: Sharded or whole.
        keep: False only takes part, and returns an empty tensor.
    """
    import torch
    from torch.distributed.tensor import DTensor

    tensor = tensor.detach()
    gathered = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return gathered.cpu().clone().contiguous() if keep else torch.empty(0)


def laid_out_as(tensor: Tensor, like: Tensor) -> Tensor:
    """This rank's rows of a whole tensor that every rank has, laid out as another tensor of its shape.

    Args:
        tensor: Whole.
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
