"""Measure seconds and peak memory of a piece of work."""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import psutil
import torch

T = TypeVar("T")
Name = TypeVar("Name", bound=Hashable)

_clock = time.perf_counter
"""Clock that counts seconds."""


class Timed(NamedTuple, Generic[T]):
    """Measurement of one way of doing the work."""

    values: T
    seconds: float
    memory: float
    """Peak memory above the initial level, in MB."""


def timed(run: Callable[[], T]) -> Timed[T]:
    """Run a piece of work, and measure time and peak resident memory."""
    gc.collect()
    _give_back()
    process, stop = psutil.Process(), threading.Event()
    start = peak = process.memory_info().rss

    def watch() -> None:
        nonlocal peak
        while not stop.wait(0.02):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    begun = _clock()
    values = run()
    seconds = _clock() - begun
    stop.set()
    watcher.join()
    return Timed(values, seconds, (peak - start) / 1e6)


def in_turns(runs: Mapping[Name, Callable[[], T]], times: int = 2) -> dict[Name, Timed[T]]:
    """Return the fastest of several runs of each way; the ways take turns, so that none meets a quieter machine."""
    found: dict[Name, list[Timed[T]]] = {name: [] for name in runs}
    for _ in range(times):
        for name, run in runs.items():
            found[name].append(timed(run))
    return {name: min(some, key=lambda t: t.seconds) for name, some in found.items()}


def count_processor_seconds() -> None:
    """Count processor seconds of one thread from now on, which other load on the machine changes little."""
    global _clock
    torch.set_num_threads(1)
    _clock = time.process_time


def multiplications(module: torch.nn.Module, fed: int, read: int) -> int:
    """Count the multiplications of linear layers and output embedding; the input embedding is only looked up.

    Args:
        module: A transformers language model.
        fed: Tokens that go through the layers.
        read: Positions at which the output embedding is multiplied.
    """
    head: torch.Tensor = module.get_output_embeddings().weight  # type: ignore[operator]
    layers = sum(m.weight.numel() for m in module.modules() if isinstance(m, torch.nn.Linear)) - head.numel()
    return layers * fed + head.numel() * read


def products(count: int, dtype: torch.dtype) -> Callable[[], None]:
    """Return the floor: only that many multiplications, in large products with weights laid out the faster way.

    Time it in turns with the work that it bounds: the rate of one moment is not that of seconds on a busy
    machine.
    """
    x, weight = torch.randn(4096, 576).to(dtype), torch.randn(1536, 576).to(dtype)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight)
    ways: list[Callable[[torch.Tensor], torch.Tensor]] = [
        lambda rows: torch.nn.functional.linear(rows, weight),
        lambda rows: torch.ops.mkldnn._linear_pointwise(rows, packed, None, "none", [], ""),
    ]
    with torch.inference_mode():
        fastest = min(ways, key=lambda way: min(timed(lambda: way(x)).seconds for _ in range(5)))
    whole, rest = divmod(round(count / weight.numel()), len(x))

    def run() -> None:
        with torch.inference_mode():
            for _ in range(whole):
                fastest(x)
            if rest:
                fastest(x[:rest])

    return run


def largest_difference(one: Sequence[float] | None, other: Sequence[float] | None) -> float:
    """Return the largest difference between the values of two ways, in the same order."""
    return float(np.abs(np.subtract(np.array(one), np.array(other))).max())


def _give_back() -> None:
    """Return freed memory to the system: the next measurement would reuse it, and seem to need none."""
    if sys.platform == "linux" and hasattr(ctypes.CDLL(None), "malloc_trim"):
        ctypes.CDLL(None).malloc_trim(0)
