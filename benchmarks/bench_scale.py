"""A comparison on Ray compared with the same one in one process, and the effect of killing its processes.

paired   seconds of asking, by one single-threaded process and by two workers of one thread each; start-up of Ray,
         imports and the loading of models are not counted, and both runs must give the same scores
workers  kills a worker at random moments, by kill -9
driver   kills the process that controls the run, and runs the same command again

OMP_NUM_THREADS=1 python benchmarks/bench_scale.py paired      or      workers --kills 20      or      driver --kills 10
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from math import isnan
from pathlib import Path
from typing import Any

import psutil

METHODS = [
    "none",
    "self_debias",
    "self_debias(variant=explanation)",
    "self_debias(keep_stated=True)",
    "self_debias(variant=reflection)",
    "instruction",
    "self_debias_decoding",
    "self_debias_decoding(decay=5)",
    "moral_self_correction",
    "intent_self_correction",
    "permutation",
    "pride",
]
BENCHMARKS = ["bbq(source=demo)", "mmlu(source=demo)", "option_order(of='mmlu(source=demo)')"]
WORKERS = 2
LOGGED = '''
import os
from typing import ClassVar

from evenhand.evaluation.mmlu import MMLU
from evenhand.experiment.forecast import SAMPLE
from evenhand.interfaces import settings


@settings
class Logged(MMLU):
    """MMLU that writes down whom it asks."""

    name: ClassVar[str] = "logged_mmlu"

    def ask(self, model, items):
        if model.name == "probe" or len(items) <= SAMPLE:  # to find out how questions are read, and for the forecast
            return super().ask(model, items)
        with open(os.environ["BENCH_SCALE_LOG"], "a", encoding="utf-8") as log:
            log.write(f"{model.name} on {self.spec}\\n")
        return super().ask(model, items)
'''
KILLED_METHODS = "none,self_debias,instruction,permutation,pride,moral_self_correction"
KILLED_BENCHMARKS = "logged_mmlu(source=demo),logged_mmlu(source=demo,shots=2)"
COSTS = ("seconds",)
"""Parts of the names of metrics that differ between runs."""


os.environ.setdefault("RAY_worker_niceness", "0")
"""Ray's workers yield to other processes by default (15), which would make the timing depend on other load."""


def scores(records: Sequence[Any]) -> dict[tuple[str, ...], tuple[float, ...]]:
    """Return all numbers except those about time."""
    return {
        (r.model, r.method, r.benchmark, r.metric, r.group): (r.value, r.low, r.high, r.difference, r.p_holm)
        for r in records
        if not any(part in r.metric for part in COSTS)
    }


def farthest(one: dict[Any, tuple[float, ...]], other: dict[Any, tuple[float, ...]]) -> float:
    """Return the largest difference between two runs' scores; infinite if only one has a number."""
    if one.keys() != other.keys():
        return float("inf")
    found = 0.0
    for key, values in one.items():
        for a, b in zip(values, other[key], strict=True):
            if a != b and not (isnan(a) and isnan(b)):
                found = max(found, abs(a - b)) if not isnan(a) and not isnan(b) else float("inf")
    return found


def paired(limit: int | None) -> None:
    """Ask everything on Ray and in one process, and print both times."""
    import evenhand
    from evenhand.experiment.cell_board import CellBoard
    from evenhand.integrations.ray_crew import RayCrew

    begun: list[float] = []
    ready: list[int] = []
    take, planned = CellBoard.take, CellBoard.planned

    def taken_when_all_are_there(self: CellBoard, number: int, at: int | None = None) -> int | None:
        if len(ready) < WORKERS:
            return None
        begun.append(time.perf_counter())
        return take(self, number, at)

    def told(self: CellBoard, number: int, found: Any) -> None:
        ready.append(number)
        planned(self, number, found)

    CellBoard.take, CellBoard.planned = taken_when_all_are_there, told  # type: ignore[method-assign]
    given: dict[str, Any] = {"limit": limit, "show_progress": False}
    with tempfile.TemporaryDirectory() as folder:
        print("load before:", os.getloadavg(), flush=True)
        start = time.perf_counter()
        crew = RayCrew(WORKERS)
        there = evenhand.compare("demo", METHODS, BENCHMARKS, out=f"{folder}/ray", crew=crew, **given)
        end = time.perf_counter()
        on_ray = end - begun[0]
        print(f"ray: {on_ray:.1f} s of asking, {end - start:.1f} s in all", os.getloadavg(), flush=True)
        evenhand.load("demo")
        start, used = time.perf_counter(), time.process_time()
        here = evenhand.compare("demo", METHODS, BENCHMARKS, out=f"{folder}/here", **given)
        alone, used = time.perf_counter() - start, time.process_time() - used
        print(f"one process: {alone:.1f} s, of which {used:.1f} s of its processor", os.getloadavg(), flush=True)
        cells = len({(r.method, r.benchmark) for r in here.records})
        keys = [sorted(p.stem for p in Path(folder, name, "answers").glob("*.parquet")) for name in ("ray", "here")]
    apart = farthest(scores(there.records), scores(here.records))
    print(f"{cells} cells; {alone / on_ray:.2f} x; scores differ by {apart:g} at most; same keys: {keys[0] == keys[1]}")


