"""Two processes that were launched together, for the workers of the tests next to this file."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import accelerate  # noqa: F401  # forks of this process find it imported
import torch


def main(found: Callable[..., Any], folder: Path, port: int, *more: Any, **variables: str) -> None:
    """Two forks of a process that has imported everything: that takes longer than the work.

    Args:
        found: Called in each with rank, folder and `more`; its result is written to found0.pt and found1.pt.
        folder: For the results.
        port: Where they meet.
        more: Further arguments.
        variables: Of the environment, besides those that accelerate launch sets.
    """
    given = (found, folder, port, more, variables)
    ready = [get_context("fork").Process(target=_work, args=(rank, *given)) for rank in range(2)]
    for p in ready:
        p.start()
    while running := [p.sentinel for p in ready if p.exitcode is None]:  # asked once: waiting for none would not end
        wait(running)
        if any(p.exitcode for p in ready):  # the other one would wait for it
            for p in ready:
                p.kill()
    sys.exit(max(abs(p.exitcode or 0) for p in ready))


def _work(
    rank: int, found: Callable[..., Any], folder: Path, port: int, more: tuple[Any, ...], variables: dict[str, str]
) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "ACCELERATE_USE_CPU": "true",
        **variables,
    }  # as accelerate launch sets them
    torch.set_num_threads(1)
    try:
        made = found(rank, folder, *more)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)  # the other process would wait
    torch.save(made, folder / f"found{rank}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
