"""Seconds and peak memory of a piece of work."""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Generic, NamedTuple, TypeVar

import psutil
import torch

T = TypeVar("T")


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
    begun = time.perf_counter()
    values = run()
    seconds = time.perf_counter() - begun
    stop.set()
    watcher.join()
    return Timed(values, seconds, (peak - start) / 1e6)


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


def _give_back() -> None:
    """Hand freed memory back to the system: what is measured next would use it again, and seem to need none."""
    if sys.platform == "linux" and hasattr(ctypes.CDLL(None), "malloc_trim"):
        ctypes.CDLL(None).malloc_trim(0)
