"""Seconds and peak memory of a piece of work."""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
import time
from collections.abc import Callable, Hashable, Mapping
from functools import partial
from typing import Generic, NamedTuple, TypeVar

import psutil
import torch

T = TypeVar("T")
Name = TypeVar("Name", bound=Hashable)

_clock = time.perf_counter
"""What seconds are counted by."""


class Timed(NamedTuple, Generic[T]):
    """One way of doing it."""

    values: T
    seconds: float
    memory: float
    """Peak above what was there before, MB."""


def timed(run: Callable[[], T]) -> Timed[T]:
    """Run with the peak of resident memory watched."""
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
    """The fastest of several runs of each of some ways, which take turns, so that none meets a quieter machine."""
    found: dict[Name, list[Timed[T]]] = {name: [] for name in runs}
    for _ in range(times):
        for name, run in runs.items():
            found[name].append(timed(run))
    return {name: min(some, key=lambda t: t.seconds) for name, some in found.items()}


def count_processor_seconds() -> None:
    """Count the processor's seconds of one thread from now on, which other work on the machine changes little."""
    global _clock
    torch.set_num_threads(1)
    _clock = time.process_time


def multiplications_per_second(dtype: torch.dtype) -> float:
    """What one large matrix product reaches, with weights laid out for oneDNN where that is faster."""
    x, weight = torch.randn(4096, 576).to(dtype), torch.randn(1536, 576).to(dtype)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight)
    ways = [
        partial(torch.nn.functional.linear, x, weight),
        partial(torch.ops.mkldnn._linear_pointwise, x, packed, None, "none", [], ""),
    ]
    with torch.inference_mode():
        seconds = min(timed(way).seconds for way in ways for _ in range(5))
    return x.numel() * len(weight) / seconds


def floor(module: torch.nn.Module, fed: int, read: int) -> float:
    """Seconds that nothing but the linear layers takes, at the rate that one large product reaches here.

    Args:
        module: A language model of transformers; its input embedding is looked up, not multiplied.
        fed: Tokens that go through the layers.
        read: Positions that the output embedding is multiplied at.
    """
    head: torch.Tensor = module.get_output_embeddings().weight  # type: ignore[operator]
    layers = sum(m.weight.numel() for m in module.modules() if isinstance(m, torch.nn.Linear)) - head.numel()
    return (layers * fed + head.numel() * read) / multiplications_per_second(head.dtype)


def _give_back() -> None:
    """Hand freed memory back to the system: what is measured next would use it again, and seem to need none."""
    if sys.platform == "linux" and hasattr(ctypes.CDLL(None), "malloc_trim"):
        ctypes.CDLL(None).malloc_trim(0)
