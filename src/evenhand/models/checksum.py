"""A checksum of every element of a module's tensors, fast enough to compute for every question.

On the CPU it is XXH3 with 128 bits (https://github.com/Cyan4973/xxHash), which any change alters, permutations
included, except with probability 2^-128. It is not a cryptographic hash: collisions can be constructed deliberately.

Elsewhere the elements stay on their device. Their bytes are read as 64-bit words in rows of `ROW` bytes; for each row
the sum of (word + (word >> 32)) * weight is taken modulo 2^64, with fixed pseudo-random odd weights, and all row sums
are hashed by XXH3. The shifted part carries changes in the uppermost bits, such as signs, into the lower ones:
without it any even number of them would cancel. What is detected:

- A change of a single element of up to 4 bytes, always: its word's term changes, and an odd weight loses nothing. The
  same holds for an element of 8 bytes, except for pairs whose halves differ by 2^32 - 1 and 1.
- Rows that are swapped or moved, always, unless they are equal.
- Several changes within one row, such as two words that are swapped, unless their weighted differences cancel: about
  one in 2^32 at most (where only signs change), usually one in 2^64.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import TYPE_CHECKING

import xxhash

if TYPE_CHECKING:
    import torch

WORDS = 1024
"""Number of 64-bit words in a row; each has a weight of its own."""
ROW = 8 * WORDS
"""Number of bytes in a row."""
BLOCK = 2**25
"""Bytes processed at a time; a device needs as much memory again. Launches dominate for smaller blocks."""


def of_tensors(tensors: Iterable[torch.Tensor]) -> str:
    """Compute a checksum of the elements of tensors on any devices; each device is waited for once.

    Args:
        tensors: Any type, shape and strides; dense ones are not copied. The order counts; shapes and types do not
            (compare them separately). Tensors on the device `meta` have no elements and are left out.
    """
    import torch

    found = xxhash.xxh3_128()
    elsewhere: dict[torch.device, list[torch.Tensor]] = {}
    with torch.no_grad():
        for t in tensors:
            if t.device.type == "cpu":
                found.update(_bytes(t).numpy().data)
            elif t.device.type != "meta":
                elsewhere.setdefault(t.device, []).append(_bytes(t))
        sums = [row_sums(parts) for parts in elsewhere.values()]  # all devices work before the first is waited for
        for part in sums:
            found.update(part.cpu().numpy().data)
    return found.hexdigest()


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    """Return the elements as bytes in memory order, without a copy if they are dense."""
    import torch

    t = tensor.detach()
    if 0 in t.stride():  # expanded: one element represents all
        t = t[tuple(slice(0, 1) if step == 0 else slice(None) for step in t.stride())]
        t = t.clone(memory_format=torch.contiguous_format)
    return t.permute(sorted(range(t.dim()), key=t.stride, reverse=True)).reshape(-1).view(torch.uint8)


def row_sums(parts: list[torch.Tensor]) -> torch.Tensor:
    """Compute weighted sums of the rows of byte tensors on one device, [number of rows], int64.

    Remainders that do not fill a row are concatenated, so that many small tensors cost as much as one.
    """
    import torch

    ends = [part.numel() // ROW * ROW for part in parts]
    rest = torch.cat([part[end:] for part, end in zip(parts, ends, strict=True)])
    rest = torch.nn.functional.pad(rest, (0, -rest.numel() % ROW))
    whole = [part[:end] for part, end in zip(parts, ends, strict=True)]
    weights = _weights(rest.device)
    return torch.cat([_weighted(words, weights) for words in _words([*whole, rest])] or [weights[:0]])


def _words(parts: list[torch.Tensor]) -> Iterator[torch.Tensor]:
    """Yield blocks of rows of 64-bit words, [rows, WORDS]."""
    import torch

    for part in parts:
        for begin in range(0, part.numel(), BLOCK):
            block = part[begin : begin + BLOCK]
            aligned = block.data_ptr() % 8 == 0 == block.storage_offset() % 8
            yield (block if aligned else block.clone()).view(torch.int64).view(-1, WORDS)


def _weighted(words: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    mixed = words >> 32
    mixed += words
    mixed *= weights
    return mixed.sum(1)


@cache
def _weights(device: torch.device) -> torch.Tensor:
    """Return odd numbers, the same in every process."""
    import torch

    with torch.inference_mode(False):
        drawn = torch.randint(-(2**62), 2**62, (WORDS,), generator=torch.Generator().manual_seed(0))
        return (2 * drawn + 1).to(device)
