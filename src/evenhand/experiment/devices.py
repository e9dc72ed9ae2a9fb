"""Compute devices of this machine and their speed, for estimates, measured by a short matrix product."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch

SIZE = 1024
"""Rows and columns of the matrices that are multiplied."""
TIMES = 3
"""Number of products; the fastest counts, since others may have met a busy machine."""


class ComputeDevice(NamedTuple):
    """A GPU, or all processors of this machine together."""

    name: str
    """Name from the driver; for processors, the number of threads that torch uses."""
    memory: float
    """Bytes that a model may take."""
    speed: dict[str, float]
    """Operations per second that a large matrix product reaches, by precision."""


def devices() -> list[ComputeDevice]:
    """List all GPUs that torch sees; without any, the processors."""
    import torch

    if torch.cuda.is_available():
        return [_gpu(number) for number in range(torch.cuda.device_count())]
    import psutil  # type: ignore[import-untyped]

    threads = torch.get_num_threads()
    speed = {"float32": _operations(torch.float32, "cpu")}
    return [ComputeDevice(f"CPU, {threads} threads", float(psutil.virtual_memory().total), speed)]


def _gpu(number: int) -> ComputeDevice:
    import torch

    facts, place = torch.cuda.get_device_properties(number), f"cuda:{number}"
    speed = {str(kind).removeprefix("torch."): _operations(kind, place) for kind in (torch.float32, torch.bfloat16)}
    return ComputeDevice(facts.name, float(facts.total_memory), {**speed, "float16": speed["bfloat16"]})


def _operations(dtype: torch.dtype, place: str) -> float:
    """Measure operations per second by products of square matrices: two per multiplication with its addition."""
    import torch

    size = SIZE if place == "cpu" else 4 * SIZE
    one = torch.ones(size, size, dtype=dtype, device=place)
    _seconds(one)  # the first also loads the kernel
    return 2 * size**3 / min(_seconds(one) for _ in range(TIMES))


def _seconds(one: torch.Tensor) -> float:
    begun = time.perf_counter()
    (one @ one)[0, 0].item()  # waits for the result
    return time.perf_counter() - begun
