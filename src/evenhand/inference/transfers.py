"""Copies between the host and a GPU without waiting.

A GPU works through a queue. A copy from ordinary memory, and every number that the host reads, waits until everything
queued before it is done, and while the host waits it queues nothing. So data for the device is copied from pinned
memory, all of a call's small tensors at once, and results are fetched after the host has queued more work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

ASYNCHRONOUS = {"cuda"}
"""Types of devices with copies that do not wait."""


def asynchronous(device: torch.device) -> bool:
    """Return whether a device continues to work while the host prepares the next step."""
    return device.type in ASYNCHRONOUS


def upload(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Copy tensors of the host to a device, those of one type together, without waiting for the device.

    Args:
        tensors: Tensors on the CPU, of any shapes and types.
        device: Target device; on a CPU the tensors are returned as they are.

    Returns:
        The same values in the same order. Those of one type are views of one tensor.
    """
    if not asynchronous(device):
        return [t.to(device) for t in tensors]
    found: dict[int, Tensor] = {}
    for dtype in dict.fromkeys(t.dtype for t in tensors):
        some = [n for n, t in enumerate(tensors) if t.dtype == dtype]
        sizes = [tensors[n].numel() for n in some]
        here = torch.empty(sum(sizes), dtype=dtype, pin_memory=device.type == "cuda")
        torch.cat([tensors[n].flatten() for n in some], out=here)
        parts = torch.split(here.to(device, non_blocking=True), sizes)
        found |= {n: part.view(tensors[n].shape) for n, part in zip(some, parts, strict=True)}
    return [found[n] for n in range(len(tensors))]


def download(values: Tensor) -> Callable[[], Tensor]:
    """Queue a copy of computed values to the host.

    Args:
        values: Values on any device.

    Returns:
        A function that waits for this copy, not for work queued after it, and returns it.
    """
    if not asynchronous(values.device):
        return values.cpu
    here = torch.empty(values.shape, dtype=values.dtype, pin_memory=values.device.type == "cuda")
    here.copy_(values, non_blocking=True)
    new_event: Any = torch.cuda.Event  # torch has no type for calling it
    copied = new_event()
    copied.record(torch.cuda.current_stream(values.device))

    def fetch() -> Tensor:
        copied.synchronize()
        return here

    return fetch