class Killed:
    """A run of some cells in a process of its own, which can be killed."""

    def __init__(self, folder: Path) -> None:
        """Write the logging plugin."""
        self.folder, self.out, self.log = folder, folder / "run", folder / "log.txt"
        self.plugin = folder / "logged.py"
        self.plugin.write_text(LOGGED, encoding="utf-8")

    def start(self, out: Path, *more: str) -> subprocess.Popen[str]:
        """Start or resume the run."""
        command = [sys.executable, "-m", "evenhand", "compare", "-m", "demo", "--methods", KILLED_METHODS]
        command += ["--benchmarks", KILLED_BENCHMARKS, "--plugin", str(self.plugin), "--out", str(out)]
        command += ["--limit", "150", *more]
        environment = {**os.environ, "BENCH_SCALE_LOG": str(self.log), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def asked(self) -> Counter[str]:
        """Return how often each cell was begun."""
        return Counter(self.log.read_text(encoding="utf-8").splitlines() if self.log.is_file() else [])

    def scores(self, out: Path) -> dict[Any, tuple[float, ...]]:
        """Return the scores of a finished run."""
        from evenhand.report import Report

        return scores(Report.load(out).records)


ON_RAY = ("--on", "ray", "--workers", str(WORKERS))


def workers_of(driver: int) -> list[psutil.Process]:
    """Return the worker processes of a driver that ask cells."""
    found = []
    for process in psutil.Process(driver).children(recursive=True):
        try:
            if process.name().startswith("ray::RemoteWo") or "ray::RemoteWorker" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def undisturbed(folder: Path) -> tuple[Killed, Any, int]:
    """Run once in one process; returns the run, its scores and its number of cells."""
    run = Killed(folder)
    finish(run.start(run.out))
    return run, run.scores(run.out), len(run.asked())


def kill_workers(kills: int, each: int, pause: float) -> None:
    """Kill workers that many times; every run must finish with the scores of one process."""
    with tempfile.TemporaryDirectory() as folder:
        run, expected, cells = undisturbed(Path(folder))
        done, number = 0, 0
        while done < kills:
            number += 1
            run.log.unlink(missing_ok=True)
            out = Path(folder, f"killed-{number}")
            process, mine = run.start(out, *ON_RAY), 0
            while process.poll() is None and mine < min(each, kills - done):
                time.sleep(random.uniform(0.2, pause))
                alive = workers_of(process.pid) if process.poll() is None else []
                if alive and run.log.is_file():
                    victim = random.choice(alive)
                    victim.kill()
                    mine += 1
            finish(process)
            done += mine
            report(run, out, expected, cells, mine, mine)
        print(f"{done} kills of workers in {number} runs: all finished", flush=True)


def kill_drivers(kills: int, pause: float) -> None:
    """Kill the driver that many times, and run the same command again each time."""
    with tempfile.TemporaryDirectory() as folder:
        run, expected, cells = undisturbed(Path(folder))
        done, number = 0, 0
        while done < kills:
            number += 1
            run.log.unlink(missing_ok=True)
            out, mine = Path(folder, f"killed-{number}"), 0
            while True:
                process = run.start(out, *ON_RAY)
                before = sum(run.asked().values())
                while process.poll() is None and sum(run.asked().values()) == before:
                    time.sleep(0.05)
                if process.poll() is None and done + mine < kills:
                    time.sleep(random.uniform(0, pause))
                    if process.poll() is None:
                        os.kill(process.pid, signal.SIGKILL)
                        process.wait()
                        mine += 1
                        continue
                finish(process)
                break
            done += mine
            report(run, out, expected, cells, mine, 2 * mine)
        print(f"{done} kills of the driver in {number} runs: all finished", flush=True)


def finish(process: subprocess.Popen[str]) -> None:
    """Wait for the end of a run, which must succeed."""
    _, said = process.communicate()
    if process.returncode:
        raise SystemExit(f"a run failed with {process.returncode}:\n{said}")


def report(run: Killed, out: Path, expected: Any, cells: int, kills: int, allowed: int) -> None:
    """Print the result of a run, and fail if it is wrong."""
    asked = run.asked()
    twice, apart = sum(asked.values()) - cells, farthest(run.scores(out), expected)
    print(json.dumps({"kills": kills, "cells": len(asked), "asked again": twice, "differ by": apart}), flush=True)
    if len(asked) != cells or twice > allowed or apart > 1e-12:
        raise SystemExit(f"{dict(asked)}: at most {allowed} of {cells} cells may be asked again, with the same scores")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("paired", "workers", "driver"))
    parser.add_argument("--limit", type=int, help="items per benchmark of the paired runs; default: all")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--each", type=int, default=5, help="kills of workers within one run")
    parser.add_argument("--pause", type=float, default=6.0, help="maximum time between two kills, s")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments")
    given = parser.parse_args()
    random.seed(given.seed)
    if given.what == "paired":
        paired(given.limit)
    elif given.what == "workers":
        kill_workers(given.kills, given.each, given.pause)
    else:
        kill_drivers(given.kills, given.pause)


if __name__ == "__main__":
    main()
