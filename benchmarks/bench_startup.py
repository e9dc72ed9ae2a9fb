"""How long commands take that need no model, beside the help of lm-evaluation-harness.

make bench        or        python benchmarks/bench_startup.py
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from tables import put

COMMANDS = ("evenhand --help", "evenhand methods", "evenhand benchmarks", "lm_eval --help")
RUNS = 5


class Took(NamedTuple):
    """One whole process."""

    seconds: float
    cpu: float
    """Seconds of processor time, which hardly depend on what else the machine does."""


def took(command: list[str]) -> Took:
    def cpu() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    start, cpu_before = time.perf_counter(), cpu()
    subprocess.run(command, capture_output=True, check=True)
    return Took(time.perf_counter() - start, cpu() - cpu_before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    given = parser.parse_args()
    rows: list[dict[str, object]] = []
    for command in COMMANDS:
        name, *arguments = command.split()
        program = [str(Path(sys.executable).with_name(name)), *arguments]
        runs = [took(program) for _ in range(RUNS)]
        best = {"best of five, s": min(r.seconds for r in runs), "processor, s": min(r.cpu for r in runs)}
        rows.append({"command": command, **{column: f"{value:.2f}" for column, value in best.items()}})
    put("start-up", rows, write=given.write)


if __name__ == "__main__":
    main()
