"""Duration of commands that need no model, next to the help of lm-evaluation-harness, and the overhead of `evaluate`.

One item of the demo is evaluated; importing torch and transformers is counted apart from what evenhand adds.

make bench        or        python benchmarks/bench_startup.py
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from tables import put

COMMANDS = ("evenhand --help", "evenhand methods", "evenhand benchmarks", "lm_eval --help")
RUNS = 5
FLOOR = "import torch; from transformers import AutoTokenizer, LlamaForCausalLM"
"""Imports of every command that runs a model."""
EVALUATE = ("evaluate", "demo", "--limit", "1")


class Took(NamedTuple):
    """Timing of a whole process."""

    seconds: float
    cpu: float
    """Processor seconds, which hardly depend on other load on the machine."""


def took(command: list[str], env: dict[str, str] | None = None) -> Took:
    def cpu() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    start, cpu_before = time.perf_counter(), cpu()
    subprocess.run(command, capture_output=True, check=True, env=env)
    return Took(time.perf_counter() - start, cpu() - cpu_before)


def evaluate_and_floor(runs: int = RUNS) -> tuple[float, float]:
    """Measure processor seconds of one evaluated item and of the imports below: best of several, in turns, one thread.

    No data folder is set, so that the benchmarks are the demo's own.
    """
    env = {k: v for k, v in os.environ.items() if k != "EVENHAND_DATA"} | {
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    program = [sys.executable, "-c", "from evenhand.cli.app import main; main()", *EVALUATE]
    evaluated, floor = [], []
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as out:
            evaluated.append(took([*program, "--out", str(Path(out) / "run")], env).cpu)
        floor.append(took([sys.executable, "-c", FLOOR], env).cpu)
    return min(evaluated), min(floor)


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
    evaluated, floor = evaluate_and_floor()
    print(f"evenhand {' '.join(EVALUATE)}: {evaluated:.2f} s of processor time")
    print(f"imports of torch and transformers: {floor:.2f} s; evenhand adds {evaluated - floor:.2f} s")


if __name__ == "__main__":
    main()
